# Types of _instance.py, which Cython compiles with them. Everything here is seen by Python too.

import cython

from perdure._core._machine cimport Machine


@cython.no_gc  # short-lived, and in no cycle
cdef class Delivery:
    cdef readonly object entry
    cdef readonly object arrival
    cdef readonly object timer


cdef class Instance:
    cdef object __weakref__
    cdef readonly bytes id
    cdef readonly str text_id
    cdef readonly object record
    cdef readonly int kept
    cdef readonly bytes group
    cdef readonly object definition
    cdef readonly object service
    cdef public int phase
    cdef public Machine machine
    cdef public list backlog
    cdef public bint queued
    cdef public bint fresh
    cdef public bint unrested
    cdef public long long replay_from
    cdef public bint in_ready
    cdef readonly bint is_exclusive
    cdef public object backoff
    cdef public dict resting_steps
    cdef public long long last_unit
    cdef public list chunks
    cdef public object accepted
    cdef public object answer
