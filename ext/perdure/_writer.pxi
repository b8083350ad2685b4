# The writer thread. Everything here is C: no Python object, no GIL, no exception.
#
# A failure other than a full map is final: the writer records the code, wakes everyone and ends.
# Whether the failing transaction reached the disk is unknown, so nothing may be tried after it.

cdef uint64_t fork_generation = 0


cdef void count_fork() noexcept nogil:
    global fork_generation
    fork_generation += 1


cdef int put_row(
    Core* core, MDB_txn* txn, int db,
    const uint8_t* key, size_t key_length, const uint8_t* value, size_t value_length
) noexcept nogil:
    cdef MDB_val stored_key, stored
    cdef uint8_t* target
    cdef int code
    stored_key.mv_size = key_length
    stored_key.mv_data = <void*>key
    stored.mv_size = value_length + CHECKSUM_BYTES
    stored.mv_data = NULL
    code = api.put(txn, core.dbis[db], &stored_key, &stored, MDB_RESERVE)
    if code != 0:
        return code
    target = <uint8_t*>stored.mv_data
    if value_length != 0:
        memcpy(target, value, value_length)
    write_u32(target + value_length, crc_of_row(key, key_length, value, value_length))
    return 0


cdef int apply_unit(Core* core, MDB_txn* txn, const uint8_t* pos, size_t length) noexcept nogil:
    cdef const uint8_t* end = pos + length
    cdef const uint8_t* key
    cdef const uint8_t* value
    cdef OpHeader op
    cdef MDB_val stored_key
    cdef int code
    while pos != end:
        memcpy(&op, pos, OP_HEADER_BYTES)
        key = pos + OP_HEADER_BYTES
        value = key + op.key_length
        if op.op == OP_PUT:
            code = put_row(core, txn, op.db, key, op.key_length, value, op.value_length)
        else:
            stored_key.mv_size = op.key_length
            stored_key.mv_data = <void*>key
            code = api.delete(txn, core.dbis[op.db], &stored_key, NULL)
            if code == MDB_NOTFOUND:
                code = 0
        if code != 0:
            return code
        pos = value + op.value_length
    return 0


cdef int put_file_size(Core* core, MDB_txn* txn) noexcept nogil:
    cdef uint8_t[8] value
    write_u64(value, core.observed_size)
    return put_row(core, txn, 0, <const uint8_t*>b"file_size", 9, value, 8)


cdef int observe_size(Core* core) noexcept nogil:
    cdef stat_t status
    cdef int fd = -1
    cdef int code = api.env_get_fd(core.env, &fd)
    if code != 0:
        return code
    if fstat(fd, &status) != 0:
        return errno
    core.observed_size = <uint64_t>status.st_size
    return 0


cdef int try_batch(Core* core, const uint8_t* data, size_t length) noexcept nogil:
    """One transaction over the units in *data*: all of them or none."""
    cdef MDB_txn* txn = NULL
    cdef const uint8_t* end = data + length
    cdef uint64_t size
    cdef bint sized = core.has_meta and core.observed_size > core.recorded_size
    cdef int code = api.txn_begin(core.env, NULL, 0, &txn)
    if code != 0:
        return code
    if sized:
        code = put_file_size(core, txn)
    while code == 0 and data != end:
        size = read_u64(data)
        code = apply_unit(core, txn, data + UNIT_HEADER_BYTES, size)
        data += UNIT_HEADER_BYTES + size
    if code != 0:
        api.txn_abort(txn)
        return code
    code = api.txn_commit(txn)            # frees the transaction, also when it fails
    if code != 0:
        return code
    if sized:
        core.recorded_size = core.observed_size
    return observe_size(core) if core.has_meta else 0


