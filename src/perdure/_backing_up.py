"""The verbs that copy the data directory while it is in use."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from perdure._binding import Services
from perdure._opened import Opened
from perdure._store import Backup
from perdure.errors import StoreClosed

Progress = Callable[[int, int], None]
"""Told the bytes written so far, and how many there are at most."""

_PROGRESS_S = 0.1


class BackingUp(Opened):
    """Backups, one after the other."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._one_backup = asyncio.Lock()
        self._backup: Backup | None = None  # that is being made
        self._backups_end = False

    async def backup(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> None:
        """Copy the data directory, as it is at one moment, to the new directory *path*.

        All that was acknowledged before the call is in it, and survives power loss there. Handlers
        and commits go on meanwhile. An engine opens the copy and goes on from that moment; do not
        run it beside this one, or steps happen twice.

        Args:
          path: Must not exist; its parent must.
          progress: Called now and then with the bytes written and the most there may be, at last
            with one number twice.

        Raises:
          StoreClosed: The engine was closed before the copy was whole.
          StoreError: Something is at *path* already, or it can not be written: then nothing is.
        """
        await self._open_scheduler().answers.committed()
        async with self._one_backup:
            if self._backups_end:
                raise StoreClosed(f"the {self._noun} was closed before its turn to be copied came")
            store = self._open_scheduler().store
            backup = self._backup = Backup(store, path)
            try:
                await _run_in_thread(backup, progress)
            finally:
                self._backup = None
        if progress is not None:
            progress(backup.total, backup.total)

    @contextlib.asynccontextmanager
    async def backup_file(self) -> AsyncIterator[BinaryIO]:
        """Such a copy as an open file, which is gone when the block ends.

        Written to a file ``data.mdb``, alone in a directory, it is a backup. The copy lies beside
        the data directory or, where one may not write, where temporary files do.

        Raises:
          StoreClosed, StoreError: As for :meth:`backup`.
        """
        beside = self._open_scheduler().store.path.parent
        folder = str(beside) if os.access(beside, os.W_OK | os.X_OK) else None
        with tempfile.TemporaryDirectory(prefix=".perdure-backup-", dir=folder) as scratch:
            copy = Path(scratch) / "copy"
            await self.backup(copy)
            file = (copy / "data.mdb").open("rb")
        with file:
            yield file

    async def _stop_backups(self) -> None:
        """Have the backup that is being made fail, and wait for its end; called when closing."""
        self._backups_end = True
        if self._backup is not None:
            self._backup.stop()
            async with self._one_backup:
                pass


async def _run_in_thread(backup: Backup, progress: Progress | None) -> None:
    """Run it in a thread of its own: it may take minutes, which asyncio's own threads are not for.

    Cancelled, it returns once nothing is left of the backup.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            backup.run()
        except BaseException as error:
            report = functools.partial(_finish, done, error)
        else:
            report = functools.partial(_finish, done, None)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(report)

    threading.Thread(target=run, name="perdure-backup", daemon=True).start()
    interval = None if progress is None else _PROGRESS_S
    try:
        while not (await asyncio.wait({done}, timeout=interval))[0]:
            if progress is not None:
                progress(backup.written(), backup.total)
    except BaseException:
        backup.stop()
        await asyncio.wait({done})
        raise
    await done


def _finish(done: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        done.exception()  # who was cancelled does not ask for it
