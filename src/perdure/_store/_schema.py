"""What the databases are called, how they are numbered, and the rows of ``meta``."""

from __future__ import annotations

from enum import IntEnum

SCHEMA_VERSION = 1
MAGIC = b"perdure"

DATABASES = (
    "meta",
    "sites",
    "invocations",
    "journal",
    "outputs",
    "ready",
    "pending",
    "timers",
    "paused",
    "inbox",
    "state",
    "promises",
    "waiters",
    "targets",
    "awakeables",
    "signals",
    "expiry",
)


class Db(IntEnum):
    """A database by its position in :data:`DATABASES`. New ones go at the end."""

    META = 0
    SITES = 1
    INVOCATIONS = 2
    JOURNAL = 3
    OUTPUTS = 4
    READY = 5
    PENDING = 6
    TIMERS = 7
    PAUSED = 8
    INBOX = 9
    STATE = 10
    PROMISES = 11
    WAITERS = 12
    TARGETS = 13
    AWAKEABLES = 14
    SIGNALS = 15
    EXPIRY = 16


class MetaKey:
    """Keys of ``meta``. ``file_size`` (u64 little-endian) is written by the writer thread alone."""

    MAGIC = b"magic"
    SCHEMA = b"schema"  # u32 little-endian
    DURABILITY = b"durability"  # b"fsync", b"os clean", or b"os " and the boot id
    FILE_SIZE = b"file_size"
    OPENINGS = b"openings"  # u32 little-endian: how often the directory was opened
