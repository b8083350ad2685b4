# The whole C surface of perdure._journal: what is taken from outside, then what the parts share.
#
# Three layers. The C core (`noexcept nogil`) returns int codes; `raise_for_code` alone turns a code
# into an exception; the `def` methods check their arguments and call the other two.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


# ---- the operating system ------------------------------------------------------------------------

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t*, const void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, const void*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_atfork(void (*)() noexcept nogil, void (*)() noexcept nogil,
                       void (*)() noexcept nogil)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME, CLOCK_MONOTONIC
    int clock_gettime(int, timespec*)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t*)
    int pthread_sigmask(int, const sigset_t*, sigset_t*)

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_NOW, RTLD_LOCAL
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    char* dlerror()

cdef extern from "<sys/stat.h>" nogil:
    cdef struct stat_t "stat":
        int64_t st_size
    int fstat(int, stat_t*)

cdef extern from "<unistd.h>" nogil:
    int getpid()
    int dup2(int, int)
    int close_file "close" (int)

cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_CLOEXEC
    int open_file "open" (const char*, int)

cdef extern from "platform.h" nogil:
    uint64_t perdure_load(const uint64_t*)
    void perdure_store(uint64_t*, uint64_t)
    void perdure_pause()
    int perdure_event_open(int*)
    void perdure_event_close(int*)
    void perdure_event_signal(int)
    void perdure_event_clear(int)
    void perdure_name_thread()
    uint32_t perdure_crc_hardware(uint32_t, const uint8_t*, size_t)
    int perdure_crc_has_hardware()


# ---- CPython, with borrowed pointers: no reference counting in the codec's loops -----------------

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    ctypedef struct PyTypeObject:
        PyObject* (*tp_alloc)(PyTypeObject*, Py_ssize_t) except NULL
    bint PyTuple_Check(PyObject*)
    bint PyLong_Check(PyObject*)
    bint PyUnicode_Check(PyObject*)
    bint PyBytes_Check(PyObject*)
    Py_ssize_t PyTuple_GET_SIZE(PyObject*)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    void PyTuple_SET_ITEM(PyObject*, Py_ssize_t, PyObject*)
    PyObject* PySequence_Fast_GET_ITEM(PyObject*, Py_ssize_t)
    Py_ssize_t PySequence_Fast_GET_SIZE(PyObject*)
    object PySequence_Fast(object, const char*)
    unsigned long long PyLong_AsUnsignedLongLong(PyObject*) except? <unsigned long long>-1
    PyObject* PyLong_FromUnsignedLongLong(unsigned long long) except NULL
    const char* PyUnicode_AsUTF8AndSize(PyObject*, Py_ssize_t*) except NULL
    PyObject* PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*) except NULL
    char* PyBytes_AS_STRING(PyObject*)
    Py_ssize_t PyBytes_GET_SIZE(PyObject*)
    PyObject* PyBytes_FromStringAndSize(const char*, Py_ssize_t) except NULL
    list PyList_New(Py_ssize_t)
    void PyList_SET_ITEM(list, Py_ssize_t, PyObject*)
    PyObject* PyTuple_New(Py_ssize_t) except NULL
    void Py_INCREF(PyObject*)
    void Py_DECREF(PyObject*)
    int PyErr_CheckSignals() except -1


# ---- LMDB 0.9 ------------------------------------------------------------------------------------

cdef extern from "platform.h":
    ctypedef struct MDB_env:
        pass
    ctypedef struct MDB_txn:
        pass
    ctypedef struct MDB_cursor:
        pass

ctypedef unsigned int MDB_dbi

cdef struct MDB_val:
    size_t mv_size
    void* mv_data

cdef struct MDB_stat:
    unsigned int ms_psize
    unsigned int ms_depth
    size_t ms_branch_pages
    size_t ms_leaf_pages
    size_t ms_overflow_pages
    size_t ms_entries

cdef struct MDB_envinfo:
    void* me_mapaddr
    size_t me_mapsize
    size_t me_last_pgno
    size_t me_last_txnid
    unsigned int me_maxreaders
    unsigned int me_numreaders

cdef enum:
    MDB_CP_COMPACT = 0x1
    MDB_NOSYNC = 0x10000
    MDB_RDONLY = 0x20000
    MDB_NOTLS = 0x200000
    MDB_NOLOCK = 0x400000
    MDB_NORDAHEAD = 0x800000
    MDB_CREATE = 0x40000
    MDB_RESERVE = 0x10000
    MDB_NOTFOUND = -30798
    MDB_PAGE_NOTFOUND = -30797
    MDB_CORRUPTED = -30796
    MDB_PANIC = -30795
    MDB_VERSION_MISMATCH = -30794
    MDB_INVALID = -30793
    MDB_MAP_FULL = -30792
    MDB_MAP_RESIZED = -30785
    # MDB_cursor_op
    MDB_LAST = 6
    MDB_NEXT = 8
    MDB_PREV = 12
    MDB_SET_RANGE = 17

