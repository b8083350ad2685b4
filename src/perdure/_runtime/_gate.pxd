# Types of _gate.py, which Cython compiles with them. Everything here is seen by Python too.
import cython


@cython.no_gc  # goes with its commit, or when the engine closes
cdef class Held:
    cdef readonly long long unit
    cdef readonly object callback
    cdef readonly object first
    cdef readonly object second


cdef class Gate:
    cdef object _store
    cdef object _held
    cdef public object failure

    cpdef hold(self, long long unit, object callback, object first, object second)
    cpdef bint holds(self) except -1

    @cython.locals(item=Held, committed=cython.longlong)
    cpdef bint release(self, long limit) except -1
    cpdef fail(self, object failure)
