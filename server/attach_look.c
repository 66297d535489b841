/*
 * Which images are to be opened as attached, and the thread that notices what guests write.
 *
 * inotify tells of writes through the kernel's usual calls. What it does not tell of (some ways of
 * asynchronous I/O), and what is lost where its queue overflows, the file's times do: they are
 * looked at four times a second. After a notice the thread lets 10 ms pass before it asks for the
 * next, so that a guest that writes without pause costs a bounded number of looks. While nothing is
 * attached it sleeps.
 */
#include "attach.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "util.h"

#define REST_NS (10 * SPB_NS_PER_MS)      /* between two batches of notices */
#define REGULAR_NS (250 * SPB_NS_PER_MS)  /* between looks at the files' times */
#define UNNOTICED_NS (50 * SPB_NS_PER_MS) /* the same where inotify is not to be had */
#define RECENT_S 1                        /* times are coarse: what is so young may be old news */
#define NOTICES_SIZE 4096u

struct looked_at {
    struct looked_at *next;
    struct spb_image *image; /* a reference */
    int notice;              /* inotify's number; -1: none */
    bool stirred;
    struct timespec modified; /* as of the last look */
};

struct expected {
    struct expected *next;
    uint16_t tenant;
    char name[SPB_IMAGE_NAME_MAX + 1];
    char guest[SPB_GUEST_TEXT_SIZE];
};

struct spb_attachments {
    struct spb_daemon *daemon;
    pthread_t thread;
    bool has_thread;
    int notices, wake;    /* inotify (-1: not to be had), eventfd */
    pthread_mutex_t lock; /* over all below; taken before an image's */
    struct looked_at *images;
    struct expected *expected;
    bool ending;
};

/* ---- Expected ones ------------------------------------------------------------------------ */

static struct expected **find_expected(struct spb_attachments *attachments, uint16_t tenant,
                                       const char *name)
{
    struct expected **at = &attachments->expected;

    while (*at != NULL && ((*at)->tenant != tenant || strcmp((*at)->name, name) != 0))
        at = &(*at)->next;
    return at;
}

static spb_status expect_locked(struct spb_attachments *attachments, uint16_t tenant,
                                const char *name, const char *guest, struct spb_error *err)
{
    struct expected **at = find_expected(attachments, tenant, name);

    if (*at != NULL)
        return strcmp((*at)->guest, guest) == 0
                   ? spb_ok()
                   : spb_fail(err, SPB_LOCKED,
                              "image %u/%s is said to be guest %s's and guest %s's",
                              (unsigned)tenant, name, (*at)->guest, guest);
    *at = calloc(1, sizeof(**at));
    if (*at == NULL)
        return spb_fail_memory(err, "noting a guest's image");
    (*at)->tenant = tenant;
    (void)snprintf((*at)->name, sizeof((*at)->name), "%s", name);
    (void)snprintf((*at)->guest, sizeof((*at)->guest), "%s", guest);
    return spb_ok();
}

spb_status spb_attach_expect(struct spb_daemon *daemon, uint16_t tenant, const char *name,
                             const char *guest, struct spb_error *err)
{
    struct spb_attachments *attachments = daemon->attachments;

    SPB_ASSERT(guest[0] != '\0' && strlen(guest) < SPB_GUEST_TEXT_SIZE);
    SPB_ASSERT(spb_image_name_is_valid(name, strlen(name)));
    (void)pthread_mutex_lock(&attachments->lock);
    spb_status status = expect_locked(attachments, tenant, name, guest, err);
    (void)pthread_mutex_unlock(&attachments->lock);
    return status;
}

bool spb_attach_is_expected(struct spb_attachments *attachments, const struct spb_image *image,
                            char guest[SPB_GUEST_TEXT_SIZE])
{
    (void)pthread_mutex_lock(&attachments->lock);
    struct expected **at = find_expected(attachments, image->tenant, image->name);
    struct expected *found = *at;
    if (found != NULL) {
        *at = found->next;
        memcpy(guest, found->guest, sizeof(found->guest));
    }
    (void)pthread_mutex_unlock(&attachments->lock);
    free(found);
    return found != NULL;
}

/* ---- Looked at ---------------------------------------------------------------------------- */

