# Types of _task.py, which Cython compiles with them. Everything here is seen by Python too.
import cython

from perdure._core._future cimport LoopFuture


cdef class ReadyQueue:
    cdef readonly object items
    cdef readonly dict tasks
    cdef public long number
    cdef public bint stopped
    cdef list _redeliveries

    cpdef long next_number(self)

    @cython.locals(done=long)
    cpdef bint run(self, long limit, object report) except -1


cdef class Wait(LoopFuture):
    cdef public object _operation
    cdef public LoopTask _task
    cdef public bint _begun

    cpdef _end(self, int state)


cdef class LoopTask(LoopFuture):
    cdef public object _coro
    cdef public ReadyQueue _queue
    cdef public object _name
    cdef public object _context
    cdef public object _fut_waiter
    cdef public object _error
    cdef public bint _must_cancel
    cdef public long _cancel_requests
    cdef public object _cancel_text

    cpdef step(self)
    cpdef _finished(self)

    @cython.locals(wait=Wait)
    cpdef _wait_for(self, object awaited)
    cpdef _refuse(self, object problem)
