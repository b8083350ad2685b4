# cython: language_level=3, binding=True, cdivision=True, auto_pickle=False, autotestdict=False
"""Entry codec, checksums, LMDB binding, and the writer thread that never takes the GIL.

Theory of operation. Python threads append operations to the open unit, a private buffer. ``seal``
copies it, under a mutex that is never held across a system call other than memory allocation, to
the queue. The writer, a plain C thread, takes the whole queue, runs one transaction over as many
whole units as fit in 8 MiB, commits with sync, publishes the number of the last unit and signals a
descriptor. While it syncs, the next batch fills: group commit without waiting.

Locks. ``mutex`` guards the queue; ``read_lock`` guards the one reused read transaction, those of
snapshots, and the map under them. No thread takes the GIL while it holds either, and the writer
never takes the GIL at all, so waiting for a lock with the GIL held cannot deadlock. The writer
takes ``read_lock`` only to grow the map, with no transaction of its own open, and waits there for
the end of a copy.

Bytes. A value is stored with the CRC-32C of key and value after it. No pointer into the map
outlives ``read_lock``: rows are copied out, checked and decoded from the copy.
"""

cimport cython

import atexit
import contextlib
import os
import sys
import threading
import weakref

from perdure.errors import StoreBroken, StoreClosed, StoreCorrupt, StoreError

from libc.errno cimport (
    EACCES, EDQUOT, EFBIG, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, EROFS, errno
)
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

include "_checksum.pxi"
include "_binding.pxi"
include "_codec.pxi"
include "_writer.pxi"
include "_reader.pxi"
include "_copying.pxi"
include "_queries.pxi"
include "_environment.pxi"
include "_snapshot.pxi"

# The C functions are for this module alone, though the .pxd makes Cython publish them.
globals().pop("__pyx_capi__", None)
