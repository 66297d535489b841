/*
 * The audit used by many threads at once: groups begun, ended, abandoned and settled, rows changed,
 * records and replays listed, while the WAL is copied and old groups are forgotten. In the end each
 * group is there once with its outcome. Built with -fsanitize=thread it finds races.
 *
 *   audit_threads [--groups N]
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "audit/tables.h"
#include "log.h"

#define WORKERS 4

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            (void)fprintf(stderr, "%s:%d: not so: %s: %s\n", __FILE__, __LINE__, #cond, err.text); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct spb_audit *audit;
static uint64_t groups_each = 400;
static atomic_uint workers_left = WORKERS;
static atomic_uint_fast64_t calls_begun, commits;

static void note_commit(void *user, int64_t commit_ns, size_t intents)
{
    (void)user;
    (void)commit_ns;
    (void)intents;
    atomic_fetch_add(&commits, 1);
}

static struct spb_open_group *begin(int64_t image, uint64_t number, size_t count)
{
    static const uint8_t request_id[SPB_AUDIT_REQUEST_ID_SIZE] = {1};
    struct spb_intent intents[8];
    struct spb_intent_group group = {.kind = SPB_GROUP_CHANGES,
                                     .image_id = image,
                                     .tenant = 1,
                                     .image_name = "img",
                                     .number = number,
                                     .changes = (const uint8_t *)"changes",
                                     .changes_size = 7,
                                     .intents = intents,
                                     .count = count};
    struct spb_open_group *open;
    struct spb_error err;

    for (size_t i = 0; i < count; i++)
        intents[i] = (struct spb_intent){.principal_tenant = 1,
                                         .principal = number % 2 == 0 ? "alice" : "bob",
                                         .method = "Params.Put",
                                         .request_id = request_id,
                                         .object = "param 1",
                                         .before = "",
                                         .after = ""};
    CHECK(spb_is_ok(spb_audit_begin(audit, &group, &open, &err)));
    for (size_t i = 1; i < count; i++)
        CHECK(intents[i].id == intents[i - 1].id + 1);
    atomic_fetch_add(&calls_begun, count);
    return open;
}

static void settle(int64_t image)
{
    static const enum spb_outcome outcomes[8] = {SPB_OUTCOME_DONE, SPB_OUTCOME_UNKNOWN};
    struct spb_pending_group *group = NULL;
    struct spb_error err;

    CHECK(spb_is_ok(spb_audit_find_open(audit, image, &group, &err)) && group != NULL);
    CHECK(group->image_id == image && group->changes_size == 7);
    CHECK(spb_is_ok(spb_audit_settle(audit, group, outcomes, &err)));
    spb_pending_group_free(group);
}

static void *work(void *user)
{
    int64_t image = (int64_t)(intptr_t)user;
    struct spb_error err;

    for (uint64_t i = 1; i <= groups_each; i++) {
        struct spb_open_group *open = begin(image, i, 1 + i % 2);

        if (i % 16 == 0) {
            spb_audit_abandon(open);
            settle(image);
        } else {
            spb_audit_end(open, SPB_OUTCOME_DONE, (const uint8_t *)"reply", i % 3 == 0 ? 5 : 0);
        }
        if (i % 32 == 0)
            CHECK(spb_is_ok(spb_audit_flush(audit, &err)));
    }
    atomic_fetch_sub(&workers_left, 1);
    return NULL;
}

static bool count_record(void *user, const struct spb_audit_record *record)
{
    ++*(uint64_t *)user;
    return record->id > 0;
}

static void count_replay(void *user, const struct spb_replay_row *row)
{
    *(uint64_t *)user += row->call_id > 0;
}

static void count_image(void *user, const struct spb_image_row *row)
{
    *(uint64_t *)user += row->id > 0;
}

static void *look(void *user)
{
    struct spb_audit_filter filter = {.tenant = -1, .limit = 50};
    struct spb_error err;
    uint64_t seen = 0;

    (void)user;
    while (atomic_load(&workers_left) > 0) {
        CHECK(spb_is_ok(spb_audit_list(audit, &filter, count_record, &seen, &err)));
        CHECK(spb_is_ok(spb_audit_load_replays(audit, 0, 10, count_replay, &seen, &err)));
        CHECK(spb_is_ok(spb_rows_images(audit, count_image, &seen, &err)));
    }
    return NULL;
}

static void *change_rows(void *user)
{
    struct spb_image_row row = {.tenant = 1, .name = "other"};
    struct spb_error err;

    (void)user;
    while (atomic_load(&workers_left) > 0) {
        row.id = 0;
        CHECK(spb_is_ok(spb_rows_put_image(audit, &row, &err)));
        row.event_pointer++;
        CHECK(spb_is_ok(spb_rows_put_image(audit, &row, &err)));
        CHECK(spb_is_ok(spb_rows_remove_image(audit, row.id, &err)));
    }
    return NULL;
}

static void run_all(void)
{
    pthread_t threads[WORKERS + 2];
    struct spb_error err = {.text = ""};

    for (intptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    CHECK(pthread_create(&threads[WORKERS], NULL, look, NULL) == 0);
    CHECK(pthread_create(&threads[WORKERS + 1], NULL, change_rows, NULL) == 0);
    for (size_t i = 0; i < WORKERS + 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void check_all(const struct spb_audit_options *options)
{
    struct spb_audit_filter all = {.tenant = -1};
    struct spb_audit_filter pending = {
        .tenant = -1, .outcome = SPB_OUTCOME_PENDING, .has_outcome = true};
    uint64_t seen = 0, open = 0, images = 0;
    struct spb_error err;

    CHECK(spb_is_ok(spb_audit_open(options, &audit, &err)));
    CHECK(spb_is_ok(spb_audit_list(audit, &all, count_record, &seen, &err)));
    CHECK(spb_is_ok(spb_audit_list(audit, &pending, count_record, &open, &err)));
    CHECK(spb_is_ok(spb_rows_images(audit, count_image, &images, &err)));
    CHECK(seen == atomic_load(&calls_begun) && open == 0 && images == 0);
    spb_audit_close(audit);
}

static void remove_files(const char *path, const char *dir)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char name[128];

    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        (void)unlink(name);
    }
    (void)rmdir(dir);
}

int main(int argc, char **argv)
{
    struct spb_log log = {.level = SPB_LOG_WARN, .fd = STDERR_FILENO};
    char dir[] = "/tmp/spb-audit.XXXXXX", path[64];
    struct spb_audit_options options = {.path = path,
                                        .outcome_delay_ms = 5,
                                        .keep_days = 1,
                                        .wal_bytes = 262144,
                                        .log = &log,
                                        .observe = note_commit};
    struct spb_error err = {.text = ""};

    if (argc == 3 && strcmp(argv[1], "--groups") == 0)
        groups_each = strtoull(argv[2], NULL, 10);
    CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/audit.db", dir);
    CHECK(spb_is_ok(spb_audit_open(&options, &audit, &err)));
    run_all();
    spb_audit_close(audit);
    check_all(&options);
    printf("%lu calls, %lu commits\n", (unsigned long)atomic_load(&calls_begun),
           (unsigned long)atomic_load(&commits));
    remove_files(path, dir);
    return 0;
}
