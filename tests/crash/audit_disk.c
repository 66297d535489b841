/* A disk that fails, dies or loses power under SQLite; see audit_disk.h. */
#include "crash/audit_disk.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/random.h"

#define PAGE 4096
#define SECTOR 512
#define PAGES_MAX 8192 /* of a file: 32 MiB */
#define FILES_MAX 8
#define NAME_SIZE 64
#define PATH_SIZE 512

struct file {
    char name[NAME_SIZE]; /* "": free */
    uint8_t dirty[PAGES_MAX];
};

/* Shared by parent and child. */
static struct disk {
    pthread_mutex_t lock;
    struct disk_plan plan;
    uint64_t count, struck;
    struct file files[FILES_MAX];
} * disk;

static char folder[PATH_SIZE];

static void fail_hard(const char *what)
{
    perror(what);
    abort();
}

static void real_function(const char *name, void *out)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (found == NULL)
        fail_hard(name);
    memcpy(out, &found, sizeof found);
}

static ssize_t real_pwrite(int fd, const void *data, size_t n, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);

    if (real == NULL)
        real_function("pwrite64", &real);
    return real(fd, data, n, at);
}

/* ---- What is watched ---------------------------------------------------------------------- */

/* Its name within the folder; NULL: it is not watched, as is what SQLite only keeps in memory. */
static const char *name_in_folder(const char *path)
{
    size_t n = strlen(folder), length = strlen(path);

    if (disk == NULL || n == 0 || strncmp(path, folder, n) != 0 || path[n] != '/')
        return NULL;
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0)
        return NULL;
    return strchr(path + n + 1, '/') == NULL ? path + n + 1 : NULL;
}

static struct file *find(const char *name)
{
    struct file *spare = NULL;

    for (size_t i = 0; i < FILES_MAX; i++) {
        if (strcmp(disk->files[i].name, name) == 0)
            return &disk->files[i];
        if (disk->files[i].name[0] == '\0')
            spare = &disk->files[i];
    }
    if (spare == NULL || strlen(name) >= NAME_SIZE)
        fail_hard("too many files");
    (void)snprintf(spare->name, sizeof spare->name, "%s", name);
    return spare;
}

/* The file of a descriptor; NULL: it is not watched. */
static struct file *file_of(int fd)
{
    char link[64], path[PATH_SIZE];

    if (disk == NULL)
        return NULL;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return NULL;
    path[n] = '\0';
    const char *name = name_in_folder(path);
    return name == NULL ? NULL : find(name);
}

static void lock_disk(void)
{
    if (pthread_mutex_lock(&disk->lock) != 0)
        fail_hard("locking");
}

static void unlock_disk(void)
{
    (void)pthread_mutex_unlock(&disk->lock);
}

/* Under the lock. Does the plan strike this call? */
static bool strikes(enum disk_calls calls)
{
    const struct disk_plan *plan = &disk->plan;

    if ((plan->calls & calls) == 0 || (plan->action == DISK_IS_FULL && calls != DISK_WRITES) ||
        (plan->action == DISK_DROPS && calls != DISK_FLUSHES))
        return false;
    disk->count++;
    if (plan->at == 0 || disk->count < plan->at || disk->count >= plan->at + plan->times)
        return false;
    disk->struck++;
    return true;
}

static void die(void)
{
    (void)kill(getpid(), SIGKILL);
    for (;;)
        (void)pause();
}

/* ---- Calls -------------------------------------------------------------------------------- */

static void mark(struct file *file, off64_t at, size_t n)
{
    for (off64_t page = at / PAGE; page * PAGE < at + (off64_t)n; page++) {
        if (page >= PAGES_MAX)
            fail_hard("a file is too long for this disk");
        file->dirty[page] = 1;
    }
}

