# Copying one snapshot of the whole file while it is read and written.
#
# The copy has a read transaction of its own for as long as it takes: pages that are freed meanwhile
# are not used again, so the file grows by what is written. It takes no lock that readers or the
# writer want, but one: the map can not move under it, so growth waits. The map is as large as the
# user has said, 1 TiB unless it is lowered, and doubles when it grows: that is rare.


cdef int core_copy(Core* core, int fd) noexcept nogil:
    """Write a compact copy to *fd*, which may be replaced by `core_stop_copy`."""
    cdef sigset_t every, before
    cdef int code = 0
    pthread_mutex_lock(&core.read_lock)
    if core.env == NULL:
        code = ERR_CLOSED
    elif core.copy_fd >= 0:
        code = ERR_COPYING
    else:
        core.copy_fd = fd
        core.copy_stopped = False
    pthread_mutex_unlock(&core.read_lock)
    if code != 0:
        return code
    # LMDB writes from a thread that it makes: a signal must not be handled there.
    sigfillset(&every)
    code = pthread_sigmask(SIG_SETMASK, &every, &before)
    if code == 0:
        code = api.env_copyfd2(core.env, fd, MDB_CP_COMPACT)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
    pthread_mutex_lock(&core.read_lock)
    core.copy_fd = -1
    if code != 0 and core.copy_stopped:
        code = ERR_COPY_STOPPED
    pthread_cond_broadcast(&core.copied)
    pthread_mutex_unlock(&core.read_lock)
    return code


cdef void core_stop_copy(Core* core) noexcept nogil:
    """Have a copy that is being made fail soon. The caller holds `read_lock`.

    LMDB copies until a write fails. Its descriptor, whose number stays taken, becomes one that can
    not be written to.
    """
    cdef int nowhere
    if core.copy_fd < 0:
        return
    nowhere = open_file(b"/dev/null", O_RDONLY | O_CLOEXEC)
    if nowhere >= 0:
        dup2(nowhere, core.copy_fd)
        close_file(nowhere)
    core.copy_stopped = True


cdef void wait_for_copy(Core* core) noexcept nogil:
    """Wait until none is being made. The caller holds `read_lock`, which is let go meanwhile."""
    while core.copy_fd >= 0:
        pthread_cond_wait(&core.copied, &core.read_lock)
