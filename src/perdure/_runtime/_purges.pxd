# Types of _purges.py, which Cython compiles with them. Everything here is seen by Python too.
from perdure._runtime._consequences cimport Consequences
from perdure._runtime._instance cimport Instance


cdef class Purges:
    cdef object _store
    cdef object _ledger
    cdef object _registry
    cdef object _clock
    cdef object _watch

    cpdef completed(self, Instance instance, object output, Consequences result)
    cpdef written_early(self, bytes group)
