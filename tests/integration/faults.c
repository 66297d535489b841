/*
 * A disk that fails or stalls on demand, preloaded into the daemon (LD_PRELOAD).
 *
 * The file named by SPB_FAULT_FILE holds lines of "OPERATION PATH ACTION [SKIP [COUNT]]": OPERATION
 * is flush (fsync, fdatasync), write (pwrite, pwritev), allocate (fallocate, posix_fallocate), copy
 * (copy_file_range), rename (rename, renameat2: by the new name), folder (mkdir, mkdirat) or watch
 * (epoll_ctl, of a pidfd alone, whose path has "pidfd" in it). PATH is a part of the path of the
 * file that is touched, its end if it ends with $. ACTION is one of
 *
 *   an errno's number  the call fails so, without touching the file
 *   kill               the process ends there
 *   tear=BYTES         so much of a longer write is done, then the process ends
 *   short=BYTES        so much of a longer write or copy is done, and the call says so
 *   a named pipe       the call waits: it opens the pipe for reading, which wakes the test that
 *                      opens it for writing, and goes on once the test closes it
 *
 * The first SKIP calls that a line means go through, and so do those after the next COUNT (0:
 * none). The file is read on each call, so a test changes it at any time (by a rename).
 * SPB_FAULT_TRACE names a file that gets "OPERATION PATH" of each call as it starts.
 *
 * Any thread; keeps no state but the addresses of the real functions, and how many calls were let
 * through since the file was last changed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define RULES_SIZE 4096
#define PATH_SIZE 4096

static void real_function(const char *name, void *out)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (!found)
        abort();
    memcpy(out, &found, sizeof(found));
}

static void path_of(int fd, char path[PATH_SIZE])
{
    char link[64];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_SIZE - 1);
    path[n < 0 ? 0 : n] = '\0';
}

static void trace(const char *operation, const char *path)
{
    const char *file = getenv("SPB_FAULT_TRACE");
    char line[PATH_SIZE + 16];

    if (!file)
        return;
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int n = snprintf(line, sizeof(line), "%s %s\n", operation, path);
    if (fd < 0 || write(fd, line, (size_t)n) != n)
        abort();
    close(fd);
}

static size_t read_rules(char rules[RULES_SIZE])
{
    const char *file = getenv("SPB_FAULT_FILE");
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? 0 : read(fd, rules, RULES_SIZE - 1);

    if (fd >= 0)
        close(fd);
    rules[n < 0 ? 0 : n] = '\0';
    return n < 0 ? 0 : (size_t)n;
}

static void wait_on(const char *pipe)
{
    char byte;
    int fd = open(pipe, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    while (read(fd, &byte, 1) > 0) {
    }
    close(fd);
}

/* Is one more call not among the COUNT after the first SKIP? They count anew with each change of
 * the rules. */
static int let_through(const char *rules, const char *numbers)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char last[RULES_SIZE];
    static int seen;
    int skip = 0, count = 0;

    sscanf(numbers, "%d %d", &skip, &count);

    pthread_mutex_lock(&lock);
    if (strcmp(last, rules) != 0) {
        memcpy(last, rules, RULES_SIZE);
        seen = 0;
    }
    int lets = seen < skip || (count > 0 && seen >= skip + count);
    seen++;
    pthread_mutex_unlock(&lock);
    return lets;
}

static int is_meant(const char *path, const char *where)
{
    size_t n = strlen(where), length = strlen(path);

    if (n > 0 && where[n - 1] == '$')
        return length >= n - 1 && strncmp(path + length - (n - 1), where, n - 1) == 0;
    return strstr(path, where) != NULL;
}

/* What becomes of a call. */
struct fate {
    int number;           /* the errno to fail with; 0: none */
    size_t tear, shorten; /* bytes of a write, then the end, or success; 0: all */
};

static struct fate fault_at(const char *operation, const char *path)
{
    char rules[RULES_SIZE], whole[RULES_SIZE], *next = rules, *line;
    struct fate fate = {0};
    int saved = errno;

    trace(operation, path);
    memset(rules, 0, sizeof(rules));
    read_rules(rules);
    memcpy(whole, rules, sizeof(whole));
    while ((line = strsep(&next, "\n"))) {
        char *what = strsep(&line, " "), *where = strsep(&line, " "), *act = strsep(&line, " ");
        if (!where || !act || strcmp(what, operation) != 0 || !is_meant(path, where))
            continue;
        if (line && let_through(whole, line))
            break;
        if (act[0] == '/')
            wait_on(act);
        else if (strcmp(act, "kill") == 0)
            raise(SIGKILL);
        else if (strncmp(act, "tear=", 5) == 0)
            fate.tear = (size_t)atoi(act + 5);
        else if (strncmp(act, "short=", 6) == 0)
            fate.shorten = (size_t)atoi(act + 6);
        else
            fate.number = atoi(act);
        break;
    }
    errno = saved;
    return fate;
}

