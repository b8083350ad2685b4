# What may be asked of an open environment. Environment adds opening, writing and closing.


cdef class Queries:
    """What :class:`Environment` and :class:`Snapshot` share; it is not made by itself."""

    cdef Core* core
    cdef SnapshotState* snapshot          # NULL: each read sees what is committed by then
    cdef readonly str path
    cdef tuple names
    cdef object identity
    cdef bint closed
    cdef bint reported
    cdef object __weakref__

    cdef Core* _live(self) except NULL:
        if self.core.fork_generation != fork_generation:
            raise StoreClosed(
                f"{self.path} was opened by process {self.core.owner_pid}; a forked child cannot "
                "use it: open it after the fork, in one process"
            )
        if self.closed:
            raise StoreClosed(f"{self.path} is closed")
        return self.core

    cdef int _check_row(self, int db, bytes key, size_t value_length) except -1:
        self._check_db(db)
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
        if value_length > VALUE_BYTES_MAX:
            raise ValueError(f"a value has at most {VALUE_BYTES_MAX} bytes, not {value_length}")

    cdef int _check_db(self, int db) except -1:
        if not 0 <= db < self.core.databases:
            raise ValueError(f"there is no database {db}")

    cdef str _where(self, int db, bytes key):
        return f"{self.path}: database {self.names[db]!r}, key {key.hex()}"

    cdef int _check_value(self, int db, bytes key, const uint8_t* value, size_t size) except -1:
        """Check the *size* bytes of a stored value, which end with its checksum."""
        cdef size_t length
        if size < CHECKSUM_BYTES:
            raise_for_code(ERR_SHORT_VALUE, self._where(db, key))
        length = size - CHECKSUM_BYTES
        if read_u32(value + length) != crc_of_row(
            <const uint8_t*><const char*>key, <size_t>len(key), value, length
        ):
            raise_for_code(ERR_CHECKSUM, self._where(db, key))
        return 0

    def get(self, int db, bytes key not None):
        """The committed value of *key*, or None.

        Raises:
          StoreCorrupt: The bytes on the disk do not match their checksum.
        """
        cdef Core* core = self._live()
        cdef MDB_txn* txn = NULL
        cdef MDB_val stored_key, stored
        cdef Buffer copy
        cdef int code
        self._check_row(db, key, 0)
        memset(&copy, 0, sizeof(Buffer))
        stored_key.mv_data = <void*><const char*>key
        stored_key.mv_size = <size_t>len(key)
        # The GIL is kept: a read is short, and whoever holds the lock needs no GIL to let it go.
        code = read_begin(core, self.snapshot, &txn)
        if code == 0:
            code = api.get(txn, core.dbis[db], &stored_key, &stored)
            if code == 0:
                code = buffer_reserve(&copy, stored.mv_size + 1)
            if code == 0:
                memcpy(copy.data, stored.mv_data, stored.mv_size)
                copy.length = stored.mv_size
            read_end(core, self.snapshot)
        if code == MDB_NOTFOUND:
            return None
        try:
            if code != 0:
                raise_for_code(code, self._where(db, key))
            self._check_value(db, key, copy.data, copy.length)
            return <bytes>copy.data[:copy.length - CHECKSUM_BYTES]
        finally:
            buffer_free(&copy)

    cdef list _scan(self, int db, bytes start, bytes stop, ScanRange* span, bint chunks, type make):
        """Scan, then check and build the rows from the copy: plain ones, or journal chunks."""
        cdef Core* core = self._live()
        cdef Buffer out
        cdef const uint8_t* pos
        cdef const uint8_t* end
        cdef size_t key_length, size
        cdef int code
        cdef list rows = []
        self._check_db(db)
        if len(start) > KEY_BYTES_MAX or (stop is not None and len(stop) > KEY_BYTES_MAX):
            raise ValueError(f"a bound has at most {KEY_BYTES_MAX} bytes")
        span.start = <const uint8_t*><const char*>start
        span.start_length = <size_t>len(start)
        span.stop = NULL
        span.stop_length = 0
        if stop is not None:
            span.stop = <const uint8_t*><const char*>stop
            span.stop_length = <size_t>len(stop)
        memset(&out, 0, sizeof(Buffer))
        try:
            with nogil:
                code = core_scan(core, self.snapshot, db, span, &out)
            if code != 0:
                raise_for_code(code, f"{self.path}: scan of {self.names[db]!r}")
            pos = out.data
            end = out.data + out.length
            while pos != end:
                key_length = read_u32(pos)
                size = read_u32(pos + 4)
                key = <bytes>pos[8:8 + key_length]
                pos += 8 + key_length
                if span.keys_only:
                    rows.append(key)
                    continue
                self._check_value(db, key, pos, size)
                if chunks:
                    rows.append(self._chunk(db, key, pos, size - CHECKSUM_BYTES, make))
                else:
                    rows.append((key, <bytes>pos[:size - CHECKSUM_BYTES]))
                pos += size
            return rows
        finally:
            buffer_free(&out)

    cdef tuple _chunk(self, int db, bytes key, const uint8_t* data, size_t size, type make):
        cdef const uint8_t* index
        if len(key) != 20:
            raise StoreCorrupt(f"{self._where(db, key)}: not a journal key; {DAMAGED}")
        index = <const uint8_t*><const char*>key + 16
        try:
            entries = decode_chunk(data, size, make)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{self._where(db, key)}: {error}; {DAMAGED}") from error
        if not entries:                  # a reader goes on behind its last one: it would never end
            raise StoreCorrupt(f"{self._where(db, key)}: a chunk without entries; {DAMAGED}")
        return (
            (<uint32_t>index[0] << 24) | (<uint32_t>index[1] << 16)
            | (<uint32_t>index[2] << 8) | index[3],
            entries,
        )

    def scan(
        self, int db, bytes start not None, bytes stop, *, size_t limit=0,
        size_t bytes_max=262144, bint reverse=False
    ):
        """Committed rows with start <= key < stop (None: to the end), in key order or reverse.

        Ends after *limit* rows (0: no limit) or once *bytes_max* are copied, at least one row: an
        empty list means that there are no more.
        """
        cdef ScanRange span
        span.limit = limit
        span.bytes_max = bytes_max
        span.keys_only = False
        span.reverse = reverse
        return self._scan(db, start, stop, &span, False, None)

    def scan_keys(
        self, int db, bytes start not None, bytes stop, *, size_t limit=0,
        size_t bytes_max=262144, bint reverse=False
    ):
        """As :meth:`scan`, keys only; the values are neither read nor checked."""
        cdef ScanRange span
        span.limit = limit
        span.bytes_max = bytes_max
        span.keys_only = True
        span.reverse = reverse
        return self._scan(db, start, stop, &span, False, None)

    def read_chunks(
        self, int db, bytes prefix not None, uint32_t from_index, make=None,
        *, size_t bytes_max=262144
    ):
        """Committed chunks under prefix (16 bytes) · u32 big-endian index >= *from_index*, decoded.

        Returns (index, entries) pairs, entries being tuples of type *make*; an empty list means
        that there are no more.
        """
        cdef ScanRange span
        if len(prefix) != 16:
            raise ValueError(f"the prefix has 16 bytes, not {len(prefix)}")
        span.limit = 0
        span.bytes_max = bytes_max
        span.keys_only = False
        span.reverse = False
        start = prefix + from_index.to_bytes(4, "big")
        stop = prefix + b"\xff\xff\xff\xff\0"
        kind = checked_make(make)
        return self._scan(db, start, stop, &span, True, kind)

    def count(self, int db):
        """How many rows a database holds."""
        cdef Core* core = self._live()
        cdef MDB_txn* txn = NULL
        cdef MDB_stat status
        cdef int code
        self._check_db(db)
        code = read_begin(core, self.snapshot, &txn)
        if code == 0:
            code = api.stat(txn, core.dbis[db], &status)
            read_end(core, self.snapshot)
        if code != 0:
            raise_for_code(code, f"{self.path}: count of {self.names[db]!r}")
        return status.ms_entries
