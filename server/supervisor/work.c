/* What workers do for a guest; see work.h. */
#include "supervisor/work.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"
#include "base/status.h"
#include "daemon.h"
#include "image.h"
#include "registry.h"
#include "supervisor/drive.h"
#include "supervisor/guests.h"
#include "supervisor/machine/command.h"
#include "supervisor/process/kvm.h"
#include "supervisor/session.h"
#include "supervisor/thread.h"
#include "uuid.h"

#define ACCEL(name) SPACEBLOCK__V1__GUEST_ACCEL__GUEST_ACCEL_##name

static struct spb_image *find_image(struct spb_daemon *daemon, uint16_t tenant,
                                    const PB_ImageRef *ref, struct spb_error *err)
{
    struct spb_image *image =
        spb_registry_find(daemon->registry, tenant, ref->name.data, ref->name.len);

    if (image == NULL)
        (void)spb_fail(err, SPB_NOT_FOUND, "no image %u/%.*s", (unsigned)tenant, (int)ref->name.len,
                       (const char *)ref->name.data);
    return image;
}

/* ---- Accelerator -------------------------------------------------------------------------- */

/* Asked once in the daemon's life; what was proven for this host and QEMU is remembered on disk. */
static bool kvm_works(struct spb_guests *guests)
{
    struct spb_daemon *daemon = guests->daemon;
    char memory[SPB_PATH_SIZE + 16];
    struct spb_kvm_question question = {.program = daemon->options.qemu, .memory = memory};
    struct spb_kvm_answer answer = {.works = false};
    struct spb_error err;

    (void)pthread_mutex_lock(&guests->kvm_lock);
    if (!guests->kvm_is_known) {
        (void)snprintf(memory, sizeof(memory), "%s/kvm-proof", guests->logs_dir);
        char *whole = realpath(guests->logs_dir, NULL);
        if (whole != NULL)
            (void)snprintf(memory, sizeof(memory), "%.4000s/kvm-proof", whole);
        free(whole);
        bool asked = spb_is_ok(spb_kvm_prove(&question, &answer, &err));
        guests->kvm_works = asked && answer.works;
        guests->kvm_is_known = true;
        spb_log(&daemon->log, SPB_LOG_INFO, "kvm", SPB_TEXT("works", answer.works ? "yes" : "no"),
                SPB_TEXT("reason", asked ? answer.reason : err.text),
                SPB_NUMBER("took_ms", answer.took_ms));
    }
    bool works = guests->kvm_works;
    (void)pthread_mutex_unlock(&guests->kvm_lock);
    return works;
}

static uint32_t choose_accel(struct spb_guest *guest)
{
    uint32_t wanted = guest->config->accel;
    enum spb_accelerator usual = guest->daemon->options.accelerator;

    if (wanted == ACCEL(KVM) || wanted == ACCEL(TCG))
        return wanted;
    if (usual != SPB_ACCELERATOR_AUTO)
        return usual == SPB_ACCELERATOR_KVM ? ACCEL(KVM) : ACCEL(TCG);
    return kvm_works(guest->daemon->guests) ? ACCEL(KVM) : ACCEL(TCG);
}

/* ---- The command line --------------------------------------------------------------------- */

/* All texts of a command line; freed once it is made. */
struct parts {
    char *kernel, *initrd, *append;
    char *disks[SPB_GUEST_IMAGES_MAX];
    char serials[SPB_GUEST_IMAGES_MAX][8];
};

static void parts_done(struct parts *parts)
{
    free(parts->kernel);
    free(parts->initrd);
    free(parts->append);
    for (size_t i = 0; i < SPB_GUEST_IMAGES_MAX; i++)
        free(parts->disks[i]);
}

static spb_status find_disk(struct spb_guest *guest, size_t i, struct parts *parts,
                            struct spb_machine *machine, struct spb_error *err)
{
    struct spb_image *image =
        find_image(guest->daemon, guest->tenant, guest->config->images[i], err);

    if (image == NULL)
        return (spb_status){err->code};
    parts->disks[i] = realpath(image->path, NULL);
    int number = errno;
    spb_image_unref(image);
    if (parts->disks[i] == NULL)
        return spb_fail_errno(err, SPB_IO, number, "looking at the file of image %zu", i);
    (void)snprintf(parts->serials[i], sizeof(parts->serials[i]), "vd%c", (char)('a' + i));
    machine->disks[i] = (struct spb_machine_disk){parts->disks[i], parts->serials[i]};
    machine->disk_count = i + 1;
    return spb_ok();
}

static spb_status find_parts(struct spb_guest *guest, struct parts *parts,
                             struct spb_machine *machine, struct spb_error *err)
{
    const PB_GuestConfig *config = guest->config;

