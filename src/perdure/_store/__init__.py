"""The store: LMDB, the write units, readers, the schema. Only this package opens files."""

from perdure._store._backup import Backup
from perdure._store._committed import next_prefix
from perdure._store._read_only import ReadOnlyStore
from perdure._store._schema import Db
from perdure._store._store import Store

__all__ = ["Backup", "Db", "ReadOnlyStore", "Store", "next_prefix"]
