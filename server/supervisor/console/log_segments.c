/* The segments of a log; see log_segments.h. */
#include "supervisor/console/log_segments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/status.h"

void spb_segment_name(uint64_t first, char name[SPB_SEGMENT_NAME_SIZE])
{
    (void)snprintf(name, SPB_SEGMENT_NAME_SIZE, "%016" PRIx64 ".log", first);
}

char *spb_segment_path(const char *directory, uint64_t first)
{
    char name[SPB_SEGMENT_NAME_SIZE], *path = NULL;

    spb_segment_name(first, name);
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

/* Exactly as spb_segment_name writes it: nothing else in the directory is ours. */
static bool parse_name(const char *text, uint64_t *first)
{
    char again[SPB_SEGMENT_NAME_SIZE];

    if (strlen(text) != sizeof(again) - 1)
        return false;
    uint64_t number = strtoull(text, NULL, 16);
    spb_segment_name(number, again);
    if (strcmp(text, again) != 0)
        return false;
    *first = number;
    return true;
}

uint64_t spb_segments_bytes(const struct spb_segments *segments)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < segments->count; i++)
        sum += segments->list[i].size;
    return sum;
}

uint64_t spb_segments_end(const struct spb_segments *segments)
{
    if (segments->count == 0)
        return 0;
    const struct spb_segment *last = &segments->list[segments->count - 1];
    return last->first + last->size;
}

const struct spb_segment *spb_segments_find(const struct spb_segments *segments, uint64_t offset)
{
    for (size_t i = 0; i < segments->count; i++) {
        const struct spb_segment *segment = &segments->list[i];

        if (segment->size > 0 && offset < segment->first + segment->size)
            return segment;
    }
    return NULL;
}

struct spb_segment spb_segments_shift(struct spb_segments *segments)
{
    SPB_ASSERT(segments->count > 0);
    struct spb_segment oldest = segments->list[0];

    segments->count--;
    memmove(segments->list, segments->list + 1, segments->count * sizeof(oldest));
    return oldest;
}

/* ---- From the directory ------------------------------------------------------------------- */

/* As many as lie there: what is too much is known only once all have been seen. */
struct found {
    struct spb_segment *list; /* owned */
    size_t count, room;
};

static void found_done(struct found *found)
{
    free(found->list);
}

static spb_status found_add(struct found *found, struct spb_segment segment, struct spb_error *err)
{
    if (found->count == found->room) {
        size_t room = found->room == 0 ? SPB_LOG_SEGMENTS : 2 * found->room;
        struct spb_segment *list = realloc(found->list, room * sizeof(*list));

        if (list == NULL)
            return spb_fail_memory(err, "listing a console's log");
        found->list = list;
        found->room = room;
    }
    found->list[found->count++] = segment;
    return spb_ok();
}

static spb_status take_entry(struct found *found, DIR *folder, const char *name,
                             struct spb_error *err)
{
    struct spb_segment segment;
    uint64_t end;
    struct stat st;

    if (!parse_name(name, &segment.first))
        return spb_ok();
    if (fstatat(dirfd(folder), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot look at %s of a console's log", name);
    segment.size = (uint64_t)st.st_size;
    if (!S_ISREG(st.st_mode) || !spb_add_u64(segment.first, segment.size, &end))
        return spb_ok();
    return found_add(found, segment, err);
}

static spb_status read_folder(const char *directory, struct found *found, struct spb_error *err)
{
    DIR *folder = opendir(directory);
    spb_status status = spb_ok();

    if (folder == NULL)
        return spb_fail_errno(err, errno == ENOENT ? SPB_NOT_FOUND : SPB_IO, errno,
                              "cannot list %s", directory);
    while (spb_is_ok(status)) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            if (errno != 0)
                status = spb_fail_errno(err, SPB_IO, errno, "cannot list %s", directory);
            break;
        }
        status = take_entry(found, folder, entry->d_name, err);
    }
    (void)closedir(folder);
    return status;
}

static int by_first(const void *left, const void *right)
{
    const struct spb_segment *a = left, *b = right;

    return a->first < b->first ? -1 : a->first > b->first;
}

static void cut_overlaps(struct found *found)
{
    for (size_t i = 0; i + 1 < found->count; i++) {
        uint64_t room = found->list[i + 1].first - found->list[i].first;

        if (found->list[i].size > room)
            found->list[i].size = room;
    }
}

static spb_status remove_segment(const char *directory, uint64_t first, struct spb_error *err)
{
    char *path = spb_segment_path(directory, first);

    if (path == NULL)
        return spb_fail_memory(err, "naming a console's log");
    int rc = unlink(path), number = errno;
    free(path);
    if (rc < 0 && number != ENOENT)
        return spb_fail_errno(err, SPB_IO, number, "cannot remove a segment of %s", directory);
    return spb_ok();
}

/* The newest that fit are kept; the newest of all is, whatever its size: it tells the end. */
static size_t first_kept(const struct found *found, uint64_t total)
{
    uint64_t bytes = 0;
    size_t i = found->count;

    while (i > 0 && found->count - (i - 1) <= SPB_LOG_SEGMENTS) {
        bytes += found->list[i - 1].size;
        if (bytes > total && i < found->count)
            break;
        i--;
    }
    return i;
}

static spb_status load(const char *directory, uint64_t total, struct found *found,
                       struct spb_segments *segments, struct spb_error *err)
{
    SPB_TRY(read_folder(directory, found, err));
    if (found->count > 0)
        qsort(found->list, found->count, sizeof(*found->list), by_first);
    cut_overlaps(found);
    size_t kept = first_kept(found, total);
    for (size_t i = 0; i < kept; i++)
        SPB_TRY(remove_segment(directory, found->list[i].first, err));
    segments->count = found->count - kept;
    if (segments->count > 0)
        memcpy(segments->list, found->list + kept, segments->count * sizeof(*found->list));
    return spb_ok();
}

spb_status spb_segments_load(const char *directory, uint64_t total, struct spb_segments *segments,
                             struct spb_error *err)
{
    struct found found = {.list = NULL};

    spb_status status = load(directory, total, &found, segments, err);
    found_done(&found);
    return status;
}

static spb_status remove_found(const char *directory, const struct found *found,
                               struct spb_error *err)
{
    for (size_t i = 0; i < found->count; i++)
        SPB_TRY(remove_segment(directory, found->list[i].first, err));
    if (rmdir(directory) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot remove %s, the folder of a console's log",
                              directory);
    return spb_ok();
}

spb_status spb_log_remove(const char *directory, struct spb_error *err)
{
    struct found found = {.list = NULL};

    spb_status status = read_folder(directory, &found, err);
    if (spb_is_ok(status))
        status = remove_found(directory, &found, err);
    found_done(&found);
    return status;
}
