# Types of _operation.py, which Cython compiles with them. Everything here is seen by Python too.
import cython

from perdure._core._future cimport LoopFuture
from perdure._core._task cimport Wait


cdef class Operation:
    cdef public object _machine
    cdef public long _number
    cdef public long kind
    cdef public object name
    cdef public object _serde
    cdef public long long time_ms
    cdef public object function
    cdef public object arguments
    cdef public object options
    cdef public long long index
    cdef public long ordinal
    cdef public object payload
    cdef public bint failed
    cdef public object _value
    cdef public int _progress
    cdef public LoopFuture _wait
    cdef public list _waits
    cdef public list _callbacks

    cpdef issue(self, object frame=*)
    cpdef complete(self, object payload, long flags, long ordinal)

    @cython.locals(wait=LoopFuture)
    cpdef _wake(self)
    cpdef _arm(self)
    cpdef result(self)
    cpdef wait_cancelled(self, LoopFuture wait)
    cpdef watch(self, LoopFuture wait)
    cpdef unwatch(self, LoopFuture wait)