cdef struct Api:
    char* (*version)(int*, int*, int*) noexcept nogil
    char* (*strerror)(int) noexcept nogil
    int (*env_create)(MDB_env**) noexcept nogil
    int (*env_open)(MDB_env*, const char*, unsigned int, unsigned int) noexcept nogil
    void (*env_close)(MDB_env*) noexcept nogil
    int (*env_sync)(MDB_env*, int) noexcept nogil
    int (*env_get_fd)(MDB_env*, int*) noexcept nogil
    int (*env_info)(MDB_env*, MDB_envinfo*) noexcept nogil
    int (*env_copyfd2)(MDB_env*, int, unsigned int) noexcept nogil
    int (*env_set_mapsize)(MDB_env*, size_t) noexcept nogil
    int (*env_set_maxdbs)(MDB_env*, MDB_dbi) noexcept nogil
    int (*reader_check)(MDB_env*, int*) noexcept nogil
    int (*txn_begin)(MDB_env*, MDB_txn*, unsigned int, MDB_txn**) noexcept nogil
    int (*txn_commit)(MDB_txn*) noexcept nogil
    void (*txn_abort)(MDB_txn*) noexcept nogil
    void (*txn_reset)(MDB_txn*) noexcept nogil
    int (*txn_renew)(MDB_txn*) noexcept nogil
    int (*dbi_open)(MDB_txn*, const char*, unsigned int, MDB_dbi*) noexcept nogil
    int (*stat)(MDB_txn*, MDB_dbi, MDB_stat*) noexcept nogil
    int (*get)(MDB_txn*, MDB_dbi, MDB_val*, MDB_val*) noexcept nogil
    int (*put)(MDB_txn*, MDB_dbi, MDB_val*, MDB_val*, unsigned int) noexcept nogil
    int (*delete)(MDB_txn*, MDB_dbi, MDB_val*, MDB_val*) noexcept nogil
    int (*cursor_open)(MDB_txn*, MDB_dbi, MDB_cursor**) noexcept nogil
    void (*cursor_close)(MDB_cursor*) noexcept nogil
    int (*cursor_get)(MDB_cursor*, MDB_val*, MDB_val*, int) noexcept nogil


# ---- codes and limits of our own -----------------------------------------------------------------

cdef enum:
    ERR_NO_MEMORY = -1000
    ERR_CLOSED = -1001
    ERR_FAILED = -1002
    ERR_FILE_SHORT = -1003
    ERR_SNAPSHOT_ENDED = -1006
    ERR_COPYING = -1004
    ERR_COPY_STOPPED = -1005
    ERR_TRUNCATED = -1010
    ERR_NOT_MINIMAL = -1011
    ERR_TOO_BIG = -1012
    ERR_HEADER = -1013
    ERR_COUNT = -1014
    ERR_KIND = -1015
    ERR_PRESENCE = -1016
    ERR_EMPTY_FIELD = -1017
    ERR_TRAILING = -1018
    ERR_UTF8 = -1019
    ERR_CHECKSUM = -1020
    ERR_SHORT_VALUE = -1021

cdef enum:
    HAS_REF = 1
    HAS_NAME = 2
    HAS_PAYLOAD = 4
    HAS_TIME = 8
    HAS_SITE = 16
    PRESENCE_ALL = 31

cdef enum:
    FIELDS = 7
    ENTRY_BYTES_MIN = 3               # kind, flags, presence
    ENTRY_BYTES_FIXED = 40            # more than all of an entry but name and payload can take
    CHECKSUM_BYTES = 4
    KEY_BYTES_MAX = 511
    VALUE_BYTES_MAX = 0x40000000      # 1 GiB
    DATABASES_MAX = 64
    MAP_BYTES_MIN = 0x100000          # 1 MiB: the empty databases fit in it
    BATCH_BYTES_MAX = 0x800000        # 8 MiB of operations in one transaction, or one unit
    BUFFER_KEEP_MAX = 0x1000000       # a buffer larger than 16 MiB is given back after use
    UNIT_HEADER_BYTES = 8
    LINGER_NS = 100000
    OP_HEADER_BYTES = 8

cdef enum:
    OP_PUT = 1
    OP_DELETE = 2

cdef enum:
    RUN = 0
    STOP_AND_FLUSH = 1
    STOP_AND_DROP = 2

cdef enum:
    DURABILITY_FSYNC = 0
    DURABILITY_OS = 1
    DURABILITY_MEMORY = 2


# ---- structures ----------------------------------------------------------------------------------

cdef struct Buffer:
    uint8_t* data
    size_t length
    size_t capacity

cdef struct Reader:
    const uint8_t* start
    const uint8_t* pos
    const uint8_t* end                # one past the last readable byte

cdef struct EntryView:                # pointers into the chunk that was read
    uint64_t kind
    uint64_t flags
    uint64_t presence
    uint64_t ref
    uint64_t time_ms
    uint64_t site
    const uint8_t* name
    size_t name_length
    const uint8_t* payload
    size_t payload_length

cdef struct OpHeader:                 # 8 bytes; key and value follow
    uint32_t value_length
    uint16_t key_length
    uint8_t op
    uint8_t db

