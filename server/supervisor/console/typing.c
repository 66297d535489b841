/* What is typed on a console; see typing.h. */
#include "supervisor/console/typing.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static struct spb_writer_count *find_writer(struct spb_typing *typing, const uint8_t *id)
{
    for (size_t i = 0; i < SPB_TYPING_WRITERS; i++) {
        struct spb_writer_count *writer = &typing->writers[i];

        if (writer->is_known && memcmp(writer->id, id, SPB_CONSOLE_WRITER_BYTES) == 0)
            return writer;
    }
    return NULL;
}

/* A free place, or that of the writer who has been silent for longest. */
static struct spb_writer_count *add_writer(struct spb_typing *typing, const uint8_t *id)
{
    struct spb_writer_count *place = &typing->writers[0];

    for (size_t i = 1; i < SPB_TYPING_WRITERS && place->is_known; i++) {
        struct spb_writer_count *other = &typing->writers[i];

        if (!other->is_known || other->last_ms < place->last_ms)
            place = other;
    }
    *place = (struct spb_writer_count){.is_known = true};
    memcpy(place->id, id, sizeof(place->id));
    return place;
}

static spb_status check_turn(const struct spb_typing *typing, const struct spb_writer_count *writer,
                             bool takes_over, int64_t now_ms, struct spb_error *err)
{
    const struct spb_writer_count *holder = typing->holder;

    if (holder == NULL || holder == writer || takes_over)
        return spb_ok();
    int64_t silent_ms = now_ms - holder->last_ms;
    if (silent_ms >= SPB_CONSOLE_LEASE_MS)
        return spb_ok();
    return spb_fail(err, SPB_LOCKED,
                    "cannot type on the console: another writer did %lld ms ago and has it for %d "
                    "ms after that",
                    (long long)silent_ms, SPB_CONSOLE_LEASE_MS);
}

static spb_status check_offset(const struct spb_writer_count *writer, uint64_t offset,
                               struct spb_error *err)
{
    if (writer == NULL && offset > 0)
        return spb_fail(err, SPB_NOT_FOUND,
                        "cannot type on the console at offset %llu of a writer that is not known: "
                        "what became of its earlier bytes cannot be told; begin with a new one",
                        (unsigned long long)offset);
    if (writer != NULL && offset > writer->taken)
        return spb_fail(err, SPB_INVALID,
                        "cannot type on the console: found offset %llu, expected at most %llu, "
                        "which is what this writer sent",
                        (unsigned long long)offset, (unsigned long long)writer->taken);
    return spb_ok();
}

static void queue(struct spb_typing *typing, struct spb_writer_count *writer,
                  const struct spb_console_typing *call, size_t skip)
{
    size_t room = SPB_CONSOLE_OUTPUT_BYTES - typing->size;
    size_t n = call->size - skip < room ? call->size - skip : room;

    memcpy(typing->output + typing->size, (const uint8_t *)call->bytes + skip, n);
    typing->size += n;
    writer->taken += n;
}

spb_status spb_typing_take(struct spb_typing *typing, const struct spb_console_typing *call,
                           int64_t now_ms, uint64_t *taken, struct spb_error *err)
{
    struct spb_writer_count *writer = find_writer(typing, call->writer);

    SPB_TRY(check_offset(writer, call->offset, err));
    uint64_t known = writer == NULL ? 0 : writer->taken - call->offset;
    if (writer != NULL && call->size <= known && call->size > 0) {
        /* All of it came already: a repeated call takes nobody's turn. */
        *taken = writer->taken;
        return spb_ok();
    }
    SPB_TRY(check_turn(typing, writer, call->takes_over, now_ms, err));
    if (typing->output == NULL && (typing->output = malloc(SPB_CONSOLE_OUTPUT_BYTES)) == NULL)
        return spb_fail_memory(err, "typing on a console");
    if (writer == NULL)
        writer = add_writer(typing, call->writer);
    typing->holder = writer;
    writer->last_ms = now_ms;
    if (call->size > known)
        queue(typing, writer, call, (size_t)known);
    *taken = writer->taken;
    return spb_ok();
}

void spb_typing_sent(struct spb_typing *typing, size_t n)
{
    SPB_ASSERT(n <= typing->size);
    typing->size -= n;
    if (typing->size > 0)
        memmove(typing->output, typing->output + n, typing->size);
}

void spb_typing_clear(struct spb_typing *typing)
{
    free(typing->output);
    typing->output = NULL;
    typing->size = 0;
}
