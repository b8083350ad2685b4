# Types of _ledger.py, which Cython compiles with them. Everything here is seen by Python too.
import cython

from perdure._core._machine cimport Activation, Machine
from perdure._core._operation cimport Operation
from perdure._runtime._consequences cimport Consequences
from perdure._runtime._inboxes cimport Inboxes
from perdure._runtime._instance cimport Delivery, Instance


cdef class Ledger:
    cdef object _store
    cdef object _timers
    cdef object _sites
    cdef readonly object backoffs
    cdef readonly Inboxes inboxes
    cdef readonly object exchange
    cdef readonly object promises
    cdef public object residents
    cdef public object purges

    cpdef accept(self, Instance instance, bint ready=*)
    cpdef _write_place(self, Instance instance)
    cpdef forget_delivery(self, Instance instance, Delivery delivery)

    @cython.locals(
        index=cython.longlong, kept=cython.int, completed=cython.bint,
        whole_life=cython.bint, ready=cython.bint,
    )
    cpdef activation(self, Instance instance, Activation activation, Delivery delivery)

    @cython.locals(kind=cython.long)
    cpdef _effect(self, Instance instance, long long index, object entry, Consequences result)
    cpdef _end(self, Instance instance, Operation operation, Consequences result)

    @cython.locals(delivery=Delivery, operation=Operation)
    cpdef bint must_be_ready(self, Instance instance) except -1
    cpdef set_ready(self, Instance instance, bint ready)
    cpdef _complete(self, Instance instance, list entries, Consequences result)
    cpdef finish(self, Instance instance, object output, Consequences result)
    cpdef _pass_key_on(self, Instance instance, Consequences result)