cdef struct ScanRange:
    const uint8_t* start
    size_t start_length
    const uint8_t* stop               # NULL: to the end
    size_t stop_length
    size_t limit                      # 0: no limit
    size_t bytes_max
    bint keys_only
    bint reverse

cdef struct SnapshotState:
    MDB_txn* txn                      # NULL once it has ended; guarded by read_lock
    int ended                         # why
    SnapshotState* next

cdef struct Core:
    MDB_env* env                      # NULL once closed; guarded by read_lock
    MDB_dbi dbis[DATABASES_MAX]
    int databases
    bint has_meta                     # database 0 is "meta": it keeps the file size
    int durability
    bint read_only
    int owner_pid
    uint64_t fork_generation          # of the process that opened it
    int events[2]
    Buffer open_unit                  # only Python threads under the GIL touch it
    uint64_t open_ops
    bint encoding                     # put_entries is writing to open_unit
    pthread_mutex_t mutex             # guards the fields from here to `stop`
    pthread_cond_t work
    pthread_cond_t done
    Buffer queue                      # sealed units: u64 length of what follows, operations
    uint64_t sealed                   # last sealed unit; read anywhere
    uint64_t released                 # last unit that the writer has been told to commit
    bint linger                       # the writer looks on for a moment before it sleeps
    bint batching                     # sealing releases nothing: `release` will
    uint64_t committed                # last committed unit; read anywhere
    uint64_t queued_bytes             # sealed and not committed; read anywhere
    int failure                       # 0, or the code that stopped the writer for good
    int stop
    Buffer taken                      # the writer's own
    uint64_t recorded_size            # the writer's own: meta's file_size as committed
    uint64_t observed_size            # the writer's own: size of the file after the last commit
    pthread_t thread
    bint has_thread
    bint has_locks
    pthread_mutex_t read_lock         # held from renew to reset, and while the map grows
    MDB_txn* read_txn
    SnapshotState* snapshots          # those that have not ended; guarded by read_lock
    pthread_cond_t copied             # a copy has ended; under read_lock, as what follows
    int copy_fd                       # where a copy goes to; -1: none is being made
    bint copy_stopped


# ---- functions shared between the parts ----------------------------------------------------------

cdef int raise_for_code(int code, str what) except -1

cdef uint32_t crc_update(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil
cdef uint32_t crc_portable(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil
cdef uint32_t crc_of_row(
    const uint8_t* key, size_t key_length, const uint8_t* value, size_t value_length
) noexcept nogil

cdef int buffer_reserve(Buffer* buffer, size_t more) noexcept nogil
cdef void buffer_free(Buffer* buffer) noexcept nogil
cdef void write_u32(uint8_t* out, uint32_t value) noexcept nogil
cdef void write_u64(uint8_t* out, uint64_t value) noexcept nogil
cdef uint32_t read_u32(const uint8_t* data) noexcept nogil
cdef uint64_t read_u64(const uint8_t* data) noexcept nogil

cdef uint8_t* write_varint(uint8_t* out, uint64_t value) noexcept nogil
cdef int read_varint(Reader* reader, uint64_t most, uint64_t* out) noexcept nogil
cdef int read_field(Reader* reader, const uint8_t** data, size_t* length) noexcept nogil
cdef int read_header(Reader* reader, uint64_t* count) noexcept nogil
cdef int read_entry(Reader* reader, EntryView* entry) noexcept nogil
cdef int encode_chunk(Buffer* out, object entries) except -1
cdef list decode_chunk(const uint8_t* data, size_t length, type make)

cdef int core_seal(Core* core, uint64_t* unit) noexcept nogil
cdef void core_batch(Core* core, bint batching) noexcept nogil
cdef int core_wait(Core* core, uint64_t unit, int64_t timeout_ns) noexcept nogil
cdef int core_start_writer(Core* core) noexcept nogil
cdef void core_stop_writer(Core* core, int how) noexcept nogil
cdef void* writer_main(void* argument) noexcept nogil

cdef int core_open(
    Core* core, const char* path, size_t map_size, const char** names
) noexcept nogil
cdef int grow_map(Core* core, size_t needed) noexcept nogil
cdef int core_refresh_size(Core* core, uint64_t* size) noexcept nogil
cdef void core_close(Core* core, int how) noexcept nogil
cdef void core_free(Core* core) noexcept nogil

cdef int read_begin(Core* core, SnapshotState* snapshot, MDB_txn** txn) noexcept nogil
cdef void read_end(Core* core, SnapshotState* snapshot) noexcept nogil
cdef int core_scan(
    Core* core, SnapshotState* snapshot, int db, const ScanRange* span, Buffer* out
) noexcept nogil
cdef int snapshot_begin(Core* core, SnapshotState* snapshot) noexcept nogil
cdef void snapshot_end(Core* core, SnapshotState* snapshot) noexcept nogil
cdef void end_snapshots(Core* core, int why) noexcept nogil
cdef int core_copy(Core* core, int fd) noexcept nogil
cdef void core_stop_copy(Core* core) noexcept nogil
cdef void wait_for_copy(Core* core) noexcept nogil
