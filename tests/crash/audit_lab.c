/* The laboratory of the audit's crash tests; see audit_lab.h. */
#include "crash/audit_lab.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/tables.h"
#include "support/random.h"
#include "util.h"

#define CALLS_MAX 4
#define WAL_BYTES 65536 /* so that it is copied after a few commits */
#define DELAY_MS 20
#define ROW_ODDS 4 /* one group of so many is followed by a put of the image's row */
#define TRIES 12   /* of a begin until a disk that struck is used to work again */
#define EXIT_NOT_OPENED 10
#define EXIT_BROKEN 11

#define CHECK(lab, cond, ...)                                                                      \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fail(lab, __LINE__, __VA_ARGS__);                                                      \
    } while (0)

_Noreturn static void fail(const struct lab *lab, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

_Noreturn static void fail(const struct lab *lab, int line, const char *format, ...)
{
    va_list args;

    (void)fprintf(stderr, "audit_lab.c:%d: %s: ", line, lab->where);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\nthe files are in %s\n", lab->folder);
    exit(1);
}

static struct spb_audit_options options_of(const struct lab *lab)
{
    return (struct spb_audit_options){
        .path = lab->path, .outcome_delay_ms = DELAY_MS, .log = &lab->log, .wal_bytes = WAL_BYTES};
}

/* ---- The child ---------------------------------------------------------------------------- */

struct worker {
    struct lab *lab;
    struct spb_audit *audit;
    uint32_t number, groups;
    uint64_t random;
    bool broken; /* the disk works, the audit does not */
    pthread_t thread;
};

/* Large enough, now and then, for pages of their own. */
static size_t changes_size(uint64_t number)
{
    return number % 7 == 0 ? 9000 : 100;
}

static void fill_changes(uint8_t *changes, uint32_t worker, uint64_t number)
{
    memset(changes, (int)(worker * 64 + number % 64), changes_size(number));
}

static bool begin(struct worker *worker, struct lab_group *told, uint64_t number,
                  struct spb_open_group **open)
{
    static const uint8_t request_id[SPB_AUDIT_REQUEST_ID_SIZE] = {7};
    uint8_t changes[9000];
    char objects[CALLS_MAX][48];
    struct spb_intent intents[CALLS_MAX];
    struct spb_intent_group group = {.kind = SPB_GROUP_CHANGES,
                                     .image_id = worker->number + 1,
                                     .tenant = 1,
                                     .image_name = "img",
                                     .number = number,
                                     .event_pointer = (uint32_t)number,
                                     .has_event_pointer = true,
                                     .changes = changes,
                                     .changes_size = changes_size(number),
                                     .intents = intents,
                                     .count = told->calls};

    fill_changes(changes, worker->number, number);
    for (unsigned i = 0; i < told->calls; i++) {
        (void)snprintf(objects[i], sizeof objects[i], "%u.%lu.%u", worker->number,
                       (unsigned long)number, i);
        intents[i] = (struct spb_intent){.principal_tenant = 1,
                                         .principal = number % 5 == 0 ? objects[i] : "alice",
                                         .method = "Params.Put",
                                         .request_id = request_id,
                                         .object = objects[i],
                                         .before = "",
                                         .after = ""};
    }
    return spb_is_ok(spb_audit_begin(worker->audit, &group, open, NULL));
}

static struct lab_group *next_group(struct worker *worker)
{
    struct lab_worker *told = &worker->lab->shared->workers[worker->number];

    if (told->count == LAB_GROUPS_MAX)
        return NULL;
    struct lab_group *group = &told->groups[told->count];
    *group = (struct lab_group){.calls = (uint8_t)(1 + random_below(&worker->random, CALLS_MAX))};
    __atomic_store_n(&told->count, told->count + 1, __ATOMIC_SEQ_CST);
    return group;
}

static void end(struct lab_group *group, struct spb_open_group *open, enum spb_outcome outcome)
{
    group->outcome = outcome;
    group->ending = true;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    spb_audit_end(open, outcome, NULL, 0);
    group->ended = true;
}

/* ---- The image's row ---------------------------------------------------------------------- */

/* It is there, durably. */
static void note_row(struct lab_row *told, uint32_t blocks)
{
    told->sure = blocks;
    __atomic_store_n(&told->count, 0, __ATOMIC_SEQ_CST);
}

/* heard: the process that made the tries lives. */
static void check_row(const struct lab *lab, uint32_t worker, uint32_t blocks, bool heard)
{
    const struct lab_row *told = &lab->shared->workers[worker].row;
    bool may = blocks == told->sure;

    for (uint32_t i = 0; i < told->count; i++)
        may = may || (blocks == told->tried[i].blocks && !(heard && told->tried[i].failed));
    CHECK(lab, may,
          "the row of worker %u has %u, expected %u, or one of %u%s that were tried since, the last"
          " of them %u",
          worker, blocks, told->sure, told->count, heard ? " (not those that failed)" : "",
          told->count > 0 ? told->tried[told->count - 1].blocks : told->sure);
}

/* It says now how many blocks the image has. */
static void put_row(struct worker *worker, uint32_t blocks)
{
    struct lab_row *told = &worker->lab->shared->workers[worker->number].row;
    struct spb_image_row row = {.id = worker->number + 1,
                                .tenant = (uint16_t)worker->number,
                                .name = "img",
                                .total_blocks = blocks};

    if (told->count == LAB_TRIED_MAX)
        return;
    struct lab_try *try = &told->tried[told->count];
    *try = (struct lab_try){.blocks = blocks};
    __atomic_store_n(&told->count, told->count + 1, __ATOMIC_SEQ_CST);
    if (spb_is_ok(spb_rows_put_image(worker->audit, &row, NULL)))
        note_row(told, blocks);
    else
        try->failed = true;
}

/* Something that came later is durable: what had failed before will not be there any more. */
static void forget_failed_rows(struct lab_row *told)
{
    uint32_t count = told->count;

    while (count > 0 && told->tried[count - 1].failed)
        count--;
    __atomic_store_n(&told->count, count, __ATOMIC_SEQ_CST);
}

static void take_blocks(void *user, const struct spb_image_row *row)
{
    uint32_t *blocks = user;

    if (row->id >= 1 && row->id <= LAB_WORKERS)
        blocks[row->id - 1] = row->total_blocks;
}

/* A new process: opening has made durable what it found. Where the disk keeps it from being read,
 * all that may be there still may. */
static void look_at_rows(struct lab *lab, struct spb_audit *audit)
{
    uint32_t blocks[LAB_WORKERS] = {0};
    bool read = false;

    for (int tries = 0; tries < TRIES && !read; tries++)
        read = spb_is_ok(spb_rows_images(audit, take_blocks, blocks, NULL));
    for (uint32_t i = 0; i < LAB_WORKERS; i++) {
        struct lab_row *told = &lab->shared->workers[i].row;

        for (uint32_t j = 0; j < told->count; j++)
            told->tried[j].failed = false;
        if (read) {
            check_row(lab, i, blocks[i], false);
            note_row(told, blocks[i]);
        }
    }
}

/* ---- A child's life ----------------------------------------------------------------------- */

static void settle_own(struct worker *worker);

static void *work(void *user)
{
    static const enum spb_outcome outcomes[] = {SPB_OUTCOME_DONE, SPB_OUTCOME_NOT_DONE,
                                                SPB_OUTCOME_COMPLETED};
    struct worker *worker = user;
    struct lab_worker *told = &worker->lab->shared->workers[worker->number];
    unsigned failed = 0;

    for (uint32_t i = 0; i < worker->groups || (failed > 0 && failed < TRIES); i++) {
        struct lab_group *group = next_group(worker);
        struct spb_open_group *open;

        if (group == NULL)
            break;
        if (!begin(worker, group, told->count, &open)) {
            group->begun = LAB_FAILED;
            failed++;
            continue;
        }
        group->begun = LAB_ACKNOWLEDGED;
        for (; failed > 0; failed--)
            (group - failed)->gone = true;
        forget_failed_rows(&told->row);
        end(group, open, outcomes[random_below(&worker->random, 3)]);
        if (random_below(&worker->random, ROW_ODDS) == 0)
            put_row(worker, told->count);
    }
    worker->broken = failed > 0;
    return NULL;
}

/* An image's row for each worker, numbered as they are, where the database is new. */
static void add_rows(struct lab *lab, struct spb_audit *audit)
{
    for (uint32_t i = 0; i < LAB_WORKERS; i++) {
        struct spb_image_row row = {.tenant = (uint16_t)i, .name = "img"};

        for (int tries = 0; tries < TRIES; tries++) {
            if (spb_rows_put_image(audit, &row, NULL).code != SPB_IO)
                break;
        }
    }
    (void)lab;
}

_Noreturn static void be_child(struct lab *lab, const struct lab_run *run)
{
    struct spb_audit_options options = options_of(lab);
    struct worker workers[LAB_WORKERS];
    struct spb_audit *audit = NULL;
    bool broken = false;

    if (run->from_the_start)
        disk_plan(&run->plan);
    if (!spb_is_ok(spb_audit_open(&options, &audit, NULL)))
        _exit(EXIT_NOT_OPENED);
    if (!run->from_the_start)
        disk_plan(&run->plan);
    look_at_rows(lab, audit);
    for (uint32_t i = 0; i < LAB_WORKERS; i++) {
        workers[i] = (struct worker){.lab = lab,
                                     .audit = audit,
                                     .number = i,
                                     .groups = run->groups,
                                     .random = run->seed + i};
        settle_own(&workers[i]);
    }
    add_rows(lab, audit);
    for (uint32_t i = 0; i < LAB_WORKERS; i++) {
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            abort();
    }
    for (uint32_t i = 0; i < LAB_WORKERS; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        broken = broken || workers[i].broken;
    }
    if (run->closes)
        spb_audit_close(audit);
    _exit(broken ? EXIT_BROKEN : 0);
}

static pid_t start(struct lab *lab, const struct lab_run *run)
{
    lab->cases++;
    pid_t child = fork();

    if (child < 0)
        abort();
    if (child == 0)
        be_child(lab, run);
    return child;
}

static int await(pid_t child)
{
    int status;

    if (waitpid(child, &status, 0) != child)
        abort();
    disk_revive();
    return status;
}

enum lab_end lab_run(struct lab *lab, const struct lab_run *run)
{
    int status = await(start(lab, run));

    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return LAB_DIED;
    CHECK(lab, WIFEXITED(status), "the child ended with signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == EXIT_NOT_OPENED)
        return LAB_NOT_OPENED;
    CHECK(lab, WEXITSTATUS(status) != EXIT_BROKEN,
          "the disk works again, but the audit takes nothing");
    CHECK(lab, WEXITSTATUS(status) == 0, "the child ended with %d", WEXITSTATUS(status));
    return LAB_DONE;
}

void lab_run_for(struct lab *lab, const struct lab_run *run, int64_t ns)
{
    struct timespec time = {ns / SPB_NS_PER_S, ns % SPB_NS_PER_S};
    pid_t child = start(lab, run);

    (void)nanosleep(&time, NULL); /* the moment is what is random: nothing is awaited */
    (void)kill(child, SIGKILL);
    (void)await(child);
}

/* ---- What is there ------------------------------------------------------------------------ */

struct look {
    struct lab *lab;
    sqlite3 *db;
};

static int64_t ask(const struct look *look, const char *sql, int64_t image, uint64_t number)
{
    sqlite3_stmt *statement = NULL;

    CHECK(look->lab, sqlite3_prepare_v2(look->db, sql, -1, &statement, NULL) == SQLITE_OK, "%s: %s",
          sql, sqlite3_errmsg(look->db));
    (void)sqlite3_bind_int64(statement, 1, image);
    if (sqlite3_bind_parameter_count(statement) > 1)
        (void)sqlite3_bind_int64(statement, 2, (int64_t)number);
    CHECK(look->lab, sqlite3_step(statement) == SQLITE_ROW, "%s: %s", sql,
          sqlite3_errmsg(look->db));
    int64_t result = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    return result;
}

/* Whole: as many calls as the group says, and each of them the one that was to be. */
static void check_whole(const struct look *look, uint32_t worker, uint64_t number,
                        const struct lab_group *group)
{
    int64_t calls = ask(look,
                        "SELECT count(*) FROM groups g JOIN calls c ON c.group_id = g.id AND"
                        " c.id BETWEEN g.first_call AND g.first_call + g.call_count - 1 AND"
                        " c.object = (g.image_id - 1) || '.' || g.number || '.' ||"
                        " (c.id - g.first_call) WHERE g.image_id = ?1 AND g.number = ?2",
                        worker + 1, number);

    CHECK(look->lab, calls == group->calls, "group %lu of worker %u has %ld calls, expected %u",
          (unsigned long)number, worker, (long)calls, group->calls);
}

static void check_outcome(const struct look *look, uint32_t worker, uint64_t number,
                          const struct lab_group *group, bool followed)
{
    int64_t outcome = ask(look, "SELECT outcome FROM groups WHERE image_id = ?1 AND number = ?2",
                          worker + 1, number);
    bool must = group->settled || (group->ended && followed);

    CHECK(look->lab, must || group->ending || outcome == SPB_OUTCOME_PENDING,
          "group %lu of worker %u has outcome %ld, which nobody told", (unsigned long)number,
          worker, (long)outcome);
    CHECK(look->lab, !must || outcome == (int64_t)group->outcome,
          "group %lu of worker %u has outcome %ld, expected %d", (unsigned long)number, worker,
          (long)outcome, group->outcome);
    CHECK(look->lab, outcome == SPB_OUTCOME_PENDING || outcome == (int64_t)group->outcome,
          "group %lu of worker %u has outcome %ld, expected 0 or %d", (unsigned long)number, worker,
          (long)outcome, group->outcome);
}

static void check_group(const struct look *look, uint32_t worker, uint64_t number,
                        const struct lab_group *group, bool followed, bool alive)
{
    int64_t found = ask(look, "SELECT count(*) FROM groups WHERE image_id = ?1 AND number = ?2",
                        worker + 1, number);

    CHECK(look->lab, found <= 1, "group %lu of worker %u is there %ld times", (unsigned long)number,
          worker, (long)found);
    CHECK(look->lab, found == 1 || group->begun != LAB_ACKNOWLEDGED,
          "group %lu of worker %u is lost", (unsigned long)number, worker);
    CHECK(look->lab, found == 0 || group->begun != LAB_FAILED || group->settled || !alive,
          "group %lu of worker %u failed and is there", (unsigned long)number, worker);
    CHECK(look->lab, found == 0 || !group->gone,
          "group %lu of worker %u failed, another was written over it, and it is there",
          (unsigned long)number, worker);
    if (found == 0)
        return;
    check_whole(look, worker, number, group);
    check_outcome(look, worker, number, group, followed);
}

static void check_worker(const struct look *look, uint32_t worker, bool alive)
{
    const struct lab_worker *told = &look->lab->shared->workers[worker];
    bool followed = false; /* by one that was acknowledged: its commit had this outcome too */

    for (uint32_t i = told->count; i-- > 0;) {
        check_group(look, worker, i + 1, &told->groups[i], followed, alive);
        followed = followed || told->groups[i].begun == LAB_ACKNOWLEDGED;
    }
    int64_t open =
        ask(look, "SELECT count(*) FROM groups WHERE image_id = ?1 AND outcome = 0", worker + 1, 0);
    CHECK(look->lab, open <= 1, "worker %u has %ld open groups", worker, (long)open);
    int64_t blocks =
        ask(look, "SELECT ifnull((SELECT total_blocks FROM image_rows WHERE id = ?1), 0)",
            worker + 1, 0);
    check_row(look->lab, worker, (uint32_t)blocks, alive);
}

static void check_database(struct lab *lab, bool alive)
{
    struct look look = {.lab = lab};

    CHECK(lab, sqlite3_open_v2(lab->path, &look.db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK,
          "opening to look");
    CHECK(lab,
          sqlite3_exec(look.db,
                       "CREATE TEMP TABLE groups AS SELECT * FROM main.groups;"
                       "CREATE INDEX temp.by_number ON groups (image_id, number);",
                       NULL, NULL, NULL) == SQLITE_OK,
          "copying groups: %s", sqlite3_errmsg(look.db));
    CHECK(lab,
          ask(&look,
              "SELECT count(*) FROM pragma_integrity_check"
              " WHERE integrity_check <> 'ok' AND ?1 = 0",
              0, 0) == 0,
          "the database is damaged");
    for (uint32_t i = 0; i < LAB_WORKERS; i++)
        check_worker(&look, i, alive);
    (void)sqlite3_close(look.db);
}

/* ---- What is open ------------------------------------------------------------------------- */

static void check_pending(const struct worker *worker, const struct spb_pending_group *group)
{
    const struct lab_worker *told = &worker->lab->shared->workers[worker->number];
    uint8_t changes[9000];

    CHECK(worker->lab, group->number >= 1 && group->number <= told->count,
          "group %lu is open, which nobody began", (unsigned long)group->number);
    fill_changes(changes, worker->number, group->number);
    CHECK(worker->lab,
          group->changes_size == changes_size(group->number) &&
              memcmp(group->changes, changes, group->changes_size) == 0,
          "group %lu is open with other changes", (unsigned long)group->number);
    CHECK(worker->lab, group->count == told->groups[group->number - 1].calls,
          "group %lu is open with %zu calls", (unsigned long)group->number, group->count);
}

/* Settles what is open of the worker's image; it can be one. */
static void settle_own(struct worker *worker)
{
    struct lab_worker *told = &worker->lab->shared->workers[worker->number];
    enum spb_outcome outcomes[CALLS_MAX];
    struct spb_pending_group *group = NULL;

    for (int tries = 0; tries < TRIES; tries++) {
        if (spb_is_ok(spb_audit_find_open(worker->audit, worker->number + 1, &group, NULL)))
            break;
    }
    if (group == NULL)
        return;
    check_pending(worker, group);
    struct lab_group *settled = &told->groups[group->number - 1];
    enum spb_outcome outcome = settled->ending ? settled->outcome : SPB_OUTCOME_UNKNOWN;
    for (int i = 0; i < CALLS_MAX; i++)
        outcomes[i] = outcome;
    settled->outcome = outcome;
    settled->ending = true;
    for (int tries = 0; tries < TRIES && !settled->settled; tries++)
        settled->settled = spb_is_ok(spb_audit_settle(worker->audit, group, outcomes, NULL));
    spb_pending_group_free(group);
}

static void settle_all(struct lab *lab, struct spb_audit *audit)
{
    for (uint32_t i = 0; i < LAB_WORKERS; i++) {
        struct worker worker = {.lab = lab, .audit = audit, .number = i};
        struct spb_pending_group *group = NULL;

        settle_own(&worker);
        CHECK(lab, spb_is_ok(spb_audit_find_open(audit, i + 1, &group, NULL)) && group == NULL,
              "worker %u has an open group that was settled", i);
    }
}

struct rows {
    struct lab *lab;
    uint64_t seen;
};

static void take_row(void *user, const struct spb_image_row *row)
{
    struct rows *rows = user;
    const struct lab_worker *told = &rows->lab->shared->workers[row->id - 1];
    uint64_t least = 0;

    for (uint32_t i = 0; i < told->count; i++) {
        if (told->groups[i].begun == LAB_ACKNOWLEDGED)
            least = i + 1;
    }
    CHECK(rows->lab, row->group_number >= least && row->group_number <= told->count,
          "image %ld counts %lu groups, expected %lu to %u", (long)row->id,
          (unsigned long)row->group_number, (unsigned long)least, told->count);
    rows->seen++;
}

void lab_check(struct lab *lab, bool alive)
{
    struct spb_audit_options options = options_of(lab);
    struct rows rows = {.lab = lab};
    struct spb_audit *audit = NULL;
    struct spb_error err;

    CHECK(lab, spb_is_ok(spb_audit_open(&options, &audit, &err)), "opening: %s", err.text);
    check_database(lab, alive);
    look_at_rows(lab, audit);
    CHECK(lab, spb_is_ok(spb_rows_images(audit, take_row, &rows, &err)), "rows: %s", err.text);
    settle_all(lab, audit);
    check_database(lab, alive);
    spb_audit_close(audit);
}

/* ---- The laboratory ----------------------------------------------------------------------- */

void lab_begin(struct lab *lab)
{
    disk_clear();
    memset(lab->shared, 0, sizeof *lab->shared);
}

void lab_init(struct lab *lab)
{
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

    *lab = (struct lab){.log = {.level = SPB_LOG_ERROR}};
    (void)snprintf(lab->folder, sizeof lab->folder, "%s/spb-audit.XXXXXX", memory);
    lab->log.fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    lab->shared =
        mmap(NULL, sizeof *lab->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mkdtemp(lab->folder) == NULL || lab->log.fd < 0 || lab->shared == MAP_FAILED) {
        perror(lab->folder);
        exit(1);
    }
    (void)snprintf(lab->path, sizeof lab->path, "%s/audit.db", lab->folder);
    disk_init(lab->folder);
}

void lab_done(struct lab *lab)
{
    char kept[80];

    disk_clear();
    (void)snprintf(kept, sizeof kept, "%s/kept", lab->folder);
    (void)rmdir(kept);
    (void)rmdir(lab->folder);
    (void)close(lab->log.fd);
}
