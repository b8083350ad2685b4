"""Rows made at random, under right checksums: an engine, a view, SQL and a deep check read them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cbor_support import payloads
from engine_support import ManualClock
from filled_support import change, fill, rows_of, services
from fuzz_support import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure import Engine, StoreError, TerminalError
from perdure._doctor._contents import Contents
from perdure._doctor._report import Finding
from perdure._journal import encode_entries
from perdure._reading import Reading
from perdure._sql._virtual import TABLES
from perdure._store import Db, ReadOnlyStore, Store
from perdure._viewing import View

Row = tuple[Db, bytes, bytes]
DATABASES = [db for db in Db if db is not Db.META]
HANG_S = 10

entries = st.tuples(
    st.integers(1, 40) | st.integers(1, 255),
    st.integers(0, 8) | st.integers(0, 2**32 - 1),
    st.sampled_from(["", "go", "wait", "value", "n" * 200]) | st.text(max_size=5),
    st.none() | payloads.filter(lambda payload: len(payload) < 200),
    st.integers(0, 2**64 - 1) | st.just(0),
    st.integers(0, 4),
    st.integers(0, 255),
)
chunks = st.lists(entries, max_size=4).map(encode_entries)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("any-rows") / "data")


@pytest.fixture(scope="module")
def known(filled: Path) -> dict[Db, list[tuple[bytes, bytes]]]:
    return {db: rows_of(filled, db) for db in DATABASES}


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        end = start + draw(st.integers(0, 2))
        changed[start:end] = draw(st.binary(max_size=2) | st.sampled_from([b"\0", b"\xff" * 8]))
    return bytes(changed)


@st.composite
def strange_rows(draw: st.DrawFn, known: dict[Db, list[tuple[bytes, bytes]]]) -> list[Row]:
    """One to three rows: a key that is there, nearly there or not; a value likewise."""
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 3))):
        db = draw(st.sampled_from(DATABASES))
        key, value = draw(st.sampled_from(known[db]))
        other = draw(st.sampled_from(DATABASES))
        another = st.sampled_from([each for _, each in known[other]])
        key = draw(st.just(key) | mutated(key) | st.binary(min_size=1, max_size=60))
        value = draw(mutated(value) | st.binary(max_size=60) | another | chunks | payloads)
        rows.append((db, key[:511] or b"\0", value[:10_000]))
    return rows


async def ask_all(reading: Reading) -> None:
    """Ask for all that can be read; each may be refused."""
    refused = contextlib.suppress(StoreError, TerminalError)
    for table in TABLES:
        with refused:
            await reading.query(f"SELECT * FROM {table.name}")
    with refused:
        for summary in (await reading.invocations(limit=100)).items:
            with refused:
                await reading.describe(summary.id)


async def view(path: Path) -> None:
    with contextlib.suppress(StoreError):
        async with View(path) as reading:
            await ask_all(reading)


async def run_engine(path: Path) -> None:
    engine = Engine(
        path, services(), durability="os", clock=ManualClock(), drain_timeout=0.01, max_resident=0
    )
    try:
        await engine.open()
    except StoreError:
        return
    scheduler = engine._scheduler
    assert scheduler is not None
    try:
        for _ in range(20):
            await asyncio.sleep(0)
        await ask_all(engine)
    finally:
        with contextlib.suppress(StoreError):
            await engine.close()
    assert scheduler.failure is None or isinstance(scheduler.failure, StoreError)


def check_deeply(path: Path) -> list[Finding]:
    found: list[Finding] = []
    with contextlib.closing(ReadOnlyStore(str(path))) as store:
        Contents(store, found.append, lambda _: None).read()
    return found


@contextlib.contextmanager
def copied(filled: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(filled, Path(folder) / "data"))


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_rows_hold_they_are_read_or_refused(
    filled: Path,
    known: dict[Db, list[tuple[bytes, bytes]]],
    caplog: pytest.LogCaptureFixture,
    data: st.DataObject,
) -> None:
    caplog.set_level(logging.ERROR, logger="perdure")
    caplog.clear()
    rows = data.draw(strange_rows(known))
    with copied(filled) as path:

        def write(store: Store) -> None:
            for db, key, value in rows:
                store.put(db, b"", key, value)

        change(path, write)
        for finding in check_deeply(path):
            assert finding.what
            assert finding.remedy
        for read in (view, run_engine):
            asyncio.run(asyncio.wait_for(read(path), HANG_S))
    assert [each.getMessage() for each in caplog.records if "defect" in each.msg] == []
