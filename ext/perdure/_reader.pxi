# Opening, closing, and reading. Most reads share one transaction: renewed by each, reset after. A
# snapshot has one of its own, which lives until it is closed or taken away: by the close of the
# environment, and by what remaps the file. Nobody waits for a snapshot.


cdef int read_begin(Core* core, SnapshotState* snapshot, MDB_txn** txn) noexcept nogil:
    """Take the lock and a transaction: of *snapshot*, or where that is NULL a fresh one.

    `read_end` is owed only if this returns 0.
    """
    cdef int code
    pthread_mutex_lock(&core.read_lock)
    if snapshot != NULL:
        code = 0 if snapshot.txn != NULL else snapshot.ended
        txn[0] = snapshot.txn
    elif core.env == NULL:
        code = ERR_CLOSED
    else:
        code = renew(core)
        txn[0] = core.read_txn
    if code != 0:
        pthread_mutex_unlock(&core.read_lock)
    return code


cdef void end_snapshots(Core* core, int why) noexcept nogil:
    """Take the transactions of all snapshots away. The caller holds the lock."""
    cdef SnapshotState* snapshot = core.snapshots
    while snapshot != NULL:
        api.txn_abort(snapshot.txn)
        snapshot.txn = NULL
        snapshot.ended = why
        snapshot = snapshot.next
    core.snapshots = NULL


cdef int snapshot_begin(Core* core, SnapshotState* snapshot) noexcept nogil:
    """Have *snapshot* show what is committed now."""
    cdef int code
    pthread_mutex_lock(&core.read_lock)
    if core.env == NULL:
        code = ERR_CLOSED
    else:
        code = api.txn_begin(core.env, NULL, MDB_RDONLY, &snapshot.txn)
    if code == 0:
        snapshot.next = core.snapshots
        core.snapshots = snapshot
    else:
        snapshot.txn = NULL
        snapshot.ended = code
    pthread_mutex_unlock(&core.read_lock)
    return code


cdef void snapshot_end(Core* core, SnapshotState* snapshot) noexcept nogil:
    """Let it go, if nobody has taken it away."""
    cdef SnapshotState** link = &core.snapshots
    pthread_mutex_lock(&core.read_lock)
    if snapshot.txn != NULL:
        while link[0] != snapshot:
            link = &link[0].next
        link[0] = snapshot.next
        api.txn_abort(snapshot.txn)
        snapshot.txn = NULL
        snapshot.ended = ERR_CLOSED
    pthread_mutex_unlock(&core.read_lock)


cdef int renew(Core* core) noexcept nogil:
    if core.read_txn == NULL:
        return api.txn_begin(core.env, NULL, MDB_RDONLY, &core.read_txn)
    return api.txn_renew(core.read_txn)


cdef void read_end(Core* core, SnapshotState* snapshot) noexcept nogil:
    if snapshot == NULL:
        api.txn_reset(core.read_txn)
    pthread_mutex_unlock(&core.read_lock)


cdef int compare(const MDB_val* left, const uint8_t* right, size_t right_length) noexcept nogil:
    cdef size_t shorter = left.mv_size if left.mv_size < right_length else right_length
    cdef int order = memcmp(left.mv_data, right, shorter)
    if order != 0:
        return order
    if left.mv_size == right_length:
        return 0
    return -1 if left.mv_size < right_length else 1


cdef int first_row(
    MDB_cursor* cursor, const ScanRange* span, MDB_val* key, MDB_val* value
) noexcept nogil:
    cdef int code
    if not span.reverse:
        key.mv_data = <void*>span.start
        key.mv_size = span.start_length
        if span.start_length == 0:
            return api.cursor_get(cursor, key, value, MDB_NEXT)
        return api.cursor_get(cursor, key, value, MDB_SET_RANGE)
    if span.stop == NULL:
        return api.cursor_get(cursor, key, value, MDB_LAST)
    key.mv_data = <void*>span.stop
    key.mv_size = span.stop_length
    if span.stop_length == 0:
        return MDB_NOTFOUND
    code = api.cursor_get(cursor, key, value, MDB_SET_RANGE)
    if code == MDB_NOTFOUND:
        return api.cursor_get(cursor, key, value, MDB_LAST)
    if code == 0:
        code = api.cursor_get(cursor, key, value, MDB_PREV)
    return code


cdef int copy_row(const ScanRange* span, MDB_val* key, MDB_val* value, Buffer* out) noexcept nogil:
    cdef size_t value_size = 0 if span.keys_only else value.mv_size
    cdef uint8_t* pos
    if buffer_reserve(out, 8 + key.mv_size + value_size) != 0:
        return ERR_NO_MEMORY
    pos = out.data + out.length
    write_u32(pos, <uint32_t>key.mv_size)
    write_u32(pos + 4, <uint32_t>value_size)
    memcpy(pos + 8, key.mv_data, key.mv_size)
    memcpy(pos + 8 + key.mv_size, value.mv_data, value_size)
    out.length += 8 + key.mv_size + value_size
    return 0