static void wake(struct spb_attachments *attachments)
{
    uint64_t one = 1;

    (void)!write(attachments->wake, &one, sizeof(one));
}

void spb_attach_begin_look(struct spb_attachments *attachments, struct spb_image *image)
{
    struct looked_at *looked_at = calloc(1, sizeof(*looked_at));

    if (looked_at == NULL) {
        /* Calls still read what is there; watches hear of events when somebody else asks. */
        spb_log(&attachments->daemon->log, SPB_LOG_ERROR, "guest-not-watched",
                SPB_NUMBER("tenant", image->tenant), SPB_TEXT("name", image->name));
        return;
    }
    spb_image_ref(image);
    looked_at->image = image;
    looked_at->notice = -1;
    (void)pthread_mutex_lock(&attachments->lock);
    if (attachments->notices >= 0)
        looked_at->notice = inotify_add_watch(attachments->notices, image->path, IN_MODIFY);
    looked_at->next = attachments->images;
    attachments->images = looked_at;
    (void)pthread_mutex_unlock(&attachments->lock);
    wake(attachments);
}

static void free_looked_at(struct spb_attachments *attachments, struct looked_at *looked_at)
{
    if (looked_at->notice >= 0)
        (void)inotify_rm_watch(attachments->notices, looked_at->notice);
    spb_image_unref(looked_at->image);
    free(looked_at);
}

void spb_attach_end_look(struct spb_attachments *attachments, struct spb_image *image)
{
    (void)pthread_mutex_lock(&attachments->lock);
    struct looked_at **at = &attachments->images;
    while (*at != NULL && (*at)->image != image)
        at = &(*at)->next;
    struct looked_at *found = *at;
    if (found != NULL)
        *at = found->next;
    (void)pthread_mutex_unlock(&attachments->lock);
    if (found != NULL)
        free_looked_at(attachments, found);
}

/* ---- The thread --------------------------------------------------------------------------- */

static void stir_locked(struct spb_attachments *attachments, const struct inotify_event *event)
{
    bool all = (event->mask & IN_Q_OVERFLOW) != 0;

    for (struct looked_at *at = attachments->images; at != NULL; at = at->next)
        at->stirred |= all || at->notice == event->wd;
}

static void poke_stirred_locked(struct spb_attachments *attachments)
{
    for (struct looked_at *at = attachments->images; at != NULL; at = at->next) {
        if (at->stirred)
            spb_image_poke(at->image);
        at->stirred = false;
    }
}