cdef int grow_map(Core* core, size_t needed) noexcept nogil:
    """At least double the map. The caller has no transaction; readers are kept out meanwhile.

    Snapshots end: with one open, growing would give 0 and the next read a fault.
    """
    cdef MDB_envinfo info
    cdef size_t size
    cdef int code
    pthread_mutex_lock(&core.read_lock)
    wait_for_copy(core)
    code = api.env_info(core.env, &info)
    if code == 0:
        size = info.me_mapsize
        if size > <size_t>-1 // 8 or needed > <size_t>-1 // 8:
            code = MDB_MAP_FULL
        else:
            size = size + (size if size > 2 * needed else 2 * needed)
            end_snapshots(core, ERR_SNAPSHOT_ENDED)
            code = api.env_set_mapsize(core.env, size)
    pthread_mutex_unlock(&core.read_lock)
    return code


cdef int run_batch(Core* core, const uint8_t* data, size_t length) noexcept nogil:
    cdef int code = try_batch(core, data, length)
    while code == MDB_MAP_FULL:
        code = grow_map(core, length)
        if code == 0:
            code = try_batch(core, data, length)
    return code


cdef void publish(Core* core, uint64_t units, uint64_t length, int code) noexcept nogil:
    pthread_mutex_lock(&core.mutex)
    if code == 0:
        perdure_store(&core.committed, core.committed + units)
        perdure_store(&core.queued_bytes, core.queued_bytes - length)
    else:
        core.failure = code
    pthread_cond_broadcast(&core.done)
    pthread_mutex_unlock(&core.mutex)
    perdure_event_signal(core.events[1])


cdef int commit_taken(Core* core) noexcept nogil:
    cdef const uint8_t* data = core.taken.data
    cdef const uint8_t* end = data + core.taken.length
    cdef size_t length
    cdef uint64_t units, size
    cdef int code
    while data != end:
        length = 0
        units = 0
        while data + length != end:
            size = UNIT_HEADER_BYTES + read_u64(data + length)
            if units != 0 and length + size > BATCH_BYTES_MAX:
                break
            length += size
            units += 1
        code = run_batch(core, data, length)
        publish(core, units, length, code)
        if code != 0:
            return code
        data += length
    core.taken.length = 0
    if core.taken.capacity > BUFFER_KEEP_MAX:
        buffer_free(&core.taken)
    return 0


cdef int finish(Core* core) noexcept nogil:
    """Bring the recorded file size up to date, and the file to the disk."""
    cdef int rounds = 0
    cdef int code
    # Recording the size can itself make the file grow; pages freed by one round serve the next.
    while core.has_meta and core.observed_size > core.recorded_size and rounds < 4:
        code = run_batch(core, NULL, 0)
        if code != 0:
            return code
        rounds += 1
    if core.durability == DURABILITY_OS:
        return api.env_sync(core.env, 1)
    return 0


cdef void linger(Core* core, uint64_t last) noexcept nogil:
    """Look for the next unit a moment longer before sleeping.

    Who waits for one commit after another sends the next unit within some 50 us of the last. Found
    awake, the writer need not be woken, which takes as long again on a virtual machine.
    """
    cdef timespec begin, now
    cdef int looks = 0
    clock_gettime(CLOCK_MONOTONIC, &begin)
    while perdure_load(&core.released) <= last:
        perdure_pause()
        looks += 1
        if looks % 64 != 0:
            continue
        clock_gettime(CLOCK_MONOTONIC, &now)
        if (now.tv_sec - begin.tv_sec) * 1000000000 + now.tv_nsec - begin.tv_nsec > LINGER_NS:
            return


cdef void* writer_main(void* argument) noexcept nogil:
    cdef Core* core = <Core*>argument
    cdef Buffer swapped
    cdef uint64_t last = 0            # the last unit taken
    cdef int stop
    cdef int code = 0
    perdure_name_thread()
    while code == 0:
        if core.linger and last != 0:
            linger(core, last)
        pthread_mutex_lock(&core.mutex)
        while core.released <= last and core.stop == RUN:
            pthread_cond_wait(&core.work, &core.mutex)
        # All that is sealed, released or not: the more units, the fewer syncs.
        last = core.sealed
        stop = core.stop
        swapped = core.taken
        if stop != STOP_AND_DROP:
            core.taken = core.queue
            core.queue = swapped
        pthread_mutex_unlock(&core.mutex)
        if stop == STOP_AND_DROP:
            break
        if core.taken.length != 0:
            code = commit_taken(core)
        elif stop == STOP_AND_FLUSH:
            code = finish(core)
            if code != 0:
                publish(core, 0, 0, code)
            break
    return NULL


