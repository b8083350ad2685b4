# Types of _consequences.py, which Cython compiles with them. All here is seen by Python too.
import cython


@cython.no_gc  # short-lived, and in no cycle
cdef class Consequences:
    cdef public list steps
    cdef public list ended_steps
    cdef public list notified
    cdef public object output

    cpdef notify(self, bytes invocation_id)


cpdef list added(list items, object item)