    SPB_TRY(spb_boot_file_find(guest->daemon, guest->tenant, config->kernel, "kernel",
                               &parts->kernel, err));
    if (config->initrd != NULL)
        SPB_TRY(spb_boot_file_find(guest->daemon, guest->tenant, config->initrd, "initial RAM disk",
                                   &parts->initrd, err));
    if (config->append.len > 0) {
        parts->append = strndup((const char *)config->append.data, config->append.len);
        if (parts->append == NULL)
            return spb_fail_memory(err, "making QEMU's command line");
    }
    for (size_t i = 0; i < config->n_images; i++)
        SPB_TRY(find_disk(guest, i, parts, machine, err));
    machine->kernel = parts->kernel;
    machine->initrd = parts->initrd;
    machine->append = parts->append;
    return spb_ok();
}

static spb_status make_command(struct spb_guest_run *run, struct spb_error *err)
{
    struct spb_guest *guest = run->guest;
    char uuid[SPB_UUID_TEXT_SIZE], console[SPB_SOCKET_PATH_SIZE], monitor[SPB_SOCKET_PATH_SIZE],
        pidfile[SPB_SOCKET_PATH_SIZE];
    struct parts parts = {.kernel = NULL};
    struct spb_machine machine = {
        .program = guest->daemon->options.qemu,
        .name = guest->text,
        .uuid = uuid,
        .memory_mib = guest->config->memory_mib,
        .cpus = guest->config->cpus,
        .accel = run->accel == (uint32_t)ACCEL(KVM) ? SPB_ACCEL_KVM : SPB_ACCEL_TCG,
        .console = {.path = console},
        .monitor = {.path = monitor},
        .pidfile = pidfile,
        .pauses_at_end = true,
    };

    spb_uuid_write(guest->uuid, uuid);
    spb_rundir_path(&run->dir, SPB_RUNDIR_CONSOLE, console);
    spb_rundir_path(&run->dir, SPB_RUNDIR_MONITOR, monitor);
    spb_rundir_path(&run->dir, SPB_RUNDIR_PIDFILE, pidfile);
    spb_status status = find_parts(guest, &parts, &machine, err);
    if (spb_is_ok(status))
        status = spb_machine_command(&machine, &run->argv, err);
    parts_done(&parts);
    return status;
}

/* ---- Preparing ---------------------------------------------------------------------------- */

static spb_status attach_images(struct spb_guest *guest, struct spb_error *err)
{
    for (size_t i = 0; i < guest->config->n_images; i++) {
        struct spb_image *image =
            find_image(guest->daemon, guest->tenant, guest->config->images[i], err);

        if (image == NULL)
            return (spb_status){err->code};
        spb_status status = spb_image_attach(image, guest->text, err);
        spb_image_unref(image);
        SPB_TRY(status);
    }
    return spb_ok();
}

static spb_status make_places(struct spb_guest_run *run, struct spb_error *err)
{
    const struct spb_guests *guests = run->guest->daemon->guests;
    const PB_GuestConfig *config = run->guest->config;
    struct spb_cgroup_limits limits = spb_cgroup_limits_of(config->memory_mib, config->cpus);

    SPB_TRY(spb_rundir_remove(run->base, run->name, err));
    SPB_TRY(spb_rundir_make(run->base, run->name, &run->dir, err));
    SPB_TRY(spb_words_make(&run->dir, &run->words, &run->child_words_fd, err));
    if (guests->cgroup.fd < 0)
        return spb_ok();
    SPB_TRY(spb_cgroup_remove(&guests->cgroup, run->name, err));
    return spb_cgroup_add(&guests->cgroup, run->name, &limits, &run->procs_fd, err);
}

static spb_status verify_boot_files(const struct spb_guest *guest, struct spb_error *err)
{
    const PB_GuestConfig *config = guest->config;

    SPB_TRY(spb_boot_file_verify(guest->daemon, guest->tenant, config->kernel, "kernel", err));
    if (config->initrd == NULL)
        return spb_ok();
    return spb_boot_file_verify(guest->daemon, guest->tenant, config->initrd, "initial RAM disk",
                                err);
}

/* The record is the last: what it says may have begun is ready to. */
static spb_status prepare(struct spb_guest_run *run, struct spb_error *err)
{
    struct spb_guest *guest = run->guest;

    run->accel = choose_accel(guest);
    SPB_TRY(spb_work_check(guest->daemon, guest->tenant, guest->config, err));
    SPB_TRY(verify_boot_files(guest, err));
    SPB_TRY(attach_images(guest, err));
    SPB_TRY(make_places(run, err));
    SPB_TRY(make_command(run, err));
    run->row.accel = run->accel;
    return spb_rows_set_guest(guest->daemon->audit, &run->row, err);
}

