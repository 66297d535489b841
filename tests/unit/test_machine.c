/* What the supervisor and launch share of QEMU: command line, QMP without I/O, endings. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/status.h"
#include "supervisor/machine/command.h"
#include "supervisor/machine/ending.h"
#include "supervisor/machine/qmp.h"
#include "supervisor/machine/traces.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n"
#define AGREED "{\"return\": {}, \"id\": 1}\r\n"

/* ---- Command line ------------------------------------------------------------------------- */

static struct spb_machine machine_of(const char *path)
{
    return (struct spb_machine){
        .program = "qemu-system-x86_64",
        .name = "a,b",
        .memory_mib = 96,
        .cpus = 1,
        .kernel = "/k",
        .initrd = "/i",
        .append = "x=1,y=2",
        .disks = {{.path = path}},
        .disk_count = 1,
        .console = {.fd = 5},
        .monitor = {.path = "/run/q,1"},
    };
}

static bool has_word(char **argv, const char *word)
{
    for (; *argv != NULL; argv++) {
        if (strcmp(*argv, word) == 0)
            return true;
    }
    return false;
}

Test(machine, values_are_escaped_and_stay_values)
{
    struct spb_machine machine = machine_of("/d/a,readonly=on.img");
    char **argv = NULL;

    cr_assert(spb_is_ok(spb_machine_command(&machine, &argv, NULL)));
    cr_expect_str_eq(argv[0], "qemu-system-x86_64");
    cr_expect(
        has_word(argv, "driver=file,node-name=f0,filename=/d/a,,readonly=on.img,discard=unmap"));
    cr_expect(has_word(argv, "guest=a,,b,debug-threads=on"));
    cr_expect(has_word(argv, "console=ttyS0 panic=-1 no_timer_check x=1,y=2"));
    cr_expect(has_word(argv, "socket,id=con,fd=5"));
    cr_expect(has_word(argv, "socket,id=qmp,path=/run/q,,1,server=on,wait=off"));
    cr_expect(has_word(argv, "-S"));
    cr_expect(has_word(argv, "reboot=shutdown,shutdown=poweroff,panic=shutdown"));
    cr_expect_not(has_word(argv, "-trace"));
    free(argv);
    machine.pauses_at_end = true;
    cr_assert(spb_is_ok(spb_machine_command(&machine, &argv, NULL)));
    cr_expect(has_word(argv, "reboot=shutdown,shutdown=pause,panic=pause"));
    cr_expect(has_word(argv, "qemu_system_shutdown_request*"));
    cr_expect(has_word(argv, "runstate_set*"));
    free(argv);
}

Test(machine, as_many_disks_as_may_be)
{
    struct spb_machine machine = machine_of("/d/a");
    char **argv = NULL;
    char word[80];

    machine.disk_count = SPB_MACHINE_DISKS_MAX;
    machine.uuid = "3b241101-e2bb-4255-8caf-4136c566a962";
    machine.pidfile = "/run/pid";
    for (size_t i = 0; i < machine.disk_count; i++)
        machine.disks[i] = (struct spb_machine_disk){.path = "/d/a", .serial = "vda"};
    cr_assert(spb_is_ok(spb_machine_command(&machine, &argv, NULL)));
    for (size_t i = 0; i < machine.disk_count; i++) {
        (void)snprintf(word, sizeof(word), "virtio-blk-pci,drive=d%zu,id=vd%zu,serial=vda", i, i);
        cr_expect(has_word(argv, word), "%s", word);
    }
    cr_expect(has_word(argv, "/run/pid"), "what comes after the disks is there");
    free(argv);
}

static void expect_refused(const struct spb_machine *machine, const char *words)
{
    char **argv = NULL;
    struct spb_error err;

    cr_expect_eq(spb_machine_command(machine, &argv, &err).code, SPB_INVALID);
    cr_expect_not_null(strstr(err.text, words), "%s", err.text);
    cr_expect_null(argv);
}

