"""The data directory: made, recognised, refused, and brought to the disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from perdure._journal import Environment, remedy_for
from perdure._store._lock import LOCK_NAME
from perdure._store._preflight import NotLmdb, Preflight, inspect
from perdure._store._schema import MAGIC, SCHEMA_VERSION, MetaKey
from perdure.errors import StoreCorrupt, StoreError

DATA_NAME = "data.mdb"
_PARTIAL_NAME = ".perdure-new.partial"
_OWN_NAMES = frozenset({DATA_NAME, "lock.mdb", LOCK_NAME, _PARTIAL_NAME})
# A container's /dev/shm is often 64 MiB, which a test may well fill.
_SHARED_MEMORY_BYTES_MIN = 256 * 1024 * 1024


def prepare(directory: Path) -> None:
    """Make *directory*, or see that it is one of ours; writes nothing in one that is not.

    Raises:
      StoreError: It is a file, cannot be made or read, or holds something else.
    """
    made = []
    try:
        missing = directory
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        # Who made it may have been killed before its name was synced. So at most one name on the
        # way to the file is not on the disk yet, and it is always this one.
        sync_directory(missing.parent)
        for folder in reversed(made):
            folder.mkdir(exist_ok=True)
            sync_directory(folder.parent)
        names = set(os.listdir(directory))
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{directory} is a file, or lies in one; name a directory") from None
    except OSError as error:
        raise StoreError(
            f"cannot open {directory}: {error.strerror}{remedy_for(error.errno or 0)}"
        ) from error
    if DATA_NAME not in names:
        if names - _OWN_NAMES:
            raise _foreign(directory)
    elif LOCK_NAME not in names and not _inspect(directory).is_ours:
        # What says nothing of itself is ours only where a process was killed, as older versions
        # could be, before its first commit: then the lock file is there.
        raise _foreign(directory)


def make_file(directory: Path) -> None:
    """Make the data file of the locked *directory*, if there is none.

    What has its name is whole. LMDB would make it under that name, and write to its first pages
    what a loss of power could leave half of: nobody can tell such a file from a damaged store.
    """
    file, partial = directory / DATA_NAME, directory / _PARTIAL_NAME
    if file.exists() and file.stat().st_size != 0:
        return
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(0o700)
        environment = Environment(str(partial), databases=("meta",), map_size=0, durability=1)
        try:
            environment.put(0, MetaKey.MAGIC, MAGIC)
            environment.put(0, MetaKey.SCHEMA, SCHEMA_VERSION.to_bytes(4, "little"))
            environment.wait(environment.seal())
        finally:
            environment.close()
        (partial / DATA_NAME).rename(file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def examine(directory: Path) -> Preflight | None:
    """What the data file in the locked *directory* says of itself; None if there is none yet.

    Raises:
      StoreError: It is of a newer schema.
      StoreCorrupt: It is damaged or was cut short.
    """
    if not (directory / DATA_NAME).exists():
        return None
    try:
        found = inspect(directory / DATA_NAME)
    except NotLmdb:
        raise StoreCorrupt(
            f"{directory / DATA_NAME} is damaged from its first page on; restore it from a backup"
        ) from None
    if not found.is_ours:
        return None  # a process was killed before its first commit
    schema = int.from_bytes(found.rows.get(MetaKey.SCHEMA, b""), "little")
    if schema > SCHEMA_VERSION:
        raise StoreError(
            f"{directory} was written with schema version {schema}; this perdure knows versions "
            f"up to {SCHEMA_VERSION}: install a newer perdure"
        )
    return found


def recognise(directory: Path) -> Preflight:
    """What the data file in an existing *directory* says of itself; makes and writes nothing.

    Raises:
      StoreError: There is none that perdure has written, or it is of a newer schema.
      StoreCorrupt: It is damaged or was cut short.
    """
    try:
        if not directory.is_dir():
            raise StoreError(f"{directory} is no directory; name the data directory of an engine")
        names = set(os.listdir(directory))
        if DATA_NAME in names and LOCK_NAME not in names and not _inspect(directory).is_ours:
            raise _foreign(directory)
        found = examine(directory)
    except OSError as error:
        raise StoreError(
            f"cannot read {directory}: {error.strerror}{remedy_for(error.errno or 0)}"
        ) from error
    if found is None:
        raise StoreError(
            f"{directory} is no data directory of perdure: it has no {DATA_NAME} that perdure has "
            "written"
        )
    return found


def is_ours(file: Path) -> bool:
    """Whether *file* is a data file that perdure has written to.

    Raises:
      StoreCorrupt: It is an LMDB file, but damaged or cut short.
    """
    try:
        return inspect(file).is_ours
    except NotLmdb:
        return False


def warnings_of(directory: Path, rows: dict[bytes, bytes], left: str) -> list[str]:
    """What the user should know, by the *rows* of ``meta`` and what is *left* in the lock file.

    A copy of the file has only the row; but a loss of power may leave of it what it was long ago.
    """
    row = rows.get(MetaKey.DURABILITY, b"").decode("ascii", "replace")
    for mark in (row, left):
        mode, _, boot_id = mark.partition(" ")
        if mode == "os" and boot_id not in ("clean", read_boot_id()):
            break
    else:
        return []
    warning = (
        f"{directory} was in use with durability='os' when the machine stopped, so its last writes "
        "may be missing or the file damaged. Look whether all is there, or restore a backup"
    )
    return [warning]


def _inspect(directory: Path) -> Preflight:
    try:
        return inspect(directory / DATA_NAME)
    except NotLmdb:
        raise _foreign(directory) from None


def _foreign(directory: Path) -> StoreError:
    return StoreError(
        f"{directory} is not a perdure data directory, and not empty; nothing was written to it: "
        "name an empty or new directory"
    )


def sync_directory(directory: Path) -> None:
    """Make the names in *directory* survive power loss."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # One may write to a directory without the right to list it, and only a listable one can
        # be opened to be synced. Most file systems sync a new name with its file anyway.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # that is a file system that has nothing to be synced
            raise
    finally:
        os.close(descriptor)


def make_memory_directory() -> Path:
    """A private directory, in shared memory where there is enough of it."""
    shared = Path("/dev/shm")
    try:
        roomy = shutil.disk_usage(shared).free >= _SHARED_MEMORY_BYTES_MIN
    except OSError:
        roomy = False
    if roomy and os.access(shared, os.W_OK | os.X_OK):
        return Path(tempfile.mkdtemp(prefix="perdure-", dir=shared))
    return Path(tempfile.mkdtemp(prefix="perdure-"))


def read_boot_id() -> str:
    """Something that changes with each start of the machine; empty where there is no such file."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
