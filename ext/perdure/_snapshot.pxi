# One committed state of an environment, for reads that take long.


@cython.final
@cython.no_gc_clear                      # the environment, whose core it uses, goes after it
cdef class Snapshot(Queries):
    """What was committed when it was made, until it is closed; any thread may use and close it.

    Meanwhile the pages it needs are not used again, so the file may grow: keep it for seconds. It
    ends by itself when the environment closes, and when the file has to be mapped anew because its
    map has run out: then reads raise, and :attr:`ended` tells.

    Raises:
      StoreClosed: The environment is closed. StoreError: There are too many readers.
    """

    cdef Environment environment
    cdef SnapshotState state

    def __cinit__(self, Environment environment not None):
        cdef int code
        self.closed = True
        self.environment = environment
        self.path = environment.path
        self.names = environment.names
        self.core = environment._live()
        self.snapshot = &self.state
        with nogil:
            code = snapshot_begin(self.core, &self.state)
        if code != 0:
            raise_for_code(code, f"{self.path}: a snapshot")
        self.closed = False

    @property
    def ended(self):
        """Whether it can not be read any more."""
        return self.closed or self.state.txn == NULL

    def close(self):
        """Let it go. Idempotent; a read that runs in another thread ends first."""
        if self.closed:
            return
        self._live()
        self.closed = True
        with nogil:
            snapshot_end(self.core, &self.state)

    def __dealloc__(self):
        if self.core == NULL or self.core.fork_generation != fork_generation:
            return                       # as for the environment
        with nogil:
            snapshot_end(self.core, &self.state)
