# Types of _inboxes.py, which Cython compiles with them. Everything here is seen by Python too.
import cython


cdef class Place:
    cdef readonly long long arrival
    cdef readonly bytes invocation_id
    cdef public bint written


cdef class Inboxes:
    cdef object _store
    cdef dict _lines

    cpdef bint join(self, bytes group, bytes invocation_id) except -1

    @cython.locals(place=Place)
    cpdef write(self, bytes group, bytes invocation_id)

    cpdef bint waits(self, bytes group, bytes invocation_id) except -1

    @cython.locals(place=Place)
    cpdef leave(self, bytes group, bytes invocation_id)
    cpdef _line(self, bytes group)