/* All notices that are there. */
static void take_notices_locked(struct spb_attachments *attachments)
{
    _Alignas(struct inotify_event) char notices[NOTICES_SIZE];
    ssize_t got;

    while ((got = read(attachments->notices, notices, sizeof(notices))) > 0) {
        size_t at = 0;

        while (at < (size_t)got) {
            const struct inotify_event *event = (const void *)(notices + at);

            stir_locked(attachments, event);
            at += sizeof(*event) + event->len;
        }
    }
    poke_stirred_locked(attachments);
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Returns when to look again. */
static int64_t look_at_times_locked(struct spb_attachments *attachments, int64_t now_ns)
{
    int64_t wait_ns = REGULAR_NS;
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    for (struct looked_at *at = attachments->images; at != NULL; at = at->next) {
        struct stat st;

        if (at->notice < 0)
            wait_ns = UNNOTICED_NS;
        if (stat(at->image->path, &st) != 0)
            continue;
        at->stirred =
            !is_same_time(&st.st_mtim, &at->modified) || now.tv_sec - st.st_mtim.tv_sec <= RECENT_S;
        at->modified = st.st_mtim;
    }
    poke_stirred_locked(attachments);
    return now_ns + wait_ns;
}

/* When the thread has something to do. */
struct agenda {
    int64_t regular_ns; /* the next look at the times */
    int64_t notices_ns; /* notices are taken from then on */
};

static int timeout_ms(const struct agenda *agenda, int64_t now_ns)
{
    int64_t at_ns = agenda->regular_ns;

    if (agenda->notices_ns > now_ns && agenda->notices_ns < at_ns)
        at_ns = agenda->notices_ns;
    return at_ns <= now_ns ? 0 : (int)((at_ns - now_ns) / SPB_NS_PER_MS) + 1;
}

/* Sleeps until there is something. */
static void sleep_until_needed(struct spb_attachments *attachments, const struct agenda *agenda,
                               bool idle)
{
    int64_t now_ns = spb_now_ns();
    bool rests = agenda->notices_ns > now_ns;
    struct pollfd fds[2] = {{.fd = attachments->wake, .events = POLLIN},
                            {.fd = rests ? -1 : attachments->notices, .events = POLLIN}};
    uint64_t count;

    if (poll(fds, 2, idle ? -1 : timeout_ms(agenda, now_ns)) > 0 && fds[0].revents != 0)
        (void)!read(attachments->wake, &count, sizeof(count));
}

static void work_locked(struct spb_attachments *attachments, struct agenda *agenda)
{
    int64_t now_ns = spb_now_ns();
    int waiting = 0;

    if (attachments->notices >= 0 && agenda->notices_ns <= now_ns) {
        struct pollfd fd = {.fd = attachments->notices, .events = POLLIN};

        waiting = poll(&fd, 1, 0);
    }
    if (waiting > 0) {
        take_notices_locked(attachments);
        agenda->notices_ns = now_ns + REST_NS;
    }
    if (agenda->regular_ns <= now_ns)
        agenda->regular_ns = look_at_times_locked(attachments, now_ns);
}

static void *run(void *user)
{
    struct spb_attachments *attachments = user;
    struct agenda agenda = {.regular_ns = 0};

    for (;;) {
        (void)pthread_mutex_lock(&attachments->lock);
        bool ending = attachments->ending, idle = attachments->images == NULL;
        if (!ending)
            work_locked(attachments, &agenda);
        (void)pthread_mutex_unlock(&attachments->lock);
        if (ending)
            return NULL;
        sleep_until_needed(attachments, &agenda, idle);
    }
}

/* ---- Life --------------------------------------------------------------------------------- */

spb_status spb_attachments_start(struct spb_attachments *attachments, struct spb_error *err)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&attachments->thread, NULL, run, attachments);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    attachments->has_thread = number == 0;
    if (number != 0)
        return spb_fail_errno(err, SPB_NO_MEMORY, number,
                              "starting the thread that looks at guests' images");
    return spb_ok();
}

spb_status spb_attachments_new(struct spb_daemon *daemon, struct spb_attachments **out,
                               struct spb_error *err)
{
    struct spb_attachments *attachments = calloc(1, sizeof(*attachments));

    if (attachments == NULL)
        return spb_fail_memory(err, "preparing guests' images");
    attachments->daemon = daemon;
    (void)pthread_mutex_init(&attachments->lock, NULL);
    attachments->notices = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (attachments->notices < 0)
        spb_log(&daemon->log, SPB_LOG_WARN, "no-inotify", SPB_TEXT("reason", strerror(errno)));
    attachments->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (attachments->wake < 0) {
        int number = errno;

        spb_attachments_free(attachments);
        return spb_fail_errno(err, SPB_IO, number, "making the wake-up for guests' images");
    }
    *out = attachments;
    return spb_ok();
}

void spb_attachments_stop(struct spb_attachments *attachments)
{
    if (attachments == NULL || !attachments->has_thread)
        return;
    (void)pthread_mutex_lock(&attachments->lock);
    attachments->ending = true;
    (void)pthread_mutex_unlock(&attachments->lock);
    wake(attachments);
    (void)pthread_join(attachments->thread, NULL);
    attachments->has_thread = false;
}

static void free_lists(struct spb_attachments *attachments)
{
    while (attachments->images != NULL) {
        struct looked_at *next = attachments->images->next;

        free_looked_at(attachments, attachments->images);
        attachments->images = next;
    }
    while (attachments->expected != NULL) {
        struct expected *next = attachments->expected->next;

        free(attachments->expected);
        attachments->expected = next;
    }
}

void spb_attachments_free(struct spb_attachments *attachments)
{
    if (attachments == NULL)
        return;
    SPB_ASSERT(!attachments->has_thread);
    free_lists(attachments);
    if (attachments->notices >= 0)
        (void)close(attachments->notices);
    if (attachments->wake >= 0)
        (void)close(attachments->wake);
    (void)pthread_mutex_destroy(&attachments->lock);
    free(attachments);
}
