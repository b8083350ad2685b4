/* What Cython cannot say: atomics, the event descriptor, the CRC instructions. Our own code. */
#ifndef PERDURE_PLATFORM_H
#define PERDURE_PLATFORM_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

/* LMDB's own types, whose insides nobody looks at. */
typedef struct MDB_env MDB_env;
typedef struct MDB_txn MDB_txn;
typedef struct MDB_cursor MDB_cursor;

static inline uint64_t perdure_load(const uint64_t *cell) {
    return __atomic_load_n(cell, __ATOMIC_ACQUIRE);
}

static inline void perdure_store(uint64_t *cell, uint64_t value) {
    __atomic_store_n(cell, value, __ATOMIC_RELEASE);
}

/* Between two looks at a cell that another processor will write. */
static inline void perdure_pause(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ __volatile__("yield");
#endif
}

/* fds[0] is watched, fds[1] is written; on Linux both are the one eventfd. 0 or an errno. */
static int perdure_event_open(int fds[2]) {
#ifdef __linux__
    fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fds[0] < 0 ? errno : 0;
#else
    if (pipe(fds) != 0) {
        return errno;
    }
    for (int i = 0; i < 2; i++) {
        if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) != 0 || fcntl(fds[i], F_SETFL, O_NONBLOCK) != 0) {
            int code = errno;
            close(fds[0]);
            close(fds[1]);
            fds[0] = fds[1] = -1;
            return code;
        }
    }
    return 0;
#endif
}

static void perdure_event_close(int fds[2]) {
    if (fds[0] >= 0) {
        close(fds[0]);
    }
    if (fds[1] >= 0 && fds[1] != fds[0]) {
        close(fds[1]);
    }
    fds[0] = fds[1] = -1;
}

/* A full pipe or counter is readable already, so EAGAIN loses nothing. */
static void perdure_event_signal(int fd) {
    const uint64_t one = 1;
#ifdef __linux__
    const size_t size = sizeof one;
#else
    const size_t size = 1;
#endif
    while (write(fd, &one, size) < 0 && errno == EINTR) {
    }
}

static void perdure_event_clear(int fd) {
    uint64_t sink[8];
    ssize_t got;
    do {
        got = read(fd, sink, sizeof sink);
    } while ((got < 0 && errno == EINTR) || got == (ssize_t)sizeof sink);
}

static void perdure_name_thread(void) {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "perdure-writer");
#elif defined(__APPLE__)
    pthread_setname_np("perdure-writer");
#endif
}

/* CRC-32C of `size` bytes going on from the raw (uninverted) register `crc`. */
#if defined(__x86_64__) && defined(__GNUC__)

__attribute__((target("sse4.2"))) static uint32_t
perdure_crc_hardware(uint32_t crc, const uint8_t *data, size_t size) {
    uint64_t wide = crc;
    uint64_t word;
    for (; size >= 8; size -= 8, data += 8) {
        memcpy(&word, data, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; size > 0; size--, data++) {
        crc = __builtin_ia32_crc32qi(crc, *data);
    }
    return crc;
}

static int perdure_crc_has_hardware(void) { return __builtin_cpu_supports("sse4.2") != 0; }

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

static uint32_t perdure_crc_hardware(uint32_t crc, const uint8_t *data, size_t size) {
    uint64_t word;
    for (; size >= 8; size -= 8, data += 8) {
        memcpy(&word, data, 8);
        crc = __crc32cd(crc, word);
    }
    for (; size > 0; size--, data++) {
        crc = __crc32cb(crc, *data);
    }
    return crc;
}

static int perdure_crc_has_hardware(void) { return 1; }

#else

static uint32_t perdure_crc_hardware(uint32_t crc, const uint8_t *data, size_t size) {
    (void)data;
    (void)size;
    return crc;
}

static int perdure_crc_has_hardware(void) { return 0; }

#endif
#endif