cdef int core_scan(
    Core* core, SnapshotState* snapshot, int db, const ScanRange* span, Buffer* out
) noexcept nogil:
    """Copy rows as (u32 key length, u32 value length, key, value with checksum) to *out*."""
    cdef MDB_txn* txn = NULL
    cdef MDB_cursor* cursor = NULL
    cdef MDB_val key, value
    cdef size_t count = 0
    cdef int step = MDB_PREV if span.reverse else MDB_NEXT
    cdef int code = read_begin(core, snapshot, &txn)
    if code != 0:
        return code
    code = api.cursor_open(txn, core.dbis[db], &cursor)
    if code == 0:
        code = first_row(cursor, span, &key, &value)
        while code == 0:
            if span.reverse:
                if compare(&key, span.start, span.start_length) < 0:
                    break
            elif span.stop != NULL and compare(&key, span.stop, span.stop_length) >= 0:
                break
            code = copy_row(span, &key, &value, out)
            count += 1
            if code != 0 or out.length >= span.bytes_max or count == span.limit:
                break
            code = api.cursor_get(cursor, &key, &value, step)
        api.cursor_close(cursor)
    read_end(core, snapshot)
    return 0 if code == MDB_NOTFOUND else code


cdef int core_refresh_size(Core* core, uint64_t* size) noexcept nogil:
    """Read the recorded file size into *size*, 0 if there is none."""
    cdef MDB_txn* txn = NULL
    cdef MDB_val key, value
    cdef const uint8_t* data
    cdef int code = read_begin(core, NULL, &txn)
    if code != 0:
        return code
    size[0] = 0
    key.mv_data = <void*><const uint8_t*>b"file_size"
    key.mv_size = 9
    code = api.get(txn, core.dbis[0], &key, &value)
    if code == 0:
        data = <const uint8_t*>value.mv_data
        if value.mv_size != 8 + CHECKSUM_BYTES:
            code = ERR_SHORT_VALUE
        elif read_u32(data + 8) != crc_of_row(<const uint8_t*>key.mv_data, 9, data, 8):
            code = ERR_CHECKSUM
        else:
            size[0] = read_u64(data)
    read_end(core, NULL)
    return 0 if code == MDB_NOTFOUND else code


cdef int open_databases(Core* core, const char** names) noexcept nogil:
    cdef MDB_txn* txn = NULL
    cdef unsigned int flags = 0 if core.read_only else MDB_CREATE
    cdef int index
    cdef int code = api.txn_begin(core.env, NULL, MDB_RDONLY if core.read_only else 0, &txn)
    if code != 0:
        return code
    for index in range(core.databases):
        code = api.dbi_open(txn, names[index], flags, &core.dbis[index])
        if code != 0:
            api.txn_abort(txn)
            return code
    # Handles opened in a transaction outlive it only if it commits, also a reading one.
    return api.txn_commit(txn)


cdef int core_open(
    Core* core, const char* path, size_t map_size, const char** names
) noexcept nogil:
    """Open everything but the writer. On failure `core_close` is still owed."""
    cdef unsigned int flags = MDB_NOTLS
    cdef int dead = 0
    cdef int code
    if core.read_only:
        flags |= MDB_RDONLY | MDB_NOLOCK
    if core.durability != DURABILITY_FSYNC:
        flags |= MDB_NOSYNC
    code = pthread_mutex_init(&core.mutex, NULL)
    if code == 0:
        code = pthread_mutex_init(&core.read_lock, NULL)
    if code == 0:
        code = pthread_cond_init(&core.copied, NULL)
    if code == 0:
        code = pthread_cond_init(&core.work, NULL)
    if code == 0:
        code = pthread_cond_init(&core.done, NULL)
    if code != 0:
        return code
    core.has_locks = True
    code = perdure_event_open(core.events)
    if code != 0:
        return code
    code = api.env_create(&core.env)
    if code != 0:
        core.env = NULL
        return code
    code = api.env_set_mapsize(core.env, map_size)
    if code == 0:
        code = api.env_set_maxdbs(core.env, core.databases)
    if code == 0:
        code = api.env_open(core.env, path, flags, 0o600)
    if code == 0:
        # Slots of readers that were killed would keep freed pages for ever.
        code = api.reader_check(core.env, &dead)
    if code == 0:
        code = open_databases(core, names)
    while code == MDB_MAP_FULL:
        code = grow_map(core, MAP_BYTES_MIN)
        if code == 0:
            code = open_databases(core, names)
    if code == 0 and core.has_meta:
        code = core_refresh_size(core, &core.recorded_size)
        if code == 0:
            code = observe_size(core)
        if code == 0 and core.observed_size < core.recorded_size:
            code = ERR_FILE_SHORT
    return code


cdef void core_close(Core* core, int how) noexcept nogil:
    if core.has_locks:
        pthread_mutex_lock(&core.read_lock)
        core_stop_copy(core)             # first: the writer may wait for its end, to grow the map
        pthread_mutex_unlock(&core.read_lock)
    core_stop_writer(core, how)
    if not core.has_locks:
        return
    pthread_mutex_lock(&core.read_lock)
    core_stop_copy(core)
    wait_for_copy(core)
    pthread_mutex_lock(&core.mutex)
    end_snapshots(core, ERR_CLOSED)
    if core.read_txn != NULL:
        api.txn_abort(core.read_txn)
        core.read_txn = NULL
    if core.env != NULL:
        api.env_close(core.env)
        core.env = NULL
    pthread_cond_broadcast(&core.done)
    pthread_mutex_unlock(&core.mutex)
    pthread_mutex_unlock(&core.read_lock)
    perdure_event_close(core.events)
    buffer_free(&core.open_unit)
    buffer_free(&core.queue)
    buffer_free(&core.taken)


cdef void core_free(Core* core) noexcept nogil:
    if core.has_locks:
        pthread_cond_destroy(&core.work)
        pthread_cond_destroy(&core.done)
        pthread_cond_destroy(&core.copied)
        pthread_mutex_destroy(&core.mutex)
        pthread_mutex_destroy(&core.read_lock)
    free(core)
