# Types of _overlay.py, which Cython compiles with them. Everything here is seen by Python too.
import cython


cdef class Overlay:
    cdef readonly list rows
    cdef object _now_ns
    cdef public list changes
    cdef readonly object sealed
    cdef readonly object marks
    cdef public object last_unit
    cdef readonly object dropped_unit

    cpdef seal(self, object unit)

    @cython.locals(groups=dict, rows=dict, before=tuple)
    cpdef undo(self)

    @cython.locals(groups=dict, rows=dict, row=tuple, changes=list)
    cpdef drop(self, object committed)
    cpdef oldest_ns(self, object committed)
