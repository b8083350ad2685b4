"""The directory lock: one process owns a data directory, or several read it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from perdure._journal import remedy_for
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

    Attributes:
      left: What the last owner has left to be known (see :meth:`mark`); empty if nothing.

    Raises:
      DataDirectoryInUse: Another process, or another store in this one, holds it or reads it.
      StoreError: The file cannot be made, because the directory is read-only, say.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot write to {directory}: {error.strerror}{remedy_for(error.errno or 0)}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _refuse_readers(directory)
            self._descriptor = descriptor
            self.left = _lines(os.pread(descriptor, 128, 0))[1]
            self._write()
        except BlockingIOError:
            in_use = _in_use(directory, descriptor)
            os.close(descriptor)
            raise in_use from None
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"cannot lock {path}: {error.strerror}{remedy_for(error.errno or 0)}"
            ) from error
        _held.add(descriptor)

    def mark(self, mark: str) -> None:
        """Leave *mark*, a line, to the next owner; it is on the disk when this returns."""
        self.left = mark
        self._write()
        os.fsync(self._descriptor)

    def unmark(self) -> None:
        """Leave nothing; where that can not be written, the next owner is warned in vain."""
        if self.left:
            with contextlib.suppress(OSError):
                self.mark("")

    def _write(self) -> None:
        # The mark last: where a loss of power leaves a shorter text over a longer one, it is still
        # the second line.
        text = f"{os.getpid()}\n".encode() + (f"{self.left}\n".encode() if self.left else b"")
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Let go of the directory; idempotent, and nothing in a forked child."""
        _release(self._descriptor)
        self._descriptor = -1


class ReaderLock:
    """Keeps others from owning *directory* until :meth:`release`; several may hold it at once.

    It writes nothing. It is a lock of the directory itself, for a copied backup has no lock file,
    and of the lock file where there is one.

    Raises:
      DataDirectoryInUse: Another process, or a store in this one, owns it.
      StoreError: It cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptors: list[int] = []
        try:
            # First: who owns the directory makes the lock file before looking at the directory.
            self._take(directory, directory, os.O_DIRECTORY)
            with contextlib.suppress(FileNotFoundError):
                self._take(directory, directory / LOCK_NAME)
        except BaseException:
            self.release()
            raise

    def _take(self, directory: Path, path: Path, flags: int = 0) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        except FileNotFoundError:
            if path == directory:
                raise StoreError(f"there is no directory {directory}") from None
            raise
        except NotADirectoryError:
            raise StoreError(f"{directory} is no directory") from None
        except OSError as error:
            raise StoreError(
                f"cannot read {path}: {error.strerror}; do it as the user that owns it"
            ) from error
        self._descriptors.append(descriptor)
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = read_owner(directory)
            raise DataDirectoryInUse(
                f"{directory} is in use by process {owner or '(unknown)'}: ask the server that "
                "runs there, by its address (--url), or stop it first"
            ) from None
        except OSError as error:
            if path != directory:  # not every file system can lock a directory
                raise StoreError(f"cannot lock {path}: {error.strerror}") from error

    def release(self) -> None:
        """Let go of the directory; idempotent, and nothing in a forked child."""
        for descriptor in self._descriptors:
            _release(descriptor)
        self._descriptors.clear()


@contextlib.contextmanager
def filling(directory: Path) -> Iterator[None]:
    """Keeps others from owning, reading or filling *directory*, which has no lock file as yet.

    Raises:
      DataDirectoryInUse: Somebody does.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryInUse(
                f"{directory} is in use just now: something else is restored to it, or reads it"
            ) from None
        except OSError:
            pass  # not every file system can lock a directory
        yield
    finally:
        _release(descriptor)


def read_owner(directory: Path) -> str:
    """The pid that the lock file names: of who owns *directory*, or did last; may be empty."""
    try:
        return _lines((directory / LOCK_NAME).read_bytes())[0].strip()
    except OSError:
        return ""


def read_mark(directory: Path) -> str:
    """What the last owner of *directory* has left to be known; empty if there is nothing."""
    try:
        return _lines((directory / LOCK_NAME).read_bytes())[1]
    except FileNotFoundError:  # of a copy there is the data file alone
        return ""


def _lines(text: bytes) -> list[str]:
    return [*text[:128].decode("ascii", "replace").split("\n"), ""][:2]


def _release(descriptor: int) -> None:
    if descriptor in _held:
        _held.discard(descriptor)
        # Closing alone would leave the lock with a child forked just now, which has this
        # descriptor too until it has run _release_in_child.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _refuse_readers(directory: Path) -> None:
    """Raise BlockingIOError if a reader has locked the directory, without a lock file as yet."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # not every file system can lock a directory
    finally:
        os.close(descriptor)


def _in_use(directory: Path, descriptor: int) -> DataDirectoryInUse:
    """What to say where the lock file, open as *descriptor*, or the directory is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return DataDirectoryInUse(
            f"{directory} is in use by process {read_owner(directory) or '(unknown)'}: one process "
            "owns a data directory; serve it from there and connect from the others"
        )
    return DataDirectoryInUse(
        f"{directory} is being read just now, by a command that shows, checks or copies it: try "
        "again when that has ended"
    )
