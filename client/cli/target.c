/* Choice of the target, and what both kinds share. */
#include "cli/target.h"

#include <stdlib.h>

#include "base/crc32c.h"
#include "cli/output.h"

static bool open_file(struct cli *cli, bool writable, struct cli_target **target, int *exit_code)
{
    const char *path = cli_text_of(cli, CLI_OPT_FILE);
    uint32_t sector_size = (uint32_t)cli_number(cli, CLI_OPT_SECTOR_SIZE, 0);
    char owner[CLI_OWNER_SIZE] = "";
    struct spb_error err;

    spb_status status = cli_target_file_open(path, sector_size, writable, target, owner, &err);
    if (!spb_is_ok(status)) {
        *exit_code = cli_fail(cli, &err);
        return false;
    }
    if (owner[0] != '\0')
        cli_note(cli, "%s is held by %s: what is shown here may be changing", path, owner);
    return true;
}

static bool open_image(struct cli *cli, const char *what, const char *text,
                       struct cli_target **target, int *exit_code)
{
    struct cli_image_ref image;
    struct spb_error err;

    if (!spb_is_ok(cli_parse_image(what, text, &image, &err))) {
        *exit_code = cli_usage(cli, "%s", err.text);
        return false;
    }
    if (!spb_is_ok(cli_target_daemon_open(cli, &image, target, &err))) {
        /* Only a malformed endpoint is invalid before the first call. */
        *exit_code = err.code == SPB_INVALID ? cli_usage(cli, "%s", err.text) : cli_fail(cli, &err);
        return false;
    }
    return true;
}

bool cli_target_open(struct cli *cli, struct cli_target **target, int *exit_code)
{
    bool writable = cli->command->writes || cli_has(cli, CLI_OPT_REPAIR);

    if (cli->command->subject == CLI_ON_NAMED_IMAGE)
        return open_image(cli, "[TENANT/]NAME", cli->words[0], target, exit_code);
    if (cli_has(cli, CLI_OPT_FILE))
        return open_file(cli, writable, target, exit_code);
    return open_image(cli, "--image", cli_text_of(cli, CLI_OPT_IMAGE), target, exit_code);
}

void cli_target_close(struct cli_target *target)
{
    if (target != NULL)
        target->ops->close(target);
}

void cli_target_cleanup(struct cli_target **target)
{
    cli_target_close(*target);
}

struct crc_sink {
    cli_sink sink;
    void *user;
    uint32_t crc;
};

static spb_status sink_with_crc(void *user, const void *data, size_t n, struct spb_error *err)
{
    struct crc_sink *through = user;

    through->crc = spb_crc32c(through->crc, data, n);
    return through->sink(through->user, data, n, err);
}

spb_status cli_product_fetch(struct cli_target *target, const struct cli_product *product,
                             struct cli_fetched fetched, struct cli_progress *progress,
                             cli_sink sink, void *user, struct spb_error *err)
{
    struct crc_sink through = {sink, user, fetched.crc};

    SPB_TRY(target->ops->product_read(target, product, fetched.length, progress, sink_with_crc,
                                      &through, err));
    if (product->product.state != SPB_PRODUCT_ROTTEN && through.crc != product->product.crc)
        return spb_fail(err, SPB_CORRUPT,
                        "reading data product \"%s\": its %llu bytes have CRC %08x, expected %08x",
                        product->product.name, (unsigned long long)product->product.length,
                        through.crc, product->product.crc);
    return spb_ok();
}

void cli_inspection_done(struct cli_inspection *inspection)
{
    free(inspection->summary);
    free(inspection->params);
}

void cli_params_done(struct cli_params *params)
{
    free(params->params);
    free(params->corrupt_ids);
}

void cli_events_done(struct cli_events *events)
{
    free(events->events);
}

void cli_products_done(struct cli_products *products)
{
    free(products->products);
}

static bool is_among(const uint64_t *list, size_t count, uint64_t value)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == value)
            return true;
    }
    return count == 0;
}

bool cli_event_matches(const struct cli_event_query *query, const struct spb_event *event)
{
    return event->corrupt || (is_among(query->severities, query->severity_count, event->severity) &&
                              is_among(query->codes, query->code_count, event->code));
}