static ssize_t struck_write(struct file *file, int fd, const void *data, size_t n, off64_t at)
{
    enum disk_action action = disk->plan.action;

    mark(file, at, n);
    (void)!real_pwrite(fd, data, action == DISK_DIES_AFTER ? n : n / 2, at);
    if (action == DISK_DIES || action == DISK_DIES_AFTER)
        die();
    errno = action == DISK_IS_FULL ? ENOSPC : EIO;
    return -1;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    struct file *file = file_of(fd);
    ssize_t written;

    if (file == NULL)
        return real_pwrite(fd, data, n, at);
    lock_disk();
    if (strikes(DISK_WRITES)) {
        written = struck_write(file, fd, data, n, at);
    } else {
        mark(file, at, n);
        written = real_pwrite(fd, data, n, at);
    }
    int number = errno;
    unlock_disk();
    errno = number;
    return written;
}

static int open_kept(const char *name, int flags)
{
    char path[PATH_SIZE + NAME_SIZE + 8];

    (void)snprintf(path, sizeof path, "%s/kept/%s", folder, name);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0 && (flags & O_CREAT) != 0)
        fail_hard(path);
    return fd;
}

/* The pages written since go to the medium. */
static void keep(struct file *file, int fd)
{
    int kept = open_kept(file->name, O_RDWR | O_CREAT);
    uint8_t page[PAGE];
    struct stat st;

    if (fstat(fd, &st) != 0 || ftruncate(kept, st.st_size) != 0)
        fail_hard("keeping");
    for (off64_t i = 0; i < PAGES_MAX; i++) {
        if (file->dirty[i] == 0)
            continue;
        file->dirty[i] = 0;
        ssize_t n = pread(fd, page, PAGE, i * PAGE);
        if (n < 0 || real_pwrite(kept, page, (size_t)n, i * PAGE) != n)
            fail_hard("keeping");
    }
    (void)close(kept);
}

int fdatasync(int fd)
{
    struct file *file = file_of(fd);
    int result = 0;

    if (file == NULL)
        return fsync(fd);
    lock_disk();
    bool struck = strikes(DISK_FLUSHES);
    if (struck && disk->plan.action == DISK_DIES)
        die();
    if (struck && disk->plan.action != DISK_DIES_AFTER) {
        memset(file->dirty, 0, sizeof file->dirty);
        result = -1;
    } else {
        keep(file, fd);
    }
    if (struck && disk->plan.action != DISK_FAILS)
        die();
    unlock_disk();
    if (result != 0)
        errno = EIO;
    return result;
}

int ftruncate64(int fd, off64_t size)
{
    static int (*real)(int, off64_t);
    struct file *file = file_of(fd);

    if (real == NULL)
        real_function("ftruncate64", &real);
    if (file == NULL)
        return real(fd, size);
    lock_disk();
    bool struck = strikes(DISK_WRITES);
    if (struck && disk->plan.action == DISK_DIES)
        die();
    int result = struck && disk->plan.action != DISK_DIES_AFTER ? -1 : real(fd, size);
    if (struck && disk->plan.action == DISK_DIES_AFTER)
        die();
    unlock_disk();
    if (struck)
        errno = EIO;
    return result;
}

/* SQLite flushes the folder before it relies on this. */
int unlink(const char *path)
{
    static int (*real)(const char *);
    const char *name = name_in_folder(path);
    char kept[PATH_SIZE + NAME_SIZE + 8];

    if (real == NULL)
        real_function("unlink", &real);
    if (name != NULL) {
        lock_disk();
        struct file *file = find(name);
        memset(file, 0, sizeof *file);
        (void)snprintf(kept, sizeof kept, "%s/kept/%s", folder, name);
        (void)real(kept);
        unlock_disk();
    }
    return real(path);
}

/* ---- The test's side ---------------------------------------------------------------------- */

static void unlock_anew(void)
{
    pthread_mutexattr_t shared;

    if (pthread_mutexattr_init(&shared) != 0 ||
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED) != 0 ||
        pthread_mutex_init(&disk->lock, &shared) != 0)
        fail_hard("making a lock");
    (void)pthread_mutexattr_destroy(&shared);
}

void disk_init(const char *path)
{
    char kept[PATH_SIZE + 8];

    (void)snprintf(folder, sizeof folder, "%s", path);
    (void)snprintf(kept, sizeof kept, "%s/kept", path);
    if (mkdir(kept, 0700) != 0 && errno != EEXIST)
        fail_hard(kept);
    void *memory =
        mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail_hard("sharing memory");
    disk = memory;
    unlock_anew();
}