static struct fate fault(const char *operation, int fd)
{
    char path[PATH_SIZE];
    int saved = errno;

    path_of(fd, path);
    errno = saved;
    return fault_at(operation, path);
}

static int flush(const char *name, int fd)
{
    int (*real)(int);
    int number = fault("flush", fd).number;

    if (number) {
        errno = number;
        return -1;
    }
    real_function(name, &real);
    return real(fd);
}

int fsync(int fd)
{
    return flush("fsync", fd);
}

int fdatasync(int fd)
{
    return flush("fdatasync", fd);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off64_t);
    struct fate fate = fault("write", fd);

    real_function("pwrite64", &real);
    if (fate.tear > 0 && fate.tear < n) {
        if (real(fd, data, fate.tear, offset) < 0)
            abort();
        raise(SIGKILL);
    }
    if (fate.number > 0) {
        errno = fate.number;
        return -1;
    }
    return real(fd, data, fate.shorten > 0 && fate.shorten < n ? fate.shorten : n, offset);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset)
{
    return pwrite64(fd, data, n, offset);
}

/* At most so much of the first piece. */
static ssize_t pwrite64_through(int fd, const struct iovec *pieces, size_t most, off64_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off64_t);
    size_t n = pieces[0].iov_len < most ? pieces[0].iov_len : most;

    real_function("pwrite64", &real);
    return real(fd, pieces[0].iov_base, n, offset);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off64_t);
    struct fate fate = fault("write", fd);

    if (fate.number > 0) {
        errno = fate.number;
        return -1;
    }
    if (fate.shorten > 0 && count > 0)
        return pwrite64_through(fd, pieces, fate.shorten, offset);
    real_function("pwritev64", &real);
    return real(fd, pieces, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return pwritev64(fd, pieces, count, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t n)
{
    int (*real)(int, int, off64_t, off64_t);
    int number = fault("allocate", fd).number;

    if (number) {
        errno = number;
        return -1;
    }
    real_function("fallocate64", &real);
    return real(fd, mode, offset, n);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    return fallocate64(fd, mode, offset, n);
}

int posix_fallocate64(int fd, off64_t offset, off64_t n)
{
    int (*real)(int, off64_t, off64_t);
    int number = fault("allocate", fd).number;

    if (number)
        return number;
    real_function("posix_fallocate64", &real);
    return real(fd, offset, n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
    return posix_fallocate64(fd, offset, n);
}

int epoll_ctl(int epoll_fd, int what, int fd, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *);
    int saved = errno, number = 0;
    char path[PATH_SIZE];

    path_of(fd, path);
    errno = saved;
    if (what != EPOLL_CTL_DEL && strstr(path, "pidfd"))
        number = fault("watch", fd).number;
    if (number) {
        errno = number;
        return -1;
    }
    real_function("epoll_ctl", &real);
    return real(epoll_fd, what, fd, event);
}

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t n, unsigned flags)
{
    ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
    struct fate fate = fault("copy", to);

    if (fate.number > 0) {
        errno = fate.number;
        return -1;
    }
    real_function("copy_file_range", &real);
    size_t most = fate.shorten > 0 && fate.shorten < n ? fate.shorten : n;
    return real(from, in, to, out, most, flags);
}

int mkdir(const char *path, mode_t mode)
{
    int (*real)(const char *, mode_t);
    int number = fault_at("folder", path).number;

    if (number) {
        errno = number;
        return -1;
    }
    real_function("mkdir", &real);
    return real(path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    int (*real)(int, const char *, mode_t);
    int number = fault_at("folder", path).number;

    if (number) {
        errno = number;
        return -1;
    }
    real_function("mkdirat", &real);
    return real(dir, path, mode);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    int number = fault_at("rename", to).number;

    if (number) {
        errno = number;
        return -1;
    }
    real_function("rename", &real);
    return real(from, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    int (*real)(int, const char *, int, const char *, unsigned);
    int number = fault_at("rename", to).number;

    if (number) {
        errno = number;
        return -1;
    }
    real_function("renameat2", &real);
    return real(from_dir, from, to_dir, to, flags);
}