Test(machine, what_cannot_be_said_is_refused)
{
    char path[200];
    struct spb_machine machine = machine_of("/d/a");

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    machine.monitor.path = path;
    expect_refused(&machine, "monitor's socket");
    machine = machine_of("/d/a\nb");
    expect_refused(&machine, "control character");
    machine = machine_of("/d/a");
    machine.memory_mib = 1;
    expect_refused(&machine, "memory in MiB: found 1");
    machine = machine_of("/d/a");
    machine.disks[0].serial = "a,b";
    expect_refused(&machine, "serial");
    machine = machine_of("");
    expect_refused(&machine, "disk's path");
    machine = machine_of("/d/a");
    machine.disk_count = SPB_MACHINE_DISKS_MAX + 1;
    expect_refused(&machine, "found 17 disks");
}

/* ---- QMP ---------------------------------------------------------------------------------- */

struct seen {
    unsigned ready, broken, events, answers, failures;
    char event[64];
    double seconds;
    struct spb_error why;
};

static void on_ready(void *user)
{
    ((struct seen *)user)->ready++;
}

static void on_event(void *user, const char *name, const json_t *data, double seconds)
{
    struct seen *seen = user;

    cr_expect(json_is_object(data));
    seen->events++;
    seen->seconds = seconds;
    snprintf(seen->event, sizeof(seen->event), "%s", name);
}

static void on_broken(void *user, const struct spb_error *why)
{
    struct seen *seen = user;

    seen->broken++;
    seen->why = *why;
}

static void on_done(void *user, const json_t *result, const struct spb_error *error)
{
    struct seen *seen = user;

    cr_expect_eq(result == NULL, error != NULL);
    if (result != NULL) {
        seen->answers++;
    } else {
        seen->failures++;
        seen->why = *error;
    }
}

static void begin(struct spb_qmp *qmp, struct seen *seen)
{
    struct spb_qmp_hooks hooks = {
        .ready = on_ready, .event = on_event, .broken = on_broken, .user = seen};

    *seen = (struct seen){0};
    spb_qmp_init(qmp, &hooks);
}

static void feed(struct spb_qmp *qmp, const char *text)
{
    spb_qmp_feed(qmp, text, strlen(text));
}

static void expect_output(struct spb_qmp *qmp, const char *text)
{
    size_t size = 0;
    const char *output = spb_qmp_output(qmp, &size);

    cr_assert_eq(size, strlen(text), "%.*s", (int)size, output);
    cr_expect_eq(memcmp(output, text, size), 0, "%.*s", (int)size, output);
    spb_qmp_sent(qmp, size);
}

