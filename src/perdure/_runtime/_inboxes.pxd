# Types of _inboxes.py, which Cython compiles with them. Everything here is seen by Python too.
import cython


cdef class Place:
    cdef readonly long long arrival
    cdef readonly bytes invocation_id


cdef class Line:
    cdef readonly object places
    cdef public long long written


cdef class Inboxes:
    cdef object _store
    cdef dict _lines

    @cython.locals(line=Line)
    cpdef bint join(self, bytes group, bytes invocation_id) except -1

    @cython.locals(line=Line, place=Place)
    cpdef write(self, bytes group, bytes invocation_id)
    cpdef bint waits(self, bytes group, bytes invocation_id) except -1

    @cython.locals(line=Line, place=Place, position=cython.longlong)
    cpdef leave(self, bytes group, bytes invocation_id)
    cpdef Line _line(self, bytes group)
