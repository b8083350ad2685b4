"""Making a data directory of a backup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from perdure._doctor import check_directory
from perdure._store import DATA_NAME, ReaderLock, filling, is_ours, sync_directory, sync_file
from perdure.errors import StoreCorrupt, StoreError

_PARTIAL_NAME = ".perdure-restore.partial"
_CHUNK_BYTES = 4 * 1024 * 1024

Progress = Callable[[int, int], None]


def restore(
    backup: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> None:
    """Make the data directory *data* of *backup*, which stays as it is.

    The copy is checked row by row before it gets its name: an engine that opens *data* goes on from
    the moment of the backup. What happened after it is lost, so steps that ran since run again.

    Args:
      backup: The directory of a backup, or the file of one; that of a closed engine will do.
      data: Must not exist, or be empty.
      progress: Called now and then with the bytes copied and how many there are.

    Raises:
      DataDirectoryInUse: *backup* is the directory of an engine that is open, or something else
        is being restored to *data*.
      StoreCorrupt: The backup is damaged; the text says what was found.
      StoreError: It is no backup; *data* is not empty, or can not be written. Then nothing is.
    """
    source, target = _file_of(Path(backup).absolute()), Path(data).absolute()
    lock = ReaderLock(source.parent)  # it may be that of an engine, which would write to it
    try:
        _restore(source, target, progress)
    finally:
        lock.release()


def _restore(source: Path, target: Path, progress: Progress | None) -> None:
    made = not target.exists()
    try:
        target.mkdir(0o700, exist_ok=True)
        _check_empty(target)
        with filling(target):
            _fill(source, target, progress, made)
    except OSError as error:
        raise StoreError(f"cannot restore to {target}: {error.strerror}") from error
    sync_directory(target)
    sync_directory(target.parent)


def _fill(source: Path, target: Path, progress: Progress | None, made: bool) -> None:
    partial = target / _PARTIAL_NAME
    try:
        _check_empty(target)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(0o700)
        _copy(source, partial / DATA_NAME, progress)
        _check(source, partial)
        for name in os.listdir(partial):
            # In the same directory, which may be a mount point: a rename is one step there.
            (partial / name).rename(target / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made and not os.listdir(target):
            target.rmdir()


def _file_of(backup: Path) -> Path:
    """The data file of *backup*.

    Raises:
      StoreError: There is none.
    """
    file = backup / DATA_NAME if backup.is_dir() else backup
    if not file.is_file():
        raise StoreError(
            f"{backup} is no backup: a backup is a directory with a file {DATA_NAME}, or that file"
        )
    if not is_ours(file):
        raise StoreError(f"{file} is no backup: it is no file that perdure has written")
    return file


def _check_empty(target: Path) -> None:
    if set(os.listdir(target)) - {_PARTIAL_NAME}:  # that one is of a restore that was killed
        raise StoreError(
            f"{target} is not empty: restore to a new directory, then have the engine open that"
        )


def _copy(source: Path, copy: Path, progress: Progress | None) -> None:
    with source.open("rb") as reading, copy.open("xb") as writing:
        total = os.fstat(reading.fileno()).st_size
        copy.chmod(0o600)
        while chunk := reading.read(_CHUNK_BYTES):
            writing.write(chunk)
            if progress is not None:
                progress(writing.tell(), total)
    sync_file(copy)


def _check(source: Path, copy: Path) -> None:
    """Refuse a copy that no engine can go on from.

    The copy and not the source: what was read once may not be read so again.
    """
    report = check_directory(copy, deep=True)
    if report.ok:
        return
    found = "; ".join(
        f"{finding.place}: {finding.what}".replace(str(copy), str(source.parent))
        for finding in report.findings[:3]
    )
    raise StoreCorrupt(f"{source} is no backup to restore: {found}")
