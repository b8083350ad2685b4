"""The directory lock: one process owns a data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from perdure.errors import DataDirectoryInUse, StoreError

LOCK_NAME = "perdure.lock"

_held: set[int] = set()


def _release_in_child() -> None:
    # The lock belongs to the open file, which the child shares: kept open there, it would outlive
    # the parent. Closing the child's descriptor leaves the parent's lock alone.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)


class DirectoryLock:
    """Holds ``perdure.lock`` in *directory* until :meth:`release` or the end of the process.

    Raises:
      DataDirectoryInUse: Another process, or another store in this one, holds it.
      StoreError: The file cannot be made, because the directory is read-only, say.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot write to {directory}: {error.strerror}; give this user the right to "
                "write there, or choose another data directory"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DataDirectoryInUse(
                f"{directory} is in use by process {owner or '(unknown)'}: one process owns a "
                "data directory; serve it from there and connect from the others"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"cannot lock {path}: {error.strerror}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Let go of the directory; idempotent, and nothing in a forked child."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            # Closing alone would leave the lock with a child forked just now, which has this
            # descriptor too until it has run _release_in_child.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
        self._descriptor = -1