cdef int core_start_writer(Core* core) noexcept nogil:
    # A signal must be handled by a thread that runs Python, so the writer is born with all blocked.
    cdef sigset_t every, before
    cdef int code
    sigfillset(&every)
    code = pthread_sigmask(SIG_SETMASK, &every, &before)
    if code != 0:
        return code
    code = pthread_create(&core.thread, NULL, writer_main, core)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if code == 0:
        core.has_thread = True
    return code


cdef void core_stop_writer(Core* core, int how) noexcept nogil:
    if not core.has_thread:
        return
    pthread_mutex_lock(&core.mutex)
    core.stop = how
    pthread_cond_signal(&core.work)
    pthread_mutex_unlock(&core.mutex)
    pthread_join(core.thread, NULL)
    core.has_thread = False


cdef int core_seal(Core* core, uint64_t* unit) noexcept nogil:
    """Hand the open unit to the writer. On failure it stays open as it was."""
    cdef size_t length = core.open_unit.length
    cdef int code = 0
    pthread_mutex_lock(&core.mutex)
    if core.failure != 0:
        code = ERR_FAILED
    elif core.stop != RUN:
        code = ERR_CLOSED
    elif length != 0:
        code = buffer_reserve(&core.queue, UNIT_HEADER_BYTES + length)
        if code == 0:
            write_u64(core.queue.data + core.queue.length, length)
            memcpy(
                core.queue.data + core.queue.length + UNIT_HEADER_BYTES, core.open_unit.data, length
            )
            core.queue.length += UNIT_HEADER_BYTES + length
            perdure_store(&core.queued_bytes, core.queued_bytes + UNIT_HEADER_BYTES + length)
            perdure_store(&core.sealed, core.sealed + 1)
            if not core.batching:
                perdure_store(&core.released, core.sealed)
                pthread_cond_signal(&core.work)
    unit[0] = core.sealed
    pthread_mutex_unlock(&core.mutex)
    if code == 0:
        core.open_unit.length = 0
        core.open_ops = 0
        if core.open_unit.capacity > BUFFER_KEEP_MAX:
            buffer_free(&core.open_unit)
    return code


cdef void core_batch(Core* core, bint batching) noexcept nogil:
    """From now on sealing wakes the writer at once, or only the end of the batch does."""
    pthread_mutex_lock(&core.mutex)
    core.batching = batching
    if not batching and core.released != core.sealed:
        perdure_store(&core.released, core.sealed)
        pthread_cond_signal(&core.work)
    pthread_mutex_unlock(&core.mutex)


cdef int core_wait(Core* core, uint64_t unit, int64_t timeout_ns) noexcept nogil:
    """1: committed. 0: *timeout_ns* (at most a second) has passed. Else ERR_FAILED, ERR_CLOSED."""
    cdef timespec until
    cdef int code = 0
    cdef int waited = 0
    clock_gettime(CLOCK_REALTIME, &until)
    timeout_ns += until.tv_nsec
    until.tv_sec += <time_t>(timeout_ns // 1000000000)
    until.tv_nsec = <long>(timeout_ns % 1000000000)
    pthread_mutex_lock(&core.mutex)
    if core.released < unit:              # who waits in the middle of a batch would wait for ever
        perdure_store(&core.released, core.sealed)
        pthread_cond_signal(&core.work)
    while True:
        if core.committed >= unit:
            code = 1
        elif core.failure != 0:
            code = ERR_FAILED
        elif core.env == NULL or core.stop == STOP_AND_DROP:
            code = ERR_CLOSED
        if code != 0 or waited != 0:
            break
        waited = pthread_cond_timedwait(&core.done, &core.mutex, &until)
    pthread_mutex_unlock(&core.mutex)
    return code
