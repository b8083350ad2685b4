/* Preloaded: from the FAIL_AFTER-th call on, FAIL_CALL answers with FAIL_ERRNO. Other calls go on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

static int fails(const char *call) {
    static int calls = 0;
    const char *name = getenv("FAIL_CALL");
    if (name == NULL || strcmp(name, call) != 0) {
        return 0;
    }
    if (++calls < atoi(getenv("FAIL_AFTER"))) {
        return 0;
    }
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails("fdatasync") ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    return fails("pwrite") ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t (*real)(int, const struct iovec *, int) =
        (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    return fails("writev") ? -1 : real(fd, parts, count);
}
