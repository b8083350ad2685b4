"""The store: LMDB, the write units, readers, the schema. Only this package opens files."""

from perdure._store._committed import CommittedSnapshot, next_prefix
from perdure._store._schema import Db
from perdure._store._store import Store

__all__ = ["CommittedSnapshot", "Db", "Store", "next_prefix"]
