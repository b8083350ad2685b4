# Types of _machine.py, which Cython compiles with them. Everything here is seen by Python too.
import cython

from perdure._core._commands cimport Commands
from perdure._core._future cimport LoopFuture
from perdure._core._operation cimport Operation
from perdure._core._task cimport LoopTask


@cython.no_gc  # short-lived, and in no cycle
cdef class Activation:
    cdef readonly long long first_index
    cdef readonly list entries
    cdef readonly object ended
    cdef readonly list kept
    cdef readonly bint completed


cdef class Machine(Commands):
    cdef object _main_factory
    cdef object _context
    cdef object _report
    cdef object _stage
    cdef bint _own_stage
    cdef LoopTask _main
    cdef long _completions

    @cython.locals(operation=Operation, entries=list)
    cpdef activate(self, object notification, long long now_ms)

    @cython.locals(asker=LoopFuture, entries=list)
    cpdef answer(self, object entry)
    cpdef _settled(self, long long first_index, list entries)
    cpdef replay(self, object entries)
    cpdef _check_driver(self, object allowed)

    @cython.locals(operation=Operation)
    cpdef _run(self, object notification)

    @cython.locals(main=LoopTask)
    cpdef _drive(self, bint cancelled)
    cpdef _cancel(self)
    cpdef _finish(self, LoopTask main)