/* Calls take(name) for each file of the folder that is watched, or of those kept. */
static void for_each(const char *below, void (*take)(const char *name))
{
    char path[PATH_SIZE + 8];

    (void)snprintf(path, sizeof path, "%s%s", folder, below);
    DIR *dir = opendir(path);
    if (dir == NULL)
        fail_hard(path);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_type == DT_REG)
            take(entry->d_name);
    }
    (void)closedir(dir);
}

static int open_real(const char *name, int flags)
{
    char path[PATH_SIZE + NAME_SIZE];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        fail_hard(path);
    return fd;
}

static void remove_kept(const char *name)
{
    char path[PATH_SIZE + NAME_SIZE + 8];

    (void)snprintf(path, sizeof path, "%s/kept/%s", folder, name);
    (void)remove(path);
}

static void remove_real(const char *name)
{
    char path[PATH_SIZE + NAME_SIZE];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    (void)remove(path);
}

static void copy(int from, int to)
{
    uint8_t page[PAGE];
    off64_t at = 0;
    ssize_t n;

    if (ftruncate(to, 0) != 0)
        fail_hard("copying");
    while ((n = pread(from, page, PAGE, at)) > 0) {
        if (real_pwrite(to, page, (size_t)n, at) != n)
            fail_hard("copying");
        at += n;
    }
    if (n < 0)
        fail_hard("copying");
}

static void keep_whole(const char *name)
{
    int from, to;

    if (strlen(name) > 4 && strcmp(name + strlen(name) - 4, "-shm") == 0)
        return;
    from = open_real(name, O_RDONLY);
    to = open_kept(name, O_RDWR | O_CREAT);
    copy(from, to);
    (void)close(from);
    (void)close(to);
}

void disk_settle(void)
{
    memset(disk, 0, sizeof *disk);
    unlock_anew();
    for_each("/kept", remove_kept);
    for_each("", keep_whole);
}

void disk_plan(const struct disk_plan *plan)
{
    lock_disk();
    disk->plan = *plan;
    disk->count = 0;
    disk->struck = 0;
    unlock_disk();
}

void disk_revive(void)
{
    unlock_anew();
    disk->plan.at = 0;
}

uint64_t disk_count(void)
{
    return disk->count;
}

uint64_t disk_struck(void)
{
    return disk->struck;
}

/* Puts some of the sectors that were not flushed over what was. */
static void survive(const struct file *file, int real, int kept, uint64_t *random)
{
    uint8_t sector[SECTOR];

    for (off64_t i = 0; i < PAGES_MAX; i++) {
        for (off64_t j = 0; j < PAGE / SECTOR && file->dirty[i] != 0; j++) {
            off64_t at = i * PAGE + j * SECTOR;
            ssize_t n = random_below(random, 2) == 0 ? 0 : pread(real, sector, SECTOR, at);

            if (n < 0 || real_pwrite(kept, sector, (size_t)n, at) != n)
                fail_hard("surviving");
        }
    }
}

void disk_lose_power(uint64_t seed)
{
    uint64_t random = seed;

    for (size_t i = 0; i < FILES_MAX; i++) {
        const struct file *file = &disk->files[i];

        if (file->name[0] == '\0')
            continue;
        int real = open_real(file->name, O_RDWR | O_CREAT);
        int kept = open_kept(file->name, O_RDWR | O_CREAT);
        if (seed != 0)
            survive(file, real, kept, &random);
        copy(kept, real);
        (void)close(real);
        (void)close(kept);
    }
    disk_settle();
}

static void remove_shm(const char *name)
{
    if (strlen(name) > 4 && strcmp(name + strlen(name) - 4, "-shm") == 0)
        remove_real(name);
}

void disk_clear(void)
{
    for_each("", remove_shm);
    for_each("", remove_real);
    for_each("/kept", remove_kept);
    memset(disk, 0, sizeof *disk);
    unlock_anew();
}
