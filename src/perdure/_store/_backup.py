"""A backup: one committed snapshot of a store, as a data directory of its own.

Theory of operation. LMDB copies the snapshot, without the pages that are not in use, while the
store is read and written (``ext/perdure/_copying.pxi``). The copy is made under another name,
completed, brought to the disk, and renamed last: what has the name of a backup is whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from pathlib import Path

from perdure._journal import Environment
from perdure._store._committed import StoreReads
from perdure._store._directory import DATA_NAME, sync_directory
from perdure._store._schema import DATABASES, MetaKey
from perdure.errors import StoreClosed, StoreError

_COPY_NAME = "copy"
_ROOM_BYTES = 16 * 1024 * 1024
"""Of the map of a copy, beyond what it has: its last rows are changed."""


class Backup:
    """The making of one backup of *store* in the new directory *target*.

    Attributes:
      total: Bytes of the file that is copied. The copy has no more, and may have far less.
    """

    def __init__(self, store: StoreReads, target: str | os.PathLike[str]) -> None:
        self._store = store
        self._target = Path(target).absolute()
        self._partial = self._target.parent / f".perdure-backup-{secrets.token_hex(8)}.partial"
        self._stopped = threading.Event()
        self.total = store.file_bytes()

    def run(self) -> None:
        """Make it; blocks for as long as that takes. In a thread other than that of the store.

        Raises:
          StoreClosed: It was stopped, or the store closed, and there is no backup.
          StoreError: Something is at *target* already, or it can not be written.
        """
        parent = self._target.parent
        if os.path.lexists(self._target):
            raise StoreError(f"{self._target} is there already: name a new directory")
        try:
            self._partial.mkdir(0o700)
        except OSError as error:
            raise StoreError(f"cannot make a backup in {parent}: {error.strerror}") from error
        try:
            self._check_stopped()
            self._copy()
            complete(self._partial)
            self._check_stopped()
            self._partial.rename(self._target)
        except OSError as error:
            raise StoreError(f"cannot make {self._target}: {error.strerror}") from error
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
        sync_directory(parent)

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoreClosed(f"the backup {self._target} was stopped before it was whole")

    def _copy(self) -> None:
        # Under a name of its own: of half a file, a store can not always tell that it is half.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(self._partial / _COPY_NAME, flags, 0o600)
        try:
            self._store.copy(descriptor)
        finally:
            os.close(descriptor)
        (self._partial / _COPY_NAME).rename(self._partial / DATA_NAME)

    def written(self) -> int:
        """Bytes that have been copied so far."""
        for name in (_COPY_NAME, DATA_NAME):
            with contextlib.suppress(FileNotFoundError):
                return (self._partial / name).stat().st_size
        return 0

    def stop(self) -> None:
        """Have :meth:`run` fail soon."""
        self._stopped.set()
        self._store.stop_copy()


def complete(directory: Path) -> None:
    """Have the copied file in *directory* tell of itself, not of the one it is a copy of; sync it.

    Without unused pages it is shorter than the size that it records, and what it says about its
    durability was true of another machine's memory.
    """
    file = directory / DATA_NAME
    size = file.stat().st_size
    map_size = size + _ROOM_BYTES
    # Not as a store would open it: that does not open what is shorter than it was.
    copy = Environment(str(directory), databases=("sites", "meta"), map_size=map_size, durability=1)
    try:
        copy.put(1, MetaKey.FILE_SIZE, size.to_bytes(8, "little"))
        copy.put(1, MetaKey.DURABILITY, b"fsync")
        copy.wait(copy.seal())
    finally:
        copy.close()
    # Closing records how much longer those two rows have made it.
    Environment(str(directory), databases=DATABASES, map_size=map_size, durability=0).close()
    (directory / "lock.mdb").unlink()
    sync_file(file)
    sync_directory(directory)


def sync_file(file: Path) -> None:
    """Bring what *file* holds to the disk."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
