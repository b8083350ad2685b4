# Types of _sites.py, which Cython compiles with them. Everything here is seen by Python too.


cdef class SiteTable:
    cdef object _store
    cdef dict _texts
    cdef dict _numbers
    cdef object _last
    cdef dict _known
    cdef dict _codes
    cdef readonly list unsaved

    cpdef of(self, object frame)
    cpdef _intern(self, object frame)
