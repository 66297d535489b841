/*
 * Putting a configuration in force that was read anew; see daemon.h. What a running daemon cannot
 * change it keeps, and says so.
 */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "daemon.h"
#include "loop.h"
#include "metrics.h"
#include "registry.h"

static void apply_limits(struct spb_daemon *daemon, const struct spb_limits *wanted)
{
    size_t count;
    const struct spb_limit_row *rows = spb_limit_rows(&count);

    for (size_t i = 0; i < count; i++) {
        uint64_t before = spb_limit_get(&daemon->limits, &rows[i]);
        uint64_t after = spb_limit_get(wanted, &rows[i]);

        if (before != after)
            spb_log(&daemon->log, SPB_LOG_INFO, "limit-changed", SPB_TEXT("name", rows[i].name),
                    SPB_NUMBER("from", before), SPB_NUMBER("to", after));
    }
    spb_limits_publish(&daemon->limits, wanted);
}

/* An option as text, owned by the caller; NULL without memory. */
static char *show(const struct spb_option_row *row, const struct spb_options *options)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    row->show(options, row->name, out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* Names what would need a restart. */
static void note_kept(struct spb_daemon *daemon, const struct spb_options *wanted)
{
    size_t count;
    const struct spb_option_row *rows = spb_option_rows(&count);

    for (size_t i = 0; i < count; i++) {
        if (rows[i].live)
            continue;
        char *before = show(&rows[i], &daemon->options), *after = show(&rows[i], wanted);
        if (before != NULL && after != NULL && strcmp(before, after) != 0)
            spb_log(&daemon->log, SPB_LOG_WARN, "option-kept", SPB_TEXT("name", rows[i].name),
                    SPB_TEXT("reason", "it changes at a restart only"), SPB_TEXT("wanted", after));
        free(before);
        free(after);
    }
}

void spb_daemon_reload(struct spb_daemon *daemon, const struct spb_options *options)
{
    apply_limits(daemon, &options->limits);
    spb_log_set_level(&daemon->log, options->log_level);
    note_kept(daemon, options);
    spb_metrics_count(daemon->metrics, SPB_COUNT_RELOADS, 1);
    spb_log(&daemon->log, SPB_LOG_INFO, "reloaded",
            SPB_TEXT("config", options->config[0] == '\0' ? "none" : options->config));
    if (!daemon->draining)
        spb_notify_ready(&daemon->notify, spb_registry_count(daemon->registry));
}

void spb_daemon_note_failed_reload(struct spb_daemon *daemon, const struct spb_error *err)
{
    spb_metrics_count(daemon->metrics, SPB_COUNT_RELOADS_FAILED, 1);
    spb_log(&daemon->log, SPB_LOG_ERROR, "reload-failed", SPB_TEXT("reason", err->text),
            SPB_TEXT("outcome", "the configuration stays as it was"));
    spb_notify_not_reloaded(&daemon->notify, err->text);
}