static void prepared(struct spb_post *post)
{
    struct spb_guest_run *run = SPB_CONTAINER(post, struct spb_guest_run, post);
    struct spb_guest *guest = run->guest;

    spb_supervisor_work_done(guest->daemon->guests->supervisor);
    if (run->failure.code == SPB_OK) {
        spb_drive_tell(guest, SPB_LIFE_PREPARED, NULL);
    } else {
        guest->failure = spb_reason_of(run->failure.code);
        spb_drive_tell(guest, SPB_LIFE_FAILED, run->failure.text);
    }
    spb_guest_unref(guest);
}

static void run_prepare(struct spb_task *task)
{
    struct spb_guest_run *run = SPB_CONTAINER(task, struct spb_guest_run, task);
    struct spb_error err = {.code = SPB_OK};

    if (!spb_is_ok(prepare(run, &err)))
        run->failure = err;
    (void)spb_supervisor_post(run->guest->daemon->guests->supervisor, &run->post);
}

/* The guest lives at least until what came of it is back. */
static void hand_on(struct spb_guest_run *run, void (*work)(struct spb_task *task),
                    void (*ended)(struct spb_post *post))
{
    run->task.run = work;
    run->post.run = ended;
    spb_guest_ref(run->guest);
    spb_supervisor_work(run->guest->daemon->guests->supervisor, SPB_LANE_ALONE, &run->task);
}

void spb_work_prepare(struct spb_guest *guest)
{
    const struct spb_guests *guests = guest->daemon->guests;

    guest->run = spb_run_new(guest, guests->run_dir);
    if (guest->run == NULL) {
        guest->failure = PB_REASON(INTERNAL);
        spb_drive_tell(guest, SPB_LIFE_FAILED, "out of memory");
        return;
    }
    memcpy(guest->run_base, guest->run->base, sizeof(guest->run_base));
    guest->version++; /* of the row that says it may have begun */
    spb_guest_row(guest, &guest->run->row);
    hand_on(guest->run, run_prepare, prepared);
}

spb_status spb_work_check(struct spb_daemon *daemon, uint16_t tenant, const PB_GuestConfig *config,
                          struct spb_error *err)
{
    char *path = NULL;

    for (size_t i = 0; i < config->n_images; i++) {
        struct spb_image *image = find_image(daemon, tenant, config->images[i], err);

        if (image == NULL)
            return (spb_status){err->code};
        spb_image_unref(image);
    }
    SPB_TRY(spb_boot_file_find(daemon, tenant, config->kernel, "kernel", &path, err));
    free(path);
    if (config->initrd == NULL)
        return spb_ok();
    SPB_TRY(spb_boot_file_find(daemon, tenant, config->initrd, "initial RAM disk", &path, err));
    free(path);
    return spb_ok();
}

/* ---- Folders that stay -------------------------------------------------------------------- */

/* Of runs that are over, from the first to the last. */
struct sweeping {
    struct spb_task task;
    struct spb_post post;
    struct spb_guest *guest; /* a reference */
    char base[SPB_ROW_FOLDER_SIZE];
    uint64_t first, last;
};

/* What another one put there, or is no folder of ours, stays until somebody looks. */
static bool may_go_later(enum spb_code code)
{
    return code != SPB_IN_USE && code != SPB_CORRUPT;
}

static void note_left(struct spb_guest *guest, uint64_t first, uint64_t last)
{
    if (guest->left_first == 0 || first < guest->left_first)
        guest->left_first = first;
    if (last > guest->left_last)
        guest->left_last = last;
    guest->sweep_wait_ns = spb_drive_longer_ns(guest->sweep_wait_ns);
    guest->sweep_at_ns = spb_now_ns() + guest->sweep_wait_ns;
    spb_supervisor_activate(guest->daemon->guests->supervisor, guest);
}

static void swept(struct spb_post *post)
{
    struct sweeping *sweeping = SPB_CONTAINER(post, struct sweeping, post);
    struct spb_guest *guest = sweeping->guest;

    spb_supervisor_work_done(guest->daemon->guests->supervisor);
    if (sweeping->first <= sweeping->last)
        note_left(guest, sweeping->first, sweeping->last);
    else
        guest->sweep_wait_ns = 0;
    free(sweeping);
    spb_guest_unref(guest);
}

/* In order, as far as that goes. */
static void run_sweep(struct spb_task *task)
{
    struct sweeping *sweeping = SPB_CONTAINER(task, struct sweeping, task);
    const struct spb_guest *guest = sweeping->guest;
    bool goes_on = true;

    while (goes_on && sweeping->first <= sweeping->last) {
        char name[SPB_RUN_NAME_SIZE];
        struct spb_error err;

        spb_run_name(guest->id, sweeping->first, name);
        goes_on =
            spb_is_ok(spb_rundir_remove(sweeping->base, name, &err)) || !may_go_later(err.code);
        sweeping->first += goes_on;
    }
    (void)spb_supervisor_post(guest->daemon->guests->supervisor, &sweeping->post);
}

