/* Whether KVM runs guests here; see kvm.h. */
#include "supervisor/process/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "supervisor/process/kvm_boot.h"
#include "supervisor/process/process.h"
#include "supervisor/process/words.h"

#define DEVICE "/dev/kvm"
#define ACCEL "kvm"
#define KILL_MS 2000 /* a killed QEMU has ended by then, or is stuck in the kernel */
#define KEY_SIZE (PATH_MAX + 512)
#define FILE_SIZE (KEY_SIZE + SPB_KVM_REASON_SIZE + 128)

struct proof {
    const struct spb_kvm_question *question;
    const char *accel;
    char program[PATH_MAX];
    char key[KEY_SIZE]; /* what an answer holds for, as the file has it */
};

static void __attribute__((format(printf, 3, 4)))
say(struct spb_kvm_answer *answer, bool works, const char *format, ...)
{
    va_list args;

    answer->works = works;
    va_start(args, format);
    (void)vsnprintf(answer->reason, sizeof(answer->reason), format, args);
    va_end(args);
}

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- What is remembered ------------------------------------------------------------------- */

/* A small file; empty where it cannot be read. */
static void read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);

    if (fd >= 0)
        (void)close(fd);
    text[got < 0 ? 0 : got] = '\0';
}

static spb_status make_key(struct proof *proof, struct spb_error *err)
{
    struct utsname name;
    struct stat st;
    char boot[64];

    if (uname(&name) < 0 || stat(proof->program, &st) < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot look at %s", proof->program);
    read_text("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
    boot[strcspn(boot, "\n")] = '\0';
    (void)snprintf(proof->key, sizeof(proof->key),
                   "spaceblock kvm proof 1\nkernel=%s\nboot=%s\nprogram=%s\nsize=%lld\n"
                   "modified=%lld.%09ld\naccel=%s\n",
                   name.release, boot, proof->program, (long long)st.st_size,
                   (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, proof->accel);
    return spb_ok();
}

/* Steps over word where text begins with it. */
static bool skip(const char **text, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(*text, word, n) != 0)
        return false;
    *text += n;
    return true;
}

/* What follows the key, as remember writes it. */
static bool parse_answer(const char *text, struct spb_kvm_answer *answer)
{
    char *end;

    answer->works = skip(&text, "works=yes\n");
    if ((!answer->works && !skip(&text, "works=no\n")) || !skip(&text, "took_ms="))
        return false;
    unsigned long took_ms = strtoul(text, &end, 10);
    if (end == text || took_ms > UINT32_MAX)
        return false;
    answer->took_ms = (uint32_t)took_ms;
    text = end;
    size_t size = skip(&text, "\nreason=") ? strcspn(text, "\n") : 0;
    if (size == 0 || text[size] != '\n' || size >= sizeof(answer->reason))
        return false;
    memcpy(answer->reason, text, size);
    answer->reason[size] = '\0';
    return true;
}

/* An answer that holds for what is here now. */
static bool recall(const struct proof *proof, struct spb_kvm_answer *answer)
{
    char buffer[FILE_SIZE];
    const char *text = buffer;
    struct spb_kvm_answer found = {.was_remembered = true};

    read_text(proof->question->memory, buffer, sizeof(buffer));
    if (!skip(&text, proof->key) || !parse_answer(text, &found))
        return false;
    *answer = found;
    return true;
}

/* An answer that cannot be kept is asked for again: no error. */
static void remember(const struct proof *proof, const struct spb_kvm_answer *answer)
{
    char path[PATH_MAX], text[FILE_SIZE];
    int size = snprintf(path, sizeof(path), "%s.new", proof->question->memory);

    if (size < 0 || (size_t)size >= sizeof(path))
        return;
    size = snprintf(text, sizeof(text), "%sworks=%s\ntook_ms=%u\nreason=%s\n", proof->key,
                    answer->works ? "yes" : "no", answer->took_ms, answer->reason);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    ssize_t wrote = write(fd, text, (size_t)size);
    (void)close(fd);
    if (wrote != size || rename(path, proof->question->memory) < 0)
        (void)unlink(path);
}

/* ---- The boot ----------------------------------------------------------------------------- */

/* Has it ended within the time? */
static bool await_end(const struct spb_process *process, int64_t limit_ms)
{
    struct pollfd poll_fd = {.fd = process->pidfd, .events = POLLIN};
    int64_t end_ms = now_ms() + limit_ms;

    for (;;) {
        int64_t left_ms = end_ms - now_ms();
        int rc = poll(&poll_fd, 1, left_ms > 0 ? (int)left_ms : 0);

        if (rc > 0)
            return true;
        if (rc == 0)
            return false;
    }
}

static void judge(int wait_status, const char *words, const char *accel,
                  struct spb_kvm_answer *answer)
{
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == SPB_KVM_EXIT_CODE)
        say(answer, true, "a guest of some instructions booted in %u ms under %s", answer->took_ms,
            accel);
    else if (WIFEXITED(wait_status))
        say(answer, false, "QEMU exited with %d under %s: %s", WEXITSTATUS(wait_status), accel,
            words);
    else
        say(answer, false, "signal %d ended QEMU under %s: %s", WTERMSIG(wait_status), accel,
            words);
}

static void watch(const struct proof *proof, const struct spb_process *process,
                  struct spb_words *words, struct spb_kvm_answer *answer)
{
    uint32_t limit_ms =
        proof->question->limit_ms == 0 ? SPB_KVM_LIMIT_MS : proof->question->limit_ms;
    char text[192];
    int64_t begin_ms = now_ms();
    int wait_status;

    bool has_ended = await_end(process, limit_ms);
    answer->took_ms = (uint32_t)(now_ms() - begin_ms);
    if (!has_ended) {
        (void)!spb_is_ok(spb_process_signal(process, SIGKILL, NULL));
        (void)await_end(process, KILL_MS);
    }
    bool is_reaped = spb_process_reap(process, &wait_status);
    (void)spb_words_read(words);
    spb_words_text(words, text, sizeof(text));
    if (!has_ended || !is_reaped)
        say(answer, false, "a guest of some instructions had not ended after %u ms under %s%s",
            answer->took_ms, proof->accel, is_reaped ? "" : ", and QEMU cannot be killed");
    else
        judge(wait_status, text, proof->accel, answer);
}

static spb_status run_qemu(const struct proof *proof, const char *rom, struct spb_words *words,
                           int stderr_fd, struct spb_kvm_answer *answer, struct spb_error *err)
{
    struct proof copy = *proof;             /* argv takes pointers to what may be written to */
    char accel[32], bios[PATH_MAX], cpu[8]; /* the last as guests have it */
    struct spb_process process = SPB_PROCESS_NONE;

    (void)snprintf(accel, sizeof(accel), "%s", proof->accel);
    (void)snprintf(bios, sizeof(bios), "%s", rom);
    (void)snprintf(cpu, sizeof(cpu), "%s", strcmp(accel, ACCEL) == 0 ? "host" : "max");
    char *argv[] = {copy.program,
                    (char[]){"-nodefaults"},
                    (char[]){"-no-user-config"},
                    (char[]){"-nographic"},
                    (char[]){"-machine"},
                    (char[]){"pc"},
                    (char[]){"-accel"},
                    accel,
                    (char[]){"-cpu"},
                    cpu,
                    (char[]){"-m"},
                    (char[]){"32"},
                    (char[]){"-bios"},
                    bios,
                    (char[]){"-device"},
                    (char[]){"isa-debug-exit,iobase=" SPB_KVM_EXIT_PORT ",iosize=4"},
                    NULL};
    struct spb_spawn spawn = {
        .argv = argv, .stderr_fd = stderr_fd, .cgroup_fd = -1, .dies_with_caller = true};
    SPB_TRY(spb_process_spawn(&spawn, &process, err));
    watch(proof, &process, words, answer);
    spb_process_close(&process);
    return spb_ok();
}

/* QEMU's stderr goes through a pipe that does not block it: it does not outlive this call. */
static spb_status run_with_words(const struct proof *proof, const char *rom,
                                 struct spb_kvm_answer *answer, struct spb_error *err)
{
    struct spb_words words = {.fd = -1};
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return spb_fail_errno(err, SPB_LIMIT, errno, "cannot make a pipe to prove KVM");
    words.fd = fds[0];
    spb_status status = run_qemu(proof, rom, &words, fds[1], answer, err);
    (void)close(fds[1]);
    spb_words_close(&words);
    return status;
}

static spb_status write_rom(int fd, const char *path, const uint8_t *rom, struct spb_error *err)
{
    ssize_t wrote = write(fd, rom, SPB_KVM_ROM_BYTES);

    if (wrote == (ssize_t)SPB_KVM_ROM_BYTES)
        return spb_ok();
    return spb_fail_errno(err, SPB_IO, wrote < 0 ? errno : ENOSPC, "cannot write %s", path);
}

static spb_status boot(const struct proof *proof, const uint8_t *rom, struct spb_kvm_answer *answer,
                       struct spb_error *err)
{
    char path[PATH_MAX];
    int size = snprintf(path, sizeof(path), "%s.rom.XXXXXX", proof->question->memory);

    if (size < 0 || (size_t)size >= sizeof(path) || strchr(path, ',') != NULL)
        return spb_fail(err, SPB_INVALID, "proving KVM: %s is too long a path, or has a comma",
                        proof->question->memory);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return spb_fail_errno(err, SPB_IO, errno, "cannot make %s to prove KVM", path);
    spb_status status = write_rom(fd, path, rom, err);
    (void)close(fd);
    if (spb_is_ok(status))
        status = run_with_words(proof, path, answer, err);
    (void)unlink(path);
    return status;
}

static spb_status boot_rom(const struct proof *proof, struct spb_kvm_answer *answer,
                           struct spb_error *err)
{
    uint8_t *rom = malloc(SPB_KVM_ROM_BYTES);

    if (rom == NULL)
        return spb_fail_memory(err, "proving KVM");
    if (!spb_kvm_boot_rom(rom)) {
        free(rom);
        say(answer, false, "this is no x86-64");
        return spb_ok();
    }
    spb_status status = boot(proof, rom, answer, err);
    free(rom);
    if (spb_is_ok(status))
        remember(proof, answer);
    return status;
}

/* What there is no need to ask QEMU about. */
static bool is_out_of_question(const struct spb_kvm_question *question, struct proof *proof,
                               struct spb_kvm_answer *answer)
{
    const char *device = question->device == NULL ? DEVICE : question->device;
    struct spb_error why;

    int fd = open(device, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        say(answer, false, "cannot open %s: %s", device, strerrordesc_np(errno));
        return true;
    }
    (void)close(fd);
    if (spb_is_ok(spb_process_find_program(question->program, proof->program, &why)))
        return false;
    say(answer, false, "%.*s", (int)sizeof(answer->reason) - 1, why.text);
    return true;
}

spb_status spb_kvm_prove(const struct spb_kvm_question *question, struct spb_kvm_answer *answer,
                         struct spb_error *err)
{
    struct proof proof = {.question = question,
                          .accel = question->accel == NULL ? ACCEL : question->accel};
    struct spb_kvm_answer found = {.works = false};

    if (!is_out_of_question(question, &proof, &found)) {
        SPB_TRY(make_key(&proof, err));
        if (!recall(&proof, &found))
            SPB_TRY(boot_rom(&proof, &found, err));
    }
    *answer = found;
    return spb_ok();
}
