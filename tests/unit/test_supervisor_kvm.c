/* The proof of KVM: its firmware on a real QEMU, programs in QEMU's stead, and what is remembered.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/status.h"
#include "supervisor/process/kvm.h"
#include "supervisor/process/process.h"
#include "unit/folder_kit.h"

#define QEMU "qemu-system-x86_64"

TestSuite(supervisor_kvm, .init = folder_make, .fini = folder_remove);

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct spb_kvm_answer ask(struct spb_kvm_question question)
{
    char memory[128];
    struct spb_kvm_answer answer;
    struct spb_error err;

    snprintf(memory, sizeof(memory), "%s/kvm", folder);
    question.memory = memory;
    if (question.device == NULL)
        question.device = "/dev/null";
    cr_assert(spb_is_ok(spb_kvm_prove(&question, &answer, &err)), "%s", err.text);
    cr_expect_null(strchr(answer.reason, '\n'));
    return answer;
}

/* A program that stands for QEMU: it counts its runs, then does as the script says. */
static const char *fake_qemu(const char *script)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/qemu", folder);
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    fprintf(file, "#!/bin/sh\necho run >>%s/runs\n%s\n", folder, script);
    fclose(file);
    cr_assert_eq(chmod(path, 0700), 0);
    return path;
}

static int runs(void)
{
    char path[128];
    struct stat st;

    snprintf(path, sizeof(path), "%s/runs", folder);
    return stat(path, &st) == 0 ? (int)st.st_size / 4 : 0;
}

static void need_qemu(void)
{
    char path[PATH_MAX];

    if (!spb_is_ok(spb_process_find_program(QEMU, path, NULL)))
        folder_skip("no " QEMU);
}

Test(supervisor_kvm, its_firmware_boots_where_guests_do)
{
    need_qemu();
    struct spb_kvm_answer answer =
        ask((struct spb_kvm_question){.program = QEMU, .accel = "tcg", .limit_ms = 60000});
    cr_expect(answer.works, "%s", answer.reason);
    cr_expect_not(answer.was_remembered);
    struct spb_kvm_answer again =
        ask((struct spb_kvm_question){.program = QEMU, .accel = "tcg", .limit_ms = 60000});
    cr_expect(again.works && again.was_remembered);
    cr_expect_eq(again.took_ms, answer.took_ms);
    cr_expect_str_eq(again.reason, answer.reason);
    char path[160];
    snprintf(path, sizeof(path), "rm -f %s/kvm && rmdir %s", folder, folder);
    cr_expect_eq(system(path), 0, "nothing else is left behind");
}

/* Whatever this host's KVM does, the answer comes in time, and once. */
Test(supervisor_kvm, decides_about_this_host_within_its_limit)
{
    need_qemu();
    if (access("/dev/kvm", R_OK | W_OK) != 0)
        folder_skip("no /dev/kvm");
    struct spb_kvm_question question = {.program = QEMU, .device = "/dev/kvm", .limit_ms = 3000};
    int64_t begin_ms = now_ms();
    struct spb_kvm_answer answer = ask(question);
    cr_expect_lt(now_ms() - begin_ms, 3000 + 2000 + 5000);
    struct spb_kvm_answer again = ask(question);
    cr_expect(again.was_remembered);
    cr_expect_eq(again.works, answer.works);
    fprintf(stderr, "KVM here: %s: %s\n", answer.works ? "yes" : "no", answer.reason);
}

Test(supervisor_kvm, a_guest_that_hangs_is_a_no_within_the_limit)
{
    const char *program = fake_qemu("exec sleep 1000");
    int64_t begin_ms = now_ms();

    struct spb_kvm_answer answer =
        ask((struct spb_kvm_question){.program = program, .limit_ms = 300});
    cr_expect_not(answer.works);
    cr_expect_not_null(strstr(answer.reason, "had not ended after"), "%s", answer.reason);
    cr_expect_geq(answer.took_ms, 300);
    cr_expect_lt(now_ms() - begin_ms, 30000);
    answer = ask((struct spb_kvm_question){.program = program, .limit_ms = 300});
    cr_expect(answer.was_remembered && !answer.works);
    cr_expect_eq(runs(), 1, "it is not asked again");
}

Test(supervisor_kvm, only_the_firmwares_own_code_is_a_yes)
{
    cr_expect(ask((struct spb_kvm_question){.program = fake_qemu("exit 85")}).works);
    struct spb_kvm_answer answer = ask((struct spb_kvm_question){
        .program = fake_qemu("echo 'failed to\nset an MSR' >&2; kill -ABRT $$")});
    cr_expect_not(answer.works);
    cr_expect_not_null(strstr(answer.reason, "signal 6"), "%s", answer.reason);
    cr_expect_not_null(strstr(answer.reason, "failed to set an MSR"), "%s", answer.reason);
    answer = ask((struct spb_kvm_question){.program = fake_qemu("exit 0 # of other size")});
    cr_expect_not(answer.works);
    cr_expect_eq(runs(), 3, "another program is asked anew");
}

Test(supervisor_kvm, what_is_absent_is_a_no_and_not_remembered)
{
    const char *program = fake_qemu("exit 85");
    struct spb_kvm_answer answer =
        ask((struct spb_kvm_question){.program = program, .device = "/nonexistent"});

    cr_expect(!answer.works && !answer.was_remembered);
    cr_expect_not_null(strstr(answer.reason, "/nonexistent"));
    cr_expect_eq(runs(), 0);
    answer = ask((struct spb_kvm_question){.program = "/nonexistent/qemu"});
    cr_expect_not(answer.works);
    cr_expect(ask((struct spb_kvm_question){.program = program}).works, "once it is there");
}

static void spoil_memory(const char *from, const char *to)
{
    char command[256];

    snprintf(command, sizeof(command), "sed -i 's/%s/%s/' %s/kvm", from, to, folder);
    cr_assert_eq(system(command), 0);
}

Test(supervisor_kvm, a_memory_of_another_boot_or_a_broken_one_counts_for_nothing)
{
    struct spb_kvm_question question = {.program = fake_qemu("exit 85")};

    (void)ask(question);
    spoil_memory("^boot=.*", "boot=another");
    cr_expect_not(ask(question).was_remembered);
    spoil_memory("^kernel=.*", "kernel=1.2.3");
    cr_expect_not(ask(question).was_remembered);
    spoil_memory("^works=.*", "works=maybe");
    cr_expect_not(ask(question).was_remembered);
    spoil_memory("^took_ms=.*", "");
    cr_expect_not(ask(question).was_remembered);
    cr_expect(ask(question).was_remembered);
    cr_expect_eq(runs(), 5);
}

Test(supervisor_kvm, a_folder_that_cannot_be_written_to_is_an_error)
{
    struct spb_kvm_question question = {
        .program = fake_qemu("exit 85"), .device = "/dev/null", .memory = "/nonexistent/kvm"};
    struct spb_kvm_answer answer = {.took_ms = 42};
    struct spb_error err;

    cr_expect_eq(spb_kvm_prove(&question, &answer, &err).code, SPB_IO);
    cr_expect_not_null(strstr(err.text, "/nonexistent/kvm"), "%s", err.text);
    cr_expect_eq(answer.took_ms, 42);
}
