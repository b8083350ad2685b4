# The Environment class: checks arguments, calls the C core, turns codes into exceptions.

cdef set open_files = set()              # (device, inode) of each: LMDB forbids opening one twice
cdef object open_environments = weakref.WeakSet()
cdef object opening = threading.Lock()   # held from the look at `open_files` to the entry in it


def _after_fork_in_child():
    # The child has no writer threads and must not touch the parent's environments, but may open
    # files of its own.
    global opening
    open_files.clear()
    open_environments.clear()
    opening = threading.Lock()


@atexit.register
def _close_all():
    """Commit what is sealed: the writer is a C thread, which the interpreter does not join."""
    with contextlib.ExitStack() as stack:
        for environment in list(open_environments):
            stack.callback(environment.close)


os.register_at_fork(after_in_child=_after_fork_in_child)
pthread_atfork(NULL, NULL, count_fork)


@cython.final
cdef class Environment(Queries):
    """One LMDB environment with its writer thread. Any thread may use it; a forked child may not.

    Args:
      path: Directory, which must exist.
      databases: Names; everywhere else a database is its position in them. If the first is
        ``meta``, its row ``file_size`` follows the size of the file.
      map_size: Bytes of address space; doubled whenever they run out.
      durability: 0: a commit survives power loss. 1: a killed process. 2: nothing.
      read_only: Open for reading; there is no writer thread, and nothing is written, LMDB's lock
        file not either. So nobody may write meanwhile: the caller sees to that.

    Raises:
      StoreCorrupt: The file is no LMDB file, or shorter than recorded.
      StoreError: It cannot be opened; the text says why.
    """

    def __cinit__(
        self, str path not None, *, databases, size_t map_size=1 << 40, int durability,
        bint read_only=False
    ):
        cdef Core* core
        cdef const char* names[DATABASES_MAX]
        cdef int code, index
        cdef const char* c_path
        self.closed = True
        self.path = path
        self.names = tuple(databases)
        if not 0 < len(self.names) <= DATABASES_MAX or len(set(self.names)) != len(self.names):
            raise ValueError(f"databases are 1 to {DATABASES_MAX} different names")
        if durability not in (DURABILITY_FSYNC, DURABILITY_OS, DURABILITY_MEMORY):
            raise ValueError("durability is 0 (fsync), 1 (os) or 2 (memory)")
        encoded_path = os.fsencode(path)
        encoded = [name.encode() for name in self.names]
        if b"" in encoded or b"\0" in b"".join([encoded_path, *encoded]):
            raise ValueError("a path or the name of a database is empty or has a zero byte in it")
        c_path = encoded_path
        for index in range(<int>len(encoded)):
            names[index] = <bytes>encoded[index]
        if map_size < MAP_BYTES_MIN:
            map_size = MAP_BYTES_MIN
        map_size = (map_size + 0xFFFF) & ~<size_t>0xFFFF

        core = self.core = <Core*>calloc(1, sizeof(Core))
        if core == NULL:
            raise MemoryError("no memory for an environment")
        core.databases = <int>len(encoded)
        core.has_meta = self.names[0] == "meta" and not read_only
        core.durability = durability
        core.linger = (os.cpu_count() or 1) > 1  # with one processor it would only be in the way
        core.read_only = read_only
        core.owner_pid = getpid()
        core.fork_generation = fork_generation
        core.events[0] = core.events[1] = core.copy_fd = -1
        with opening:
            if self._identify() in open_files:
                raise StoreError(f"{path} is already open in this process; use that environment")
            with nogil:
                code = core_open(core, c_path, map_size, names)
                if code == 0 and not core.read_only:
                    code = core_start_writer(core)
                if code != 0:
                    core_close(core, STOP_AND_DROP)
            if code != 0:
                self._raise_at_open(code)
            # The file, not the directory: while it is open, its number is not given to another.
            self.identity = self._identify()
            self.closed = False
            open_files.add(self.identity)
            open_environments.add(self)

    cdef object _identify(self):
        try:
            status = os.stat(os.path.join(self.path, "data.mdb"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot open {self.path}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    cdef int _raise_at_open(self, int code) except -1:
        if code == ERR_FILE_SHORT:
            raise StoreCorrupt(
                f"{self.path}: data.mdb has {self.core.observed_size} bytes, but had "
                f"{self.core.recorded_size} when it was last written; restore it from a backup"
            )
        if code == MDB_NOTFOUND:
            raise StoreError(f"cannot open {self.path}: a database is missing")
        if code == ENOMEM:               # of the address space: little else is asked for
            raise StoreError(f"cannot open {self.path}: {strerror(code)}{remedy_for(code)}")
        raise_for_code(code, f"cannot open {self.path}")

    def __dealloc__(self):
        if self.core == NULL or self.core.fork_generation != fork_generation:
            return                       # in a forked child: the memory is the parent's business
        if not self.closed:
            with nogil:
                core_close(self.core, STOP_AND_FLUSH)
            open_files.discard(self.identity)
        core_free(self.core)

    cdef Core* _writing(self) except NULL:
        cdef Core* core = self._live()
        if core.read_only:
            raise StoreError(f"{self.path} is open for reading only")
        if core.encoding:
            raise RuntimeError("the open unit was used while put_entries was adding to it")
        return core

    cdef int _raise_failed(self) except -1:
        self.reported = True
        raise StoreBroken(f"{self.path}: {self._failure_text()}")

    cdef str _failure_text(self):
        cdef int code = self.core.failure
        if code == 0:
            return None
        return (
            f"the commit after unit {self.core.committed} failed: {strerror(code)}"
            f"{remedy_for(code)}. "
            "Whether it landed is unknown; nothing more is written until the directory is opened "
            "again"
        )

    cdef int _append(self, int op, int db, bytes key, const char* value, size_t size) except -1:
        cdef Core* core = self.core
        cdef Buffer* unit = &core.open_unit
        cdef OpHeader header
        cdef size_t key_length = <size_t>len(key)
        cdef uint8_t* pos
        if buffer_reserve(unit, OP_HEADER_BYTES + key_length + size) != 0:
            raise MemoryError("no memory for the open unit")
        header.op = <uint8_t>op
        header.db = <uint8_t>db
        header.key_length = <uint16_t>key_length
        header.value_length = <uint32_t>size
        pos = unit.data + unit.length
        memcpy(pos, &header, OP_HEADER_BYTES)
        memcpy(pos + OP_HEADER_BYTES, <const char*>key, key_length)
        if size != 0:
            memcpy(pos + OP_HEADER_BYTES + key_length, value, size)
        unit.length += OP_HEADER_BYTES + key_length + size
        core.open_ops += 1
        return 0

    def put(self, int db, bytes key not None, bytes value not None):
        """Add to the open unit: *key*, 1 to 511 bytes, gets *value*, up to 1 GiB."""
        self._writing()
        self._check_row(db, key, len(value))
        self._append(OP_PUT, db, key, value, len(value))

    def delete(self, int db, bytes key not None):
        """Add to the open unit: *key* goes. If it is absent then, nothing happens."""
        self._writing()
        self._check_row(db, key, 0)
        self._append(OP_DELETE, db, key, NULL, 0)

    def put_entries(self, int db, bytes key not None, entries):
        """Add to the open unit: *key* gets the chunk of *entries*; on error nothing is added."""
        cdef Core* core = self._writing()
        cdef Buffer* unit = &core.open_unit
        cdef size_t mark, start, size
        cdef uint32_t value_length
        self._check_row(db, key, 0)
        items = PySequence_Fast(entries, "entries is a sequence of tuples")
        self._writing()                  # making a list of them ran the caller's code
        mark = unit.length
        self._append(OP_PUT, db, key, NULL, 0)
        start = unit.length
        core.encoding = True
        try:
            encode_chunk(unit, items)
            size = unit.length - start
            if size > VALUE_BYTES_MAX:
                raise ValueError(f"a value has at most {VALUE_BYTES_MAX} bytes, not {size}")
            value_length = <uint32_t>size
            # The header's first field, copied: the address may be odd, where a store through a
            # pointer to OpHeader is undefined.
            memcpy(unit.data + mark, &value_length, sizeof(uint32_t))
        except BaseException:
            unit.length = mark
            core.open_ops -= 1
            raise
        finally:
            core.encoding = False

    def seal(self):
        """Close the open unit and hand it to the writer; return its number, counted from 1.

        An empty unit is not handed over: the number of the last sealed one is returned.

        Raises:
          StoreBroken: A commit has failed; the open unit stays as it is.
        """
        cdef Core* core = self._writing()
        cdef uint64_t unit = 0
        cdef int code = core_seal(core, &unit)
        if code == ERR_FAILED:
            self._raise_failed()
        if code != 0:
            raise_for_code(code, f"{self.path}: a unit cannot be sealed")
        return unit

    def batch(self, bint begins):
        """Have units that are sealed from now on wait for ``batch(False)``, which sends them.

        Without, each is sent when it is sealed. The writer may take them earlier, and does when
        somebody waits for one.
        """
        core_batch(self._writing(), begins)

    def discard(self):
        """Drop the operations of the open unit."""
        cdef Core* core = self._writing()
        core.open_unit.length = 0
        core.open_ops = 0

    @property
    def sealed(self):
        """Number of the last sealed unit, 0 at first."""
        return perdure_load(&self._live().sealed)

    @property
    def committed(self):
        """Number of the last committed unit, 0 at first."""
        return perdure_load(&self._live().committed)

    @property
    def uncommitted_bytes(self):
        """Bytes sealed and not yet committed."""
        return perdure_load(&self._live().queued_bytes)

    @property
    def open_bytes(self):
        """Bytes in the open unit."""
        return self._live().open_unit.length

    @property
    def failure(self):
        """What stopped the writer for good, or None."""
        self._live()
        return self._failure_text()

    def fileno(self):
        """A descriptor that becomes readable after each commit and on failure."""
        return self._live().events[0]

    def clear_event(self):
        """Make :meth:`fileno` unreadable until the next commit."""
        perdure_event_clear(self._live().events[0])

    def wait(self, uint64_t unit, timeout=None):
        """Block until *unit* is committed (True) or *timeout* seconds have passed (False).

        Raises:
          StoreBroken: A commit has failed. StoreClosed: Another thread closed the environment.
          ValueError: *unit* was never sealed.
        """
        cdef Core* core = self._live()
        cdef timespec now
        cdef int64_t deadline = 0, left = 100_000_000
        cdef int code
        if unit > core.sealed:
            raise ValueError(f"unit {unit} is not sealed")
        if timeout is not None:
            clock_gettime(CLOCK_MONOTONIC, &now)
            deadline = now.tv_sec * 1_000_000_000 + now.tv_nsec
            deadline += <int64_t>(max(0.0, min(timeout, 1e9)) * 1e9)
        while True:
            if timeout is not None:
                clock_gettime(CLOCK_MONOTONIC, &now)
                left = deadline - now.tv_sec * 1_000_000_000 - now.tv_nsec
                left = max(0, min(left, 100_000_000))
            with nogil:
                code = core_wait(core, unit, left)
            if code == ERR_FAILED:
                self._raise_failed()
            if code < 0:
                raise_for_code(code, self.path)
            if code == 1 or (timeout is not None and left == 0):
                return code == 1
            PyErr_CheckSignals()         # the wait is sliced so that Ctrl-C ends it

    def close(self, *, bint flush=True):
        """Commit what is sealed (or drop it), end the writer, close the file. Idempotent.

        Raises:
          StoreBroken: A sealed unit could not be committed, and no call has said so before.
        """
        cdef int how = STOP_AND_FLUSH if flush else STOP_AND_DROP
        cdef Core* core = self.core
        if self.closed and core.fork_generation == fork_generation:
            return
        self._live()
        self.closed = True
        with nogil:
            core_close(core, how)
        open_files.discard(self.identity)
        open_environments.discard(self)
        if flush and core.failure != 0 and not self.reported:
            self._raise_failed()

    def sync(self):
        """Bring everything committed to the disk, whatever the durability."""
        cdef Core* core = self._live()
        cdef int code
        with nogil:
            pthread_mutex_lock(&core.read_lock)
            code = api.env_sync(core.env, 1) if core.env != NULL else ERR_CLOSED
            pthread_mutex_unlock(&core.read_lock)
        if code != 0:
            raise_for_code(code, f"{self.path}: sync")

    @property
    def file_bytes(self):
        """How long the file is."""
        cdef int fd = -1
        raise_for_code(api.env_get_fd(self._live().env, &fd), self.path)
        return os.fstat(fd).st_size

    def copy(self, int fd):
        """Write a copy of one committed snapshot, without unused pages, to the file *fd*.

        Commits and reads go on meanwhile; only growth of the map waits. Closing stops it, as
        :meth:`stop_copy` does: then *fd* can not be written to any more. One at a time.

        Raises:
          StoreClosed: It was stopped. StoreError: It could not be written, or not be read.
        """
        cdef Core* core = self._live()
        cdef int code
        with nogil:
            code = core_copy(core, fd)
        if code != 0:
            raise_for_code(code, f"{self.path}: copy")

    def stop_copy(self):
        """Have the copy that is being made, if there is one, fail soon."""
        cdef Core* core = self._live()
        with nogil:
            pthread_mutex_lock(&core.read_lock)
            core_stop_copy(core)
            pthread_mutex_unlock(&core.read_lock)