static void make_ready(struct spb_qmp *qmp, struct seen *seen)
{
    begin(qmp, seen);
    feed(qmp, GREETING);
    expect_output(qmp, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
    feed(qmp, AGREED);
    cr_assert_eq(seen->ready, 1);
}

Test(qmp, negotiates_runs_commands_and_tells_events)
{
    struct spb_qmp qmp;
    struct seen seen;

    make_ready(&qmp, &seen);
    cr_assert(spb_is_ok(spb_qmp_execute(&qmp, "cont", NULL, on_done, &seen, NULL)));
    expect_output(&qmp, "{\"execute\":\"cont\",\"id\":2}\n");
    feed(&qmp, "{\"timestamp\": {\"seconds\": 7, \"microseconds\": 500000}, \"event\": \"RESUME\"}"
               "\r\n{\"return\": {}, \"id\": 2}\r\n");
    cr_expect_eq(seen.events, 1);
    cr_expect_str_eq(seen.event, "RESUME");
    cr_expect_float_eq(seen.seconds, 7.5, 1e-9);
    cr_expect_eq(seen.answers, 1);
    cr_assert(spb_is_ok(spb_qmp_execute(&qmp, "stop", NULL, on_done, &seen, NULL)));
    feed(&qmp, "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n");
    cr_expect_eq(seen.failures, 1);
    cr_expect_eq(seen.why.code, SPB_REMOTE);
    cr_expect_not_null(strstr(seen.why.text, "GenericError: no"), "%s", seen.why.text);
    cr_expect_eq(qmp.state, SPB_QMP_READY);
    spb_qmp_done_all(&qmp);
}

Test(qmp, takes_every_cut_of_its_bytes)
{
    static const char text[] = GREETING AGREED "{\"event\": \"STOP\"}\n";
    struct spb_qmp qmp;
    struct seen seen;

    for (size_t cut = 0; cut < sizeof(text); cut++) {
        begin(&qmp, &seen);
        spb_qmp_feed(&qmp, text, cut);
        spb_qmp_feed(&qmp, text + cut, sizeof(text) - 1 - cut);
        cr_expect_eq(seen.ready, 1, "cut at %zu", cut);
        cr_expect_eq(seen.events, 1, "cut at %zu", cut);
        spb_qmp_done_all(&qmp);
    }
}

Test(qmp, breaks_once_on_what_is_no_qmp)
{
    static const char *const bad[] = {
        "hello\n",
        "[1]\n",
        "{\"event\": \"STOP\"}\n", /* before the greeting */
        GREETING "{\"return\": {}, \"id\": 9}\n",
        GREETING "{\"return\": {}}\n",
        GREETING AGREED GREETING,
        GREETING AGREED "{}\n",
        GREETING AGREED "{\"return\": {}, \"id\": 1}\n",
        GREETING "{\"error\": {\"class\": \"x\", \"desc\": \"y\"}, \"id\": 1}\n",
        GREETING AGREED "{\"event\": \"\xff\"}\n",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct spb_qmp qmp;
        struct seen seen;

        begin(&qmp, &seen);
        feed(&qmp, bad[i]);
        feed(&qmp, GREETING);
        cr_expect_eq(seen.broken, 1, "%zu", i);
        cr_expect_eq(qmp.state, SPB_QMP_BROKEN, "%zu", i);
        cr_expect_eq(spb_qmp_execute(&qmp, "cont", NULL, on_done, &seen, NULL).code, seen.why.code,
                     "%zu", i);
        spb_qmp_done_all(&qmp);
    }
}

Test(qmp, a_line_without_end_is_bounded)
{
    struct spb_qmp qmp;
    struct seen seen;
    static char piece[65536];

    memset(piece, ' ', sizeof(piece));
    make_ready(&qmp, &seen);
    for (unsigned i = 0; i < 64 && seen.broken == 0; i++)
        spb_qmp_feed(&qmp, piece, sizeof(piece));
    cr_expect_eq(seen.broken, 1);
    cr_expect_leq(qmp.line_room, SPB_QMP_LINE_MAX);
    spb_qmp_done_all(&qmp);
}

Test(qmp, commands_end_once_when_the_session_does)
{
    struct spb_qmp qmp;
    struct seen seen;
    unsigned started = 0;

    make_ready(&qmp, &seen);
    while (spb_is_ok(spb_qmp_execute(&qmp, "query-status", NULL, on_done, &seen, NULL)))
        started++;
    cr_expect_eq(started, SPB_QMP_COMMANDS_MAX);
    spb_qmp_done_all(&qmp);
    cr_expect_eq(seen.failures, SPB_QMP_COMMANDS_MAX);
    cr_expect_eq(seen.broken, 0);
    cr_expect_eq(seen.why.code, SPB_UNREACHABLE);
}

/* ---- Endings ------------------------------------------------------------------------------ */

static enum spb_ending ending_of(const char *event, const char *reason, int wait_status)
{
    enum spb_ending ending = SPB_ENDING_NONE;
    json_t *data = reason == NULL ? json_object() : json_pack("{s:s}", "reason", reason);

    spb_ending_take_event(&ending, event, data);
    spb_ending_take_exit(&ending, wait_status);
    json_decref(data);
    return ending;
}

Test(ending, follows_events_before_the_exit_code)
{
    enum spb_ending ending = SPB_ENDING_NONE;

    cr_expect_eq(ending_of("SHUTDOWN", "guest-shutdown", 0), SPB_ENDING_POWEROFF);
    cr_expect_eq(ending_of("SHUTDOWN", "guest-reset", 0), SPB_ENDING_REBOOT);
    cr_expect_eq(ending_of("SHUTDOWN", "host-qmp-quit", 0), SPB_ENDING_STOPPED);
    cr_expect_eq(ending_of("SHUTDOWN", "host-error", 0), SPB_ENDING_CRASHED);
    cr_expect_eq(ending_of("GUEST_PANICKED", NULL, 0), SPB_ENDING_PANIC);
    cr_expect_eq(ending_of("RESUME", NULL, 0), SPB_ENDING_STOPPED);
    cr_expect_eq(ending_of("RESUME", NULL, 9), SPB_ENDING_CRASHED);
    cr_expect_eq(ending_of("RESUME", NULL, 1 << 8), SPB_ENDING_CRASHED);
    spb_ending_take_status(&ending, "running", SPB_ENDING_REBOOT);
    cr_expect_eq(ending, SPB_ENDING_NONE);
    spb_ending_take_status(&ending, "shutdown", SPB_ENDING_REBOOT);
    cr_expect_eq(ending, SPB_ENDING_REBOOT);
    spb_ending_take_status(&ending, "shutdown", SPB_ENDING_POWEROFF);
    cr_expect_eq(ending, SPB_ENDING_REBOOT, "what is known stays");
    spb_ending_take_status(&ending, "guest-panicked", SPB_ENDING_NONE);
    cr_expect_eq(ending, SPB_ENDING_PANIC);
    ending = SPB_ENDING_NONE;
    spb_ending_take_status(&ending, "shutdown", SPB_ENDING_NONE);
    cr_expect_eq(ending, SPB_ENDING_LOST);
}

#define BEGUN "runstate_set current_run_state 6 (prelaunch) new_state 9 (running)\n"
#define REQUEST "qemu_system_shutdown_request reason="
#define ENDED "runstate_set current_run_state 9 (running) new_state 11 (shutdown)\n"

Test(ending, is_traced)
{
    static const struct {
        const char *words;
        enum spb_ending ending;
    } cases[] = {
        {BEGUN REQUEST "6\n" ENDED, SPB_ENDING_POWEROFF},
        {BEGUN ENDED, SPB_ENDING_REBOOT},
        {BEGUN ENDED REQUEST "2\n", SPB_ENDING_REBOOT}, /* told to quit after it */
        {BEGUN REQUEST "6\n" ENDED REQUEST "2\n", SPB_ENDING_POWEROFF},
        {"a\n" REQUEST "6\nqemu: b\n" ENDED "c", SPB_ENDING_POWEROFF},
        {"7@1790000000.123456:" REQUEST "6\n7@1790000000.123457:" ENDED, SPB_ENDING_POWEROFF},
        {"7@1790000000.123457:" ENDED, SPB_ENDING_REBOOT},
        {REQUEST "1\n" ENDED, SPB_ENDING_CRASHED},
        {REQUEST "99\n" ENDED, SPB_ENDING_NONE},
        {REQUEST "6\n", SPB_ENDING_POWEROFF},
        {BEGUN, SPB_ENDING_NONE},
        {"", SPB_ENDING_NONE},
        {"it said " ENDED, SPB_ENDING_NONE},
        {"runstate_set current_run_state 9 (running) new_state 11 (shutdo", SPB_ENDING_NONE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_expect_eq(spb_traces_ending(cases[i].words, strlen(cases[i].words), false),
                     cases[i].ending, "case %zu", i);
}

/* What was before the words that are kept may have been the request. */
Test(ending, traces_that_are_cut)
{
    char words[4096];
    size_t n = strlen(ENDED);

    memset(words, '\n', sizeof(words));
    memcpy(words + 40, ENDED, n);
    cr_expect_eq(spb_traces_ending(words, sizeof(words), false), SPB_ENDING_REBOOT);
    cr_expect_eq(spb_traces_ending(words, sizeof(words), true), SPB_ENDING_NONE);
    memset(words, '\n', sizeof(words));
    memcpy(words + sizeof(words) - n, ENDED, n);
    cr_expect_eq(spb_traces_ending(words, sizeof(words), true), SPB_ENDING_REBOOT);
}

Test(ending, traces_are_not_shown)
{
    char words[] = BEGUN "qemu: one\n" REQUEST "6\n7@17.5:" ENDED "two: " ENDED "runstate_set";
    size_t n = spb_traces_drop(words, strlen(words));

    words[n] = '\0';
    cr_expect_str_eq(words, "qemu: one\ntwo: " ENDED "runstate_set");
    cr_expect_eq(spb_traces_drop(words, 0), 0);
}
