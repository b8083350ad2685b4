"""A store that is only read: nothing is written, by nobody, for as long as it is open."""

from __future__ import annotations

from pathlib import Path

from perdure._journal import Environment
from perdure._store import _directory
from perdure._store._lock import ReaderLock, read_mark
from perdure._store._overlay import Overlay
from perdure._store._schema import DATABASES
from perdure._store._store import Store


class ReadOnlyStore(Store):
    """Opens the existing data directory *path* for reading.

    No file is made, changed or locked by LMDB, so it may lie on a disk that can not be written to.
    Nobody can open it for writing meanwhile. Whatever writes raises ``StoreError``.

    Raises:
      DataDirectoryInUse: An engine has it open.
      StoreCorrupt: The file is damaged or was cut short.
      StoreError: It is no data directory of perdure, or cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = directory = Path(path).absolute()
        self.durability = "fsync"
        self._closed = False
        self._overlay = Overlay(len(DATABASES), self._now_ns)
        self._rows = self._overlay.rows
        self._lock = ReaderLock(directory)
        try:
            found = _directory.recognise(directory)
            self.warnings = _directory.warnings_of(directory, found.rows, read_mark(directory))
            self._environment = Environment(
                str(directory),
                databases=DATABASES,
                map_size=found.file_bytes,  # it does not grow, and address space may be limited
                durability=0,
                read_only=True,
            )
        except BaseException:
            self._lock.release()
            raise
        self._bind()
