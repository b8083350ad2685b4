# Types of _view.py, which Cython compiles with them. Everything here is seen by Python too.


cdef class _Writes:
    cdef readonly dict state
    cdef public bint state_cleared
    cdef readonly dict promises
    cdef readonly dict begun
    cdef readonly set made
    cdef readonly set awakeables


cdef class KeyView:
    cdef object _reads
    cdef _Writes _written

    cpdef forget(self)
    cpdef _Writes _writes(self)
    cpdef set_state(self, str name, object payload)
    cpdef promise(self, str name)
