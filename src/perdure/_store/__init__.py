"""The store: LMDB, the write units, readers, the schema. Only this package opens files."""

from perdure._store._backup import Backup, sync_file
from perdure._store._committed import CommittedSnapshot, next_prefix
from perdure._store._directory import DATA_NAME, is_ours, recognise, sync_directory, warnings_of
from perdure._store._lock import ReaderLock, filling, read_mark, read_owner
from perdure._store._preflight import Preflight
from perdure._store._read_only import ReadOnlyStore
from perdure._store._schema import DATABASES, MAGIC, Db, MetaKey
from perdure._store._store import Durability, Store

__all__ = [
    "DATABASES",
    "DATA_NAME",
    "MAGIC",
    "Backup",
    "CommittedSnapshot",
    "Db",
    "Durability",
    "MetaKey",
    "Preflight",
    "ReadOnlyStore",
    "ReaderLock",
    "Store",
    "filling",
    "is_ours",
    "next_prefix",
    "read_mark",
    "read_owner",
    "recognise",
    "sync_directory",
    "sync_file",
    "warnings_of",
]
