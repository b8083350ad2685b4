"""Backups: one moment of a running engine, whole or not there."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from engine_support import Place, run, until, until_idle
from introspection_support import Echo, Gate
from invariants import assert_invariants

from perdure import Engine, Status, StoreClosed, StoreError
from perdure._store import Backup, Store, _backup
from perdure._viewing import View


class Held:
    """Holds up the completion of a copy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        complete = _backup.complete

        def held(directory: Path) -> None:
            self.begun.set()
            assert self.let_go.wait(10)
            complete(directory)

        monkeypatch.setattr(_backup, "complete", held)

    async def begin(self) -> None:
        await until(self.begun.is_set, "the copy")


async def _fill(engine: Engine) -> str:
    handle = await engine.send(Gate.run, 1, key="k")
    await until_idle(engine)
    return handle.id


def test_a_backup_under_load_has_all_that_was_acknowledged_and_runs_to_the_end(
    place: Place, tmp_path: Path
) -> None:
    acknowledged: list[str] = []
    sent = 0

    async def send_on(engine: Engine, stop: asyncio.Event) -> None:
        nonlocal sent
        while not stop.is_set():
            sent += 1
            handle = await engine.send(Gate.run, sent, key=str(sent))
            acknowledged.append(handle.id)

    async def main() -> None:
        stop = asyncio.Event()
        async with place.engine(Gate()) as engine, asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(send_on(engine, stop))
            await until(lambda: len(acknowledged) > 200)
            for number in range(3):
                before = list(acknowledged)
                await engine.backup(tmp_path / f"b{number}")
                during = len(acknowledged) - len(before)
                await _finish(tmp_path / f"b{number}", before)
                assert during >= 0
            stop.set()

    async def _finish(copy: Path, expected: list[str]) -> None:
        assert_invariants(copy)
        async with Engine(copy, [Gate()], durability="os") as restored:
            listed = {each.id: each.key async for each in restored.all_invocations()}
            assert set(expected) <= set(listed)
            some = sorted(listed)[:: max(1, len(listed) // 20)]
            for invocation_id in some:
                key = listed[invocation_id]
                await restored.resolve("Gate.go", 1000, key=key)
                assert await restored.attach(invocation_id, int) == int(key) + 1000
        assert_invariants(copy)

    run(main())


def test_calls_are_answered_while_a_backup_is_made(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    async def main() -> None:
        async with place.engine(Echo()) as engine:
            backup = asyncio.create_task(engine.backup(tmp_path / "copy"))
            await held.begin()
            assert await engine.call(Echo.say, 1) == 1
            assert not (tmp_path / "copy").exists()
            held.let_go.set()
            await backup
            assert os.listdir(tmp_path / "copy") == ["data.mdb"]

    run(main())


def test_a_backup_tells_how_far_it_is(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    told: list[tuple[int, int]] = []

    def tell(written: int, total: int) -> None:
        told.append((written, total))
        held.let_go.set()

    async def main() -> None:
        async with place.engine(Gate()) as engine:
            await _fill(engine)
            await engine.backup(tmp_path / "copy", progress=tell)
        assert len(told) >= 2
        assert all(0 < written <= total for written, total in told)
        assert told[-1][0] == told[-1][1]

    run(main())


@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.mkdir(),
        lambda path: path.write_text("mine"),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["directory", "file", "link"],
)
def test_what_is_there_is_not_overwritten(
    resident_place: Place, tmp_path: Path, put: Callable[[Path], object]
) -> None:
    put(tmp_path / "copy")

    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            with pytest.raises(StoreError, match="is there already: name a new directory"):
                await engine.backup(tmp_path / "copy")

    run(main())
    assert sorted(os.listdir(tmp_path)) == ["copy", "data"]


def test_a_backup_into_a_missing_directory_says_so(resident_place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            with pytest.raises(StoreError, match=r"backup in .*missing: No such file"):
                await engine.backup(tmp_path / "missing" / "copy")

    run(main())


def test_a_backup_that_does_not_fit_is_an_error_and_leaves_nothing(
    resident_place: Place, tmp_path: Path
) -> None:
    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            await _fill(engine)
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            try:
                with pytest.raises(StoreError, match="too large"):
                    await engine.backup(tmp_path / "copy")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert os.listdir(tmp_path) == ["data"]
            await engine.backup(tmp_path / "copy")

    run(main())


def test_a_cancelled_backup_leaves_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    async def main() -> None:
        async with place.engine(Gate()) as engine:
            backup = asyncio.create_task(engine.backup(tmp_path / "copy"))
            await held.begin()
            backup.cancel()
            await asyncio.sleep(0)
            held.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await backup
            assert os.listdir(tmp_path) == ["data"]

    run(main())


def test_a_backup_stopped_before_it_copies_copies_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", durability="os")
    try:
        backup = Backup(store, tmp_path / "copy")
        backup.stop()
        with patch.object(Store, "copy") as copy, pytest.raises(StoreClosed):
            backup.run()
        copy.assert_not_called()
    finally:
        store.close()
    assert os.listdir(tmp_path) == ["data"]


def test_closing_the_engine_ends_a_backup_first(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    async def main() -> None:
        engine = place.engine(Gate())
        await engine.open()
        first = asyncio.create_task(engine.backup(tmp_path / "copy"))
        await held.begin()
        second = asyncio.create_task(engine.backup(tmp_path / "second"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        held.let_go.set()
        await closing
        for backup in (first, second):
            with pytest.raises(StoreClosed):
                await backup
        assert os.listdir(tmp_path) == ["data"]

    run(main())


def test_backups_asked_for_at_once_are_all_made(place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            waits = await _fill(engine)
            paths = [tmp_path / str(number) for number in range(3)]
            await asyncio.gather(*[engine.backup(path) for path in paths])
        for path in paths:
            async with View(path) as view:
                assert (await view.describe(waits)).status is Status.SUSPENDED

    run(main())


def test_a_backup_as_a_file_is_a_data_file_and_leaves_nothing_behind(
    place: Place, tmp_path: Path
) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            waits = await _fill(engine)
            async with engine.backup_file() as file:
                assert os.listdir(tmp_path) == ["data"]
                (tmp_path / "copy").mkdir()
                (tmp_path / "copy" / "data.mdb").write_bytes(file.read())
            assert file.closed
        async with View(tmp_path / "copy") as view:
            assert (await view.describe(waits)).status is Status.SUSPENDED

    run(main())


def test_a_view_makes_backups_too_and_changes_nothing(place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            waits = await _fill(engine)
        before = (place.path / "data.mdb").read_bytes()
        async with View(place.path) as view:
            await view.backup(tmp_path / "copy")
        assert (place.path / "data.mdb").read_bytes() == before
        async with Engine(tmp_path / "copy", [Gate()]) as engine:
            await engine.call(Gate.go, 2, key="k")
            assert await engine.attach(waits) == 3

    run(main())


def test_a_backup_of_a_store_in_memory_is_a_directory(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "label", [Gate()], durability="memory") as engine:
            waits = await _fill(engine)
            await engine.backup(tmp_path / "copy")
        async with View(tmp_path / "copy") as view:
            assert (await view.describe(waits)).status is Status.SUSPENDED

    run(main())


def test_a_backup_is_durable_whatever_its_source_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", durability="os")
    Backup(store, tmp_path / "copy").run()
    store.close()
    data = (tmp_path / "copy" / "data.mdb").read_bytes()
    assert b"durabilityfsync" in data


KILLED = """
import os, signal, sys
from pathlib import Path
from unittest.mock import patch
from perdure._store import Backup, Db, Store, _backup
store = Store(sys.argv[1] + "/data")
for number in range(100):
    store.put(Db.STATE, b"g", b"%04d" % number, b"v" * 10_000)
store.wait_committed(store.seal())
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
point = sys.argv[2]
if point == "in the copy":
    def half(descriptor):
        os.write(descriptor, Path(sys.argv[1], "data", "data.mdb").read_bytes()[:500_000])
        die()
    store.copy = half
elif point == "before it is completed":
    _backup.complete = die
elif point == "before it is synced":
    _backup.sync_file = die
else:
    Path.rename = die
Backup(store, sys.argv[1] + "/copy").run()
"""


@pytest.mark.parametrize(
    "point",
    ["in the copy", "before it is completed", "before it is synced", "before it is renamed"],
)
def test_a_kill_in_the_middle_leaves_nothing_that_has_the_name_of_a_backup(
    tmp_path: Path, point: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), point], timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = sorted(os.listdir(tmp_path))
    assert len(left) == 2
    assert left[0].startswith(".perdure-backup-")
    assert left[0].endswith(".partial")
    if point == "in the copy":
        with pytest.raises(StoreError, match="not a perdure data directory"):
            Store(tmp_path / left[0])
    store = Store(tmp_path / "data")
    Backup(store, tmp_path / "copy").run()
    store.close()
    Store(tmp_path / "copy").close()
