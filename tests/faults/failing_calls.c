/* Preloaded: calls of the data file's can be counted, made to fail, and made slow.
 *
 * Only calls on files named *.mdb or perdure.lock, and on directories named data, count: the
 * interpreter's own go their way. A test says by faults_arm() which calls count, from which one on they fail, how many of them, and how.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static struct {
    char calls[128]; /* " name name ", or "" for none */
    int first, count, code;
    int seen, failed;
    int sync_ms;
    char failed_call[32]; /* the first that failed */
} faults;

/* Calls named in *calls* (separated by blanks) fail with *code*: *count* of them from the *first* on. */
void faults_arm(const char *calls, int first, int count, int code) {
    snprintf(faults.calls, sizeof faults.calls, " %s ", calls);
    faults.first = first, faults.count = count, faults.code = code;
    faults.seen = faults.failed = 0;
    faults.failed_call[0] = 0;
}

int faults_seen(void) { return faults.seen; }
int faults_failed(void) { return faults.failed; }
const char *faults_failed_call(void) { return faults.failed_call; }
void faults_slow_syncs(int sync_ms) { faults.sync_ms = sync_ms; }

/* In a program that knows nothing of this library, the environment says it. */
__attribute__((constructor)) static void from_environment(void) {
    const char *sync_ms = getenv("FAULTS_SYNC_MS");
    if (sync_ms != NULL) {
        faults.sync_ms = atoi(sync_ms);
    }
}

static int is_ours(const char *path) {
    const char *end = path + strlen(path);
    return (end - path >= 4 && strcmp(end - 4, ".mdb") == 0) ||
           (end - path >= 5 && strcmp(end - 5, "/data") == 0) ||
           strstr(path, "perdure.lock") != NULL;
}

static int is_ours_fd(int fd) {
    char link[64], path[4096];
    int saved = errno;
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) {
        return 0;
    }
    path[length] = 0;
    return is_ours(path);
}

static int fails(const char *call, int ours) {
    char word[40];
    int number;
    snprintf(word, sizeof word, " %s ", call);
    if (faults.calls[0] == 0 || strstr(faults.calls, word) == NULL || !ours) {
        return 0;
    }
    number = ++faults.seen;
    if (number < faults.first || number >= faults.first + faults.count) {
        return 0;
    }
    if (faults.failed++ == 0) {
        snprintf(faults.failed_call, sizeof faults.failed_call, "%s", call);
    }
    errno = faults.code;
    return 1;
}

int fdatasync(int fd) {
    if (faults.sync_ms != 0 && is_ours_fd(fd)) {
        usleep(faults.sync_ms * 1000);
    }
    return fails("fdatasync", is_ours_fd(fd)) ? -1 : NEXT(fdatasync)(fd);
}

int fsync(int fd) { return fails("fsync", is_ours_fd(fd)) ? -1 : NEXT(fsync)(fd); }

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails("pwrite", is_ours_fd(fd)) ? -1 : NEXT(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

ssize_t pread(int fd, void *data, size_t size, off_t at) {
    return fails("pread", is_ours_fd(fd)) ? -1 : NEXT(pread)(fd, data, size, at);
}
ssize_t pread64(int fd, void *data, size_t size, off_t at) { return pread(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails("writev", is_ours_fd(fd)) ? -1 : NEXT(writev)(fd, parts, count);
}

int ftruncate(int fd, off_t size) {
    return fails("ftruncate", is_ours_fd(fd)) ? -1 : NEXT(ftruncate)(fd, size);
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int fstat(int fd, struct stat *status) {
    return fails("fstat", is_ours_fd(fd)) ? -1 : NEXT(fstat)(fd, status);
}
int fstat64(int fd, struct stat64 *status) {
    return fails("fstat", is_ours_fd(fd)) ? -1 : NEXT(fstat64)(fd, status);
}
int __fxstat(int version, int fd, struct stat *status) {
    (void)version;
    return fstat(fd, status);
}
int __fxstat64(int version, int fd, struct stat64 *status) {
    (void)version;
    return fstat64(fd, status);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t at) {
    int ours = fd >= 0 && is_ours_fd(fd);
    return fails("mmap", ours) ? MAP_FAILED : NEXT(mmap)(address, size, protection, flags, fd, at);
}
void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t at) {
    return mmap(address, size, protection, flags, fd, at);
}

int flock(int fd, int operation) {
    return fails("flock", is_ours_fd(fd)) ? -1 : NEXT(flock)(fd, operation);
}

int fcntl(int fd, int command, ...) {
    void *argument;
    va_list list;
    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    return fails("fcntl", is_ours_fd(fd)) ? -1 : NEXT(fcntl)(fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
    void *argument;
    va_list list;
    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    return fcntl(fd, command, argument);
}

int open(const char *path, int flags, ...) {
    int mode;
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, int);
    va_end(list);
    return fails("open", is_ours(path)) ? -1 : NEXT(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    int mode;
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, int);
    va_end(list);
    return open(path, flags | O_LARGEFILE, mode);
}
