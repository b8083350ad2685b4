# Types of _pump.py, which Cython compiles with them. Everything here is seen by Python too.
import cython

from perdure._core._machine cimport Activation, Machine
from perdure._core._operation cimport Operation
from perdure._runtime._consequences cimport Consequences
from perdure._runtime._gate cimport Gate
from perdure._runtime._instance cimport Delivery, Instance
from perdure._runtime._ledger cimport Ledger
from perdure._runtime._running cimport RunningStep, RunningSteps


cdef class Pump:
    cdef object _scheduler
    cdef object _loop
    cdef Gate _gate
    cdef Ledger _ledger
    cdef RunningSteps _running
    cdef object _store
    cdef object _by_id
    cdef object _clock_ms
    cdef object _ticks
    cdef readonly object queue
    cdef readonly object handle
    cdef public object interrupt
    cdef public object rouse
    cdef readonly Instance current
    cdef object _turn
    cdef object _start

    cpdef enqueue(self, Instance instance)
    cpdef wake(self)

    @cython.locals(instance=Instance, turns=cython.long)
    cpdef _take_turns(self)

    @cython.locals(delivery=Delivery, machine=Machine, activation=Activation, kind=cython.long)
    cpdef _advance(self, Instance instance)

    @cython.locals(operation=Operation, running=RunningStep)
    cpdef follow(self, Instance instance, Consequences consequences)

    @cython.locals(delivery=Delivery, running=RunningStep)
    cpdef start_step(self, Instance instance, Operation operation)
    cpdef step_succeeded(self, RunningStep running, bytes payload)
    cpdef step_done(self, RunningStep running, object payload, long flags)

    @cython.locals(instance=Instance)
    cpdef deliver(self, bytes invocation_id, Delivery delivery)
