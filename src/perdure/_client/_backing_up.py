"""The verb that copies a server's data directory to this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from perdure._client._connected import Connected
from perdure.errors import StoreError

Progress = Callable[[int, int], None]
"""Told the bytes written so far, and how many there are."""


class BackingUp(Connected):
    """Backups over HTTP."""

    async def backup(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> None:
        """Copy the data directory of a server, as it is at one moment, to the new directory *path*.

        As of ``engine.backup``, an engine opens the copy, which survives power loss here.

        Args:
          path: Must not exist; its parent must.
          progress: Called now and then with the bytes written and how many there are, at last
            with one number twice.

        Raises:
          StoreError: Something is at *path* already, or it can not be written: then nothing is.
          Unavailable: The connection was lost; nothing is at *path*.
        """
        target = Path(path)
        part = await asyncio.to_thread(_beside, target)
        try:
            with (part / "data.mdb").open("xb") as file:
                written = await self._copy(file, progress)
            settling = asyncio.ensure_future(asyncio.to_thread(_settle, part, target))
            try:
                await asyncio.shield(settling)
            finally:
                await asyncio.wait({settling})  # cancelled: nothing is removed before it has ended
        except OSError as error:
            raise StoreError(f"{target} can not be written: {error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if progress is not None:
            progress(written, written)

    async def _copy(self, file: BinaryIO, progress: Progress | None) -> int:
        """Write what the server sends, durably; how many bytes that is."""
        written = 0
        async with (await self._at_admin()).backup() as response:
            total = int(response.headers.get("content-length", "0"))
            async for piece in response.aiter_bytes():
                await asyncio.to_thread(file.write, piece)
                written += len(piece)
                if progress is not None:
                    progress(written, max(written, total))
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
        return written


def _beside(target: Path) -> Path:
    """A new directory, which can become *target*."""
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already; a backup is a new directory")
    try:
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise StoreError(f"{target} can not be made: {error}") from error


def _settle(part: Path, target: Path) -> None:
    """Give the finished copy its name, durably."""
    _sync_folder(part)
    part.rename(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
