/*
 * One volume on a file, an actor that never rests, and beside it everything that may run there:
 * readers, a scrub, copies, uploads. Nobody is disturbed: the scrub finds nothing, each copy is of
 * one moment. A plain main(), so that it runs under ThreadSanitizer.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "spaceblock/group.h"

#define BLOCKS 2000u
#define TURNS 300u

static struct spb_volume *volume;
static atomic_bool stopped;
static atomic_uint scrubs, copies, uploads, reads;

/* A snapshot on its way from the actor to who copies. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct spb_snapshot *handed;

static void need_at(spb_status status, const struct spb_error *err, int line)
{
    if (spb_is_ok(status))
        return;
    printf("test_threads.c:%d: %s: %s\n", line, spb_code_name(status.code), err->text);
    exit(1);
}

#define NEED(call) need_at(call, &err, __LINE__)

static void expect_at(bool holds, const char *what, int line)
{
    if (holds)
        return;
    printf("test_threads.c:%d: %s\n", line, what);
    exit(1);
}

#define EXPECT(cond) expect_at(cond, #cond, __LINE__)

static void expect_clean(const struct spb_report *report)
{
    if (report->count == 0)
        return;
    printf("%zu findings, the first: %s\n", report->count, report->findings[0].text);
    exit(1);
}

/* ---- The actor --------------------------------------------------------------------------------
 */

/* Parameters 1 and 2 and the event pointer say the same turn, at every moment. */
static void one_turn(uint32_t turn)
{
    struct spb_error err;
    struct spb_param_put puts[2] = {{1, &turn, sizeof(turn), SPB_ANY_GENERATION},
                                    {2, &turn, sizeof(turn), SPB_ANY_GENERATION}};
    struct spb_event event = {.code = (uint16_t)turn};
    struct spb_group *group;

    NEED(spb_group_new(volume, &group, &err));
    NEED(spb_group_put_params(group, puts, 2, NULL, &err));
    NEED(spb_group_append_events(group, &event, 1, NULL, &err));
    NEED(spb_group_carry_out(group, &err));
    spb_group_make_visible(group);
    spb_group_free(group);
}

static void turn_products(uint32_t turn)
{
    static uint8_t data[60000];
    struct spb_error err;
    char name = (char)('a' + (int)(turn % 4));
    struct spb_product_attributes attributes = {&name, 1, 1, 1};
    bool moved;

    memset(data, (int)turn, sizeof(data));
    if (turn % 7 == 6) {
        spb_status status = spb_volume_delete_product(volume, &name, 1, &err);
        EXPECT(spb_is_ok(status) || status.code == SPB_NOT_FOUND);
    } else {
        spb_status status = spb_volume_put_product(volume, &attributes, data,
                                                   3000 + turn * 97 % 50000, true, NULL, &err);
        EXPECT(spb_is_ok(status) || status.code == SPB_FULL);
    }
    if (turn % 5 == 0)
        NEED(spb_volume_defrag_step(volume, &moved, NULL, &err));
}

static void hand_over(struct spb_snapshot *snapshot)
{
    (void)pthread_mutex_lock(&lock);
    while (handed != NULL)
        (void)pthread_cond_wait(&changed, &lock);
    handed = snapshot;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
}

static void act(void)
{
    struct spb_error err;

    for (uint32_t turn = 2; turn <= TURNS; turn++) {
        one_turn(turn);
        turn_products(turn);
        if (turn % 10 == 0) {
            struct spb_snapshot *snapshot;
            NEED(spb_snapshot_new(volume, &snapshot, &err));
            hand_over(snapshot);
        }
    }
}

/* ---- Beside it --------------------------------------------------------------------------------
 */

static uint32_t turn_of(const struct spb_volume *of, uint32_t id)
{
    struct spb_error err;
    struct spb_param param;
    uint32_t turn = 0;

    NEED(spb_param_find(of, id, &param, NULL, &err));
    EXPECT(param.len == sizeof(turn));
    memcpy(&turn, param.value, sizeof(turn));
    return turn;
}

static void check_copy(struct spb_device *device)
{
    struct spb_open_options options = {.writable = true};
    struct spb_volume *copy;
    struct spb_report report;
    struct spb_error err;

    NEED(spb_volume_open(device, &options, &copy, &err));
    NEED(spb_volume_check(copy, NULL, NULL, &report, &err));
    expect_clean(&report);
    EXPECT(turn_of(copy, 1) == turn_of(copy, 2));
    EXPECT(turn_of(copy, 1) == spb_event_pointer(copy));
    EXPECT(spb_volume_superblock(copy)->tenant_id == 5);
    spb_report_done(&report);
    spb_volume_close(copy);
}

