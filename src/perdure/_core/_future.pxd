# Types of _future.py, which Cython compiles with them. Everything here is seen by Python too.

cdef class LoopFuture:
    cdef object __weakref__
    cdef public object _loop
    cdef public long _number
    cdef public int _state
    cdef public bint _asyncio_future_blocking
    cdef public list _callbacks
    cdef public object _result
    cdef public object _exception
    cdef public object _cancel_message
    cdef public bint _log_traceback
    cdef public bint _log_destroy_pending

    cpdef get_loop(self)
    cpdef bint done(self) except -1
    cpdef bint cancelled(self) except -1
    cpdef bint cancel(self, object msg=*) except -1
    cpdef result(self)
    cpdef _resolve(self, object result)
    cpdef _fail(self, object exception)
    cpdef _end(self, int state)
    cpdef _make_cancelled_error(self)
