"""Rows of nonsense under a right checksum: an engine opens, or says that the directory is damaged.

No such row comes from a disk, whose damage the checksums find; but from a program that should not
have written there. Neither may it end in a defect of perdure's own, in a hang, or in another error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_support import ManualClock
from filled_support import fill, services

from perdure import Engine, PerdureError, StoreError, TerminalError
from perdure._store import Db, Store

ROWS_EACH = 3


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("strange") / "data")


def nonsense(value: bytes) -> Iterator[bytes]:
    """Values in the place of *value*."""
    yield b""
    yield b"\xff" * 7
    yield bytes(40)
    yield value[: len(value) // 2]
    yield value + b"x"


async def open_and_look(path: Path) -> None:
    """What people do with a directory; each may be refused."""
    engine = Engine(
        path, services(), durability="os", clock=ManualClock(), drain_timeout=0.01, max_resident=0
    )
    try:
        await engine.open()
    except StoreError:
        return
    try:
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)
        for page in (engine.invocations(limit=100), engine.query("SELECT * FROM sys_invocation")):
            with contextlib.suppress(StoreError, TerminalError):
                await page
        for summary in (await engine.invocations(limit=100)).items:
            with contextlib.suppress(StoreError, TerminalError):
                await engine.describe(summary.id)
    except StoreError:
        pass
    finally:
        scheduler = engine._scheduler
        assert scheduler is not None
        failure = scheduler.failure
        assert failure is None or isinstance(failure, StoreError), failure
        with contextlib.suppress(StoreError):
            await engine.close()


@pytest.mark.parametrize("db", [db for db in Db if db is not Db.META], ids=lambda db: db.name)
def test_an_engine_opens_or_refuses_whatever_a_row_holds(
    filled: Path, tmp_path: Path, db: Db, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="perdure")
    store = Store(shutil.copytree(filled, tmp_path / "read"), durability="os")
    rows = store.scan_committed(db)[:ROWS_EACH]
    store.close()
    assert rows
    for number, (key, value) in enumerate(rows):
        for kind, strange in enumerate(nonsense(value)):
            path = Path(shutil.copytree(filled, tmp_path / f"{number}-{kind}"))
            store = Store(path, durability="os")
            store.put(db, b"", key, strange)
            store.seal()
            store.close()
            try:
                asyncio.run(asyncio.wait_for(open_and_look(path), 10))
            except PerdureError as error:
                raise AssertionError(f"{key.hex()} = {strange.hex()}") from error
            defects = [each.getMessage() for each in caplog.records if "defect" in each.msg]
            assert defects == [], (key, strange)