static void *copy_all(void *unused)
{
    struct spb_snapshot_identity identity = {.uuid = {1}, .tenant_id = 5};
    struct spb_error err;

    (void)unused;
    for (;;) {
        (void)pthread_mutex_lock(&lock);
        while (handed == NULL && !atomic_load(&stopped))
            (void)pthread_cond_wait(&changed, &lock);
        struct spb_snapshot *snapshot = handed;
        handed = NULL;
        (void)pthread_cond_broadcast(&changed);
        (void)pthread_mutex_unlock(&lock);
        if (snapshot == NULL)
            return NULL;
        struct spb_device *device;
        NEED(spb_device_memory_new(spb_snapshot_size_bytes(snapshot), &device, &err));
        NEED(spb_snapshot_copy(snapshot, device, &identity, NULL, NULL, &err));
        spb_snapshot_free(snapshot);
        check_copy(device);
        atomic_fetch_add(&copies, 1);
    }
}

static void *scrub_all(void *unused)
{
    struct spb_report report;
    struct spb_error err;

    (void)unused;
    do {
        NEED(spb_volume_scrub(volume, NULL, NULL, &report, &err));
        expect_clean(&report);
        spb_report_done(&report);
        atomic_fetch_add(&scrubs, 1);
    } while (!atomic_load(&stopped));
    return NULL;
}

/* An upload that is given up each time, after a sync and a resumption. */
static void *upload_all(void *unused)
{
    static uint8_t data[20000];
    struct spb_error err;

    (void)unused;
    do {
        struct spb_reservation *reservation;
        struct spb_product_writer *writer;
        uint64_t offset;
        uint32_t crc;
        spb_status status = spb_reservation_new(volume, sizeof(data), &reservation, &err);
        EXPECT(spb_is_ok(status) || status.code == SPB_FULL);
        if (!spb_is_ok(status))
            continue;
        NEED(spb_product_writer_new(volume, reservation, sizeof(data), &writer, &err));
        NEED(spb_product_writer_write(writer, data, 15000, &err));
        NEED(spb_product_writer_sync(writer, &offset, &crc, &err));
        EXPECT(crc == spb_crc32c(0, data, offset));
        spb_product_writer_free(writer);
        NEED(spb_product_writer_resume(volume, reservation, sizeof(data), offset, crc, &writer,
                                       &err));
        spb_product_writer_free(writer);
        spb_reservation_free(reservation);
        atomic_fetch_add(&uploads, 1);
    } while (!atomic_load(&stopped));
    return NULL;
}

static void *read_all(void *unused)
{
    struct spb_param *params;
    struct spb_event *events;
    struct spb_error err;
    size_t count;

    (void)unused;
    do {
        NEED(spb_param_latest(volume, &params, &count, &err));
        free(params);
        EXPECT(count == 2);
        NEED(spb_event_recent(volume, 50, &events, &count, &err));
        for (size_t i = 1; i < count; i++)
            EXPECT(!events[i].corrupt && events[i].code == events[i - 1].code + 1);
        free(events);
        atomic_fetch_add(&reads, 1);
    } while (!atomic_load(&stopped));
    return NULL;
}

/* ---- All of it --------------------------------------------------------------------------------
 */

static void open_file(const char *path)
{
    struct spb_format_options format = {.total_blocks = BLOCKS, .sector_size = 512};
    struct spb_open_options options = {.writable = true};
    struct spb_device *device;
    struct spb_error err;

    NEED(spb_image_create(path, &format, true, &err));
    NEED(spb_device_file_open(path, SPB_FILE_WRITE, &device, &err));
    NEED(spb_volume_open(device, &options, &volume, &err));
}

int main(void)
{
    static void *(*const beside[])(void *) = {copy_all, scrub_all, upload_all, read_all};
    pthread_t threads[4];
    char path[] = "/tmp/test_threads.XXXXXX";
    int fd = mkstemp(path);

    EXPECT(fd >= 0);
    (void)close(fd);
    open_file(path);
    one_turn(1);
    for (size_t i = 0; i < 4; i++)
        EXPECT(pthread_create(&threads[i], NULL, beside[i], NULL) == 0);
    act();
    (void)pthread_mutex_lock(&lock);
    while (handed != NULL)
        (void)pthread_cond_wait(&changed, &lock);
    atomic_store(&stopped, true);
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    spb_volume_close(volume);
    (void)unlink(path);
    printf("%u turns beside %u scrubs, %u copies, %u uploads, %u reads\n", TURNS,
           atomic_load(&scrubs), atomic_load(&copies), atomic_load(&uploads), atomic_load(&reads));
    EXPECT(atomic_load(&scrubs) > 0 && atomic_load(&copies) == TURNS / 10 &&
           atomic_load(&uploads) > 0 && atomic_load(&reads) > 0);
    return 0;
}
