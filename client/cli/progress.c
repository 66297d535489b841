/* The progress bar; see progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void cli_progress_init(struct cli_progress *progress, const struct cli *cli, const char *label)
{
    memset(progress, 0, sizeof(*progress));
    progress->shown = !cli_is_json(cli) && isatty(STDERR_FILENO) == 1;
    progress->label = label;
    /* What takes less than a moment needs no bar. */
    progress->last_ms = now_ms();
}

static unsigned terminal_columns(void)
{
    struct winsize size = {0};

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 40)
        return 80;
    return size.ws_col;
}

void cli_progress_update(struct cli_progress *progress, uint64_t done_bytes, uint64_t total_bytes)
{
    static const char hashes[] = "################################################";
    uint64_t now = progress->shown ? now_ms() : 0;

    if (!progress->shown || now - progress->last_ms < 100)
        return;
    progress->last_ms = now;
    double share = total_bytes == 0 ? 1.0 : (double)done_bytes / (double)total_bytes;
    unsigned room = terminal_columns() - 36;
    if (room > sizeof(hashes) - 1)
        room = sizeof(hashes) - 1;
    int full = (int)((double)room * share);
    (void)fprintf(stderr, "\r%-9s [%.*s%*s] %3d%% %llu MiB", progress->label, full, hashes,
                  (int)room - full, "", (int)(share * 100.0),
                  (unsigned long long)(done_bytes >> 20));
    (void)fflush(stderr);
    progress->drawn = true;
}

void cli_progress_done(struct cli_progress *progress)
{
    if (progress->drawn) {
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
    }
    progress->drawn = false;
    progress->shown = false;
}

bool cli_progress_callback(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    cli_progress_update(user, done_bytes, total_bytes);
    return !cli_is_interrupted();
}
