# Types of _commands.py, which Cython compiles with them. Everything here is seen by Python too.
from perdure._core._future cimport LoopFuture
from perdure._core._operation cimport Operation
from perdure._core._task cimport ReadyQueue
from perdure._core._view cimport KeyView


cdef class Commands:
    cdef object __weakref__
    cdef readonly ReadyQueue queue
    cdef readonly object loop
    cdef public object state
    cdef public bint running
    cdef public long long time_ms
    cdef readonly dict outstanding
    cdef readonly dict outgoing
    cdef public bint cancel_requested
    cdef readonly object asked
    cdef LoopFuture _asker
    cdef set _promise_names
    cdef dict _patches
    cdef KeyView _view
    cdef bint _has_writes
    cdef object _sites
    cdef object _show
    cdef object _error
    cdef long long _next_index
    cdef list _entries
    cdef list _ended
    cdef bint _has_long
    cdef object _recorded
    cdef long long _first_replayed
    cdef object _host_frame

    cpdef check_usable(self)
    cpdef begin(self, Operation operation, object frame=*)
    cpdef cancel_operation(self, Operation operation)
    cpdef _end(self, Operation operation)
    cpdef issue(self, object entry, object recode=*)
    cpdef _site(self, object frame)
    cpdef _read(self, object entry, object answer)
    cpdef _record(self, object entry, object recode=*)


cdef class _LoopTimer(Operation):
    cdef object _fire

    cpdef _wake(self)
