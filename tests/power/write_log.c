/* Preloaded: what the process does to files below POWER_ROOT goes to the file POWER_LOG, in order.
 *
 * One lock is held from before each call until it is in the log, so the order of the log is one in
 * which the calls may have happened: what a sync found in the file stands before it. What is written
 * to descriptor 1 goes into the same log, as a mark, and nowhere else: so it is known exactly what
 * had been acknowledged when a call was made. Only the first process is logged, none that it starts.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE, SYNC, ENTER, MOVE, LEAVE, MARK };
enum { DSYNC = 1, DATA_ONLY = 2, DIRECTORY = 4 };

struct record {
    uint32_t kind, flags;
    uint64_t inode, offset, length; /* length: bytes that follow */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;

#define REAL(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWER_LOG");
    if (path != NULL && realpath(getenv("POWER_ROOT"), root) != NULL) {
        root_length = strlen(root);
        log_fd = REAL(int, open, const char *, int, ...)(
            path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    unsetenv("LD_PRELOAD");
}

static void add(struct record record, const struct iovec *parts, int count) {
    struct iovec all[1 + count];
    size_t total = sizeof record;
    all[0] = (struct iovec){&record, sizeof record};
    for (int part = 0; part < count; part++) {
        all[1 + part] = parts[part];
        total += parts[part].iov_len;
    }
    ssize_t (*real)(int, const struct iovec *, int) =
        REAL(ssize_t, writev, int, const struct iovec *, int);
    if (real(log_fd, all, 1 + count) != (ssize_t)total) {
        perror("the log of writes");
        abort();
    }
}

static int below_root(const char *path) {
    return strncmp(path, root, root_length) == 0 && path[root_length] == '/';
}

/* What the file *fd* is called now; 0 if it is none below the root, nor the root itself. */
static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return log_fd >= 0 && (below_root(path) || strcmp(path, root) == 0);
}

static int absolute(int directory, const char *path, char *full) {
    if (path[0] == '/') {
        snprintf(full, PATH_MAX, "%s", path);
        return log_fd >= 0 && below_root(full);
    }
    char parent[PATH_MAX];
    if (directory == AT_FDCWD || !path_of(directory, parent)) {
        return 0; /* the programs that are logged name files by whole paths */
    }
    snprintf(full, PATH_MAX, "%.*s/%.*s", PATH_MAX / 2, parent, PATH_MAX / 2 - 2, path);
    return 1;
}

static uint64_t inode_of(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

static void wrote(int fd, off_t at, const struct iovec *parts, int count, ssize_t size) {
    struct iovec whole[count];
    size_t left = size < 0 ? 0 : (size_t)size;
    int used = 0;
    for (; used < count && left != 0; used++) {
        whole[used] = parts[used];
        if (whole[used].iov_len > left) {
            whole[used].iov_len = left;
        }
        left -= whole[used].iov_len;
    }
    uint32_t flags = fcntl(fd, F_GETFL) & O_DSYNC ? DSYNC : 0;
    if (used != 0) {
        add((struct record){WRITE, flags, inode_of(fd), (uint64_t)at, (uint64_t)size}, whole, used);
    }
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    char path[PATH_MAX];
    struct iovec part = {(void *)data, size};
    pthread_mutex_lock(&lock);
    ssize_t result = REAL(ssize_t, pwrite, int, const void *, size_t, off_t)(fd, data, size, at);
    int code = errno;
    if (path_of(fd, path)) {
        wrote(fd, at, &part, 1, result);
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    ssize_t result = REAL(ssize_t, writev, int, const struct iovec *, int)(fd, parts, count);
    int code = errno;
    if (result > 0 && path_of(fd, path)) {
        wrote(fd, lseek(fd, 0, SEEK_CUR) - result, parts, count, result);
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    if (fd == 1 && log_fd >= 0) {
        pthread_mutex_lock(&lock);
        add((struct record){MARK, 0, 0, 0, size}, &part, 1);
        pthread_mutex_unlock(&lock);
        return (ssize_t)size;
    }
    char path[PATH_MAX];
    if (!path_of(fd, path)) { /* it may block for long, as a pipe does */
        return REAL(ssize_t, write, int, const void *, size_t)(fd, data, size);
    }
    return writev(fd, &part, 1);
}

int ftruncate(int fd, off_t size) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = REAL(int, ftruncate, int, off_t)(fd, size);
    if (result == 0 && path_of(fd, path)) {
        add((struct record){TRUNCATE, 0, inode_of(fd), (uint64_t)size, 0}, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int synced(int fd, int (*real)(int), uint32_t flags) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = real(fd);
    if (result == 0 && path_of(fd, path)) {
        add((struct record){SYNC, flags, inode_of(fd), 0, 0}, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fdatasync(int fd) { return synced(fd, REAL(int, fdatasync, int), DATA_ONLY); }

int fsync(int fd) { return synced(fd, REAL(int, fsync, int), 0); }

static void named(uint32_t kind, uint32_t flags, uint64_t inode, const char *path) {
    struct iovec part = {(void *)path, strlen(path)};
    add((struct record){kind, flags, inode, 0, strlen(path)}, &part, 1);
}

static int opened(int directory, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    struct stat status;
    int (*real)(int, const char *, int, ...) = REAL(int, openat, int, const char *, int, ...);
    if (!(flags & O_CREAT) || !absolute(directory, path, full)) {
        return real(directory, path, flags, mode);
    }
    pthread_mutex_lock(&lock);
    int was_there = stat(full, &status) == 0;
    int fd = real(directory, path, flags, mode);
    int code = errno;
    if (fd >= 0 && !was_there) {
        named(ENTER, 0, inode_of(fd), full);
    } else if (fd >= 0 && flags & O_TRUNC) {
        add((struct record){TRUNCATE, 0, inode_of(fd), 0, 0}, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return fd;
}

#define MODE(last)                        \
    mode_t mode = 0;                      \
    if (flags & (O_CREAT | O_TMPFILE)) {  \
        va_list rest;                     \
        va_start(rest, last);             \
        mode = va_arg(rest, mode_t);      \
        va_end(rest);                     \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE(flags)
    return opened(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE(flags)
    return opened(directory, path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    char full[PATH_MAX];
    struct stat status;
    pthread_mutex_lock(&lock);
    int result = REAL(int, mkdir, const char *, mode_t)(path, mode);
    int code = errno;
    if (result == 0 && absolute(AT_FDCWD, path, full) && stat(full, &status) == 0) {
        named(ENTER, DIRECTORY, status.st_ino, full);
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

int rename(const char *from, const char *to) {
    char names[2][PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = REAL(int, rename, const char *, const char *)(from, to);
    int code = errno;
    if (result == 0 && absolute(AT_FDCWD, from, names[0]) && absolute(AT_FDCWD, to, names[1])) {
        struct iovec parts[2] = {{names[0], strlen(names[0]) + 1}, {names[1], strlen(names[1])}};
        size_t length = parts[0].iov_len + parts[1].iov_len;
        add((struct record){MOVE, 0, 0, 0, length}, parts, 2);
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

int unlinkat(int directory, const char *path, int flags) {
    char full[PATH_MAX];
    pthread_mutex_lock(&lock);
    int result = REAL(int, unlinkat, int, const char *, int)(directory, path, flags);
    int code = errno;
    if (result == 0 && absolute(directory, path, full)) {
        named(LEAVE, 0, 0, full);
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