void spb_work_sweep(struct spb_guest *guest)
{
    struct sweeping *sweeping = calloc(1, sizeof(*sweeping));

    guest->sweep_at_ns = 0;
    if (sweeping == NULL) {
        note_left(guest, guest->left_first, guest->left_last);
        return;
    }
    sweeping->task.run = run_sweep;
    sweeping->post.run = swept;
    sweeping->guest = guest;
    sweeping->first = guest->left_first;
    sweeping->last = guest->left_last;
    memcpy(sweeping->base, guest->run_base, sizeof(sweeping->base));
    guest->left_first = guest->left_last = 0;
    spb_guest_ref(guest);
    spb_supervisor_work(guest->daemon->guests->supervisor, SPB_LANE_ALONE, &sweeping->task);
}

/* ---- Releasing ---------------------------------------------------------------------------- */

static void add_finding(struct spb_guest_run *run, const struct spb_image *image,
                        const char *finding)
{
    size_t used = strlen(run->finding);

    if (*finding == '\0')
        return;
    (void)snprintf(run->finding + used, sizeof(run->finding) - used, "%simage %u/%s: %.200s",
                   used == 0 ? "" : "; ", (unsigned)image->tenant, image->name, finding);
}

/* Those that this guest has; after a preparation that failed that may be some only. */
static void detach_images(struct spb_guest_run *run)
{
    struct spb_guest *guest = run->guest;

    for (size_t i = 0; i < guest->config->n_images; i++) {
        const PB_ImageRef *ref = guest->config->images[i];
        struct spb_image *image = spb_registry_find(guest->daemon->registry, guest->tenant,
                                                    ref->name.data, ref->name.len);
        char holder[SPB_GUEST_TEXT_SIZE] = "", finding[SPB_FINDING_TEXT_SIZE] = "";

        if (image == NULL)
            continue;
        if (spb_image_guest(image, holder) && strcmp(holder, guest->text) == 0)
            spb_image_detach(image, finding, sizeof(finding));
        add_finding(run, image, finding);
        spb_image_unref(image);
    }
}

static void note_shortage(struct spb_guest_run *run)
{
    const struct spb_cgroup *cgroup = &run->guest->daemon->guests->cgroup;
    struct spb_error err;

    if (cgroup->fd < 0)
        return;
    if (spb_cgroup_was_short(cgroup, run->name) && run->finding[0] == '\0')
        (void)snprintf(run->finding, sizeof(run->finding),
                       "the kernel ended a process of it for lack of memory");
    /* A thread of it may be on its way out still. */
    if (!spb_is_ok(spb_cgroup_kill(cgroup, run->name, &err)) && err.code == SPB_NOT_FOUND)
        return;
    if (!spb_is_ok(spb_cgroup_remove(cgroup, run->name, &err)))
        spb_log(&run->guest->daemon->log, SPB_LOG_WARN, "cgroup-not-removed",
                SPB_TEXT("guest", run->guest->text), SPB_TEXT("reason", err.text));
}

static void run_release(struct spb_task *task)
{
    struct spb_guest_run *run = SPB_CONTAINER(task, struct spb_guest_run, task);
    struct spb_guest *guest = run->guest;
    struct spb_error err;

    note_shortage(run);
    detach_images(run);
    if (!spb_is_ok(spb_rundir_remove(run->base, run->name, &err))) {
        run->is_left = may_go_later(err.code);
        spb_log(&guest->daemon->log, SPB_LOG_WARN, "run-folder-not-removed",
                SPB_TEXT("guest", guest->text), SPB_TEXT("reason", err.text));
    }
    (void)spb_supervisor_post(guest->daemon->guests->supervisor, &run->post);
}

static void released(struct spb_post *post)
{
    struct spb_guest_run *run = SPB_CONTAINER(post, struct spb_guest_run, post);
    struct spb_guest *guest = run->guest;
    char finding[SPB_LIFE_REASON_SIZE];

    spb_supervisor_work_done(guest->daemon->guests->supervisor);
    memcpy(finding, run->finding, sizeof(finding));
    if (run->is_left)
        note_left(guest, guest->life.run, guest->life.run);
    spb_session_free(guest);
    spb_drive_tell(guest, SPB_LIFE_RELEASED, finding);
    spb_guest_unref(guest);
}

void spb_work_release(struct spb_guest *guest)
{
    if (guest->run != NULL)
        hand_on(guest->run, run_release, released);
    else
        spb_drive_tell(guest, SPB_LIFE_RELEASED, NULL);
}
