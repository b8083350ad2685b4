# Types of _running.py, which Cython compiles with them. Everything here is seen by Python too.
import cython


cdef class RunningStep:
    cdef object __weakref__
    cdef readonly bytes invocation_id
    cdef readonly long long index
    cdef readonly object step
    cdef public object task
    cdef public object expiry
    cdef public RunningStep following
    cdef public bint cancelled
    cdef public bint interrupted


cdef class RunningSteps:
    cdef dict _first

    cpdef add(self, RunningStep running)

    @cython.locals(before=RunningStep, running=RunningStep)
    cpdef take(self, bytes invocation_id, long long index)

    @cython.locals(running=RunningStep)
    cpdef bint has(self, bytes invocation_id, long long index) except -1
    cpdef bint any_of(self, bytes invocation_id) except -1
    cpdef bint any(self) except -1
