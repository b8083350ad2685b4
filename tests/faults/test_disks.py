"""A full disk, a read-only one, a slow one, a damaged file: what an engine says and keeps."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing_children import Keep, check_kept, engine_on, work
from faults_support import run_child, succeeded
from store_support import fork_child, wait_for

from perdure import StoreBroken, StoreError
from perdure._doctor import Severity, check_directory

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"can not mount a small tmpfs: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_an_engine_whose_disk_is_full_says_so_and_goes_on_once_there_is_room(disk: Path) -> None:
    path = disk / "data"
    acknowledged: list[str] = []
    effects: list[str] = []

    async def main() -> None:
        engine = engine_on(path, effects)
        await engine.open()
        # Of a write that was cut short, LMDB says EIO.
        text = r"No space left on device .*: make room for it|the disk may be full or failing"
        with pytest.raises(StoreBroken, match=text):
            await work(engine, acknowledged)
        await engine.close()
        remount(disk, "size=64m")
        await check_kept(path, acknowledged, effects)

    asyncio.run(main())
    assert len(acknowledged) > 10


def test_a_read_only_disk_is_refused_with_what_to_do_and_left_as_it_is(disk: Path) -> None:
    path = disk / "data"
    acknowledged: list[str] = []
    effects: list[str] = []

    async def main() -> None:
        async with engine_on(path, effects) as engine:
            await work(engine, acknowledged, 3)
        remount(disk, "ro")
        for place in (path, disk / "new"):
            with pytest.raises(StoreError, match="Read-only file system: it is on a read-only"):
                await engine_on(place, effects).open()
        assert [
            finding
            for finding in check_directory(path, deep=True).findings
            if "damaged" in str(finding)
        ] == []
        remount(disk, "rw")
        await check_kept(path, acknowledged, effects)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "perdure.lock"])
def test_a_file_that_may_not_be_written_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data"
    acknowledged: list[str] = []
    effects: list[str] = []

    async def main() -> None:
        async with engine_on(path, effects) as engine:
            await work(engine, acknowledged, 3)

    asyncio.run(main())
    nobody = 65534
    if os.geteuid() == 0:
        for parent in (path, *tmp_path.parents[:-2], tmp_path):
            os.chmod(parent, 0o755)
        for file in (path, *path.iterdir()):
            os.chown(file, nobody, nobody)
    os.chmod(path / name, 0)

    def child() -> None:
        if os.geteuid() == 0:
            os.setgid(nobody)
            os.setuid(nobody)
        with pytest.raises(StoreError) as refused:
            asyncio.run(engine_on(path, effects).open())
        text = str(refused.value)
        assert str(path) in text
        assert "Permission denied" in text
        assert "give this user the rights to it" in text

    assert wait_for(fork_child(child)) == 0
    os.chmod(path / name, 0o600)
    if os.geteuid() == 0:
        for file in (path, *path.iterdir()):
            os.chown(file, 0, 0)
    asyncio.run(check_kept(path, acknowledged, effects))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]
)
def test_damaged_pages_are_a_finding_of_the_doctor_and_nobody_elses_process_ends(
    tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "data"
    acknowledged: list[str] = []
    effects: list[str] = []

    async def main() -> None:
        async with engine_on(path, effects) as engine:
            await work(engine, acknowledged, 40)

    asyncio.run(main())
    file = path / "data.mdb"
    whole = file.read_bytes()
    chance = random.Random(seed)
    found = 0
    pages = [0, 1, 2] if seed == 0 else [chance.randrange(2, len(whole) // PAGE) for _ in range(3)]
    for page in pages:
        damaged = bytearray(whole)
        damaged[page * PAGE : (page + 1) * PAGE] = (
            b"\xff" * PAGE if seed == 0 else chance.randbytes(PAGE)
        )
        file.write_bytes(damaged)
        errors = [
            each
            for each in check_directory(path, deep=True).findings
            if each.severity is Severity.ERROR
        ]
        found += bool(errors)
        for error in errors:
            assert error.remedy
    file.write_bytes(whole)
    assert found or seed  # a page that is free may be anything
    asyncio.run(check_kept(path, acknowledged, effects))


def slow_syncs(path: str) -> None:
    """200 workflows at once, each two commits, on a disk whose syncs take 100 ms."""
    from faults_support import Faults

    asyncio.run(_slow_syncs(Path(path), Faults()))


async def _slow_syncs(path: Path, faults: object) -> None:
    loop = asyncio.get_running_loop()
    effects: list[str] = []
    gaps = [0.0]

    async def turn() -> None:
        last = loop.time()
        while True:
            await asyncio.sleep(0.005)
            now = loop.time()
            gaps.append(now - last)
            last = now

    complaints: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    engine = engine_on(path, effects, stall_warning=1.0)
    logging.getLogger("perdure").setLevel(logging.WARNING)
    logging.getLogger("perdure").addHandler(Listener())
    await engine.open()
    faults.slow_syncs(100)  # type: ignore[attr-defined]
    turning = asyncio.create_task(turn())
    begun = loop.time()
    await engine.submit(Keep.run, bytes(10), key="alone")
    alone = loop.time() - begun
    begun = loop.time()
    keys = [f"{number:06d}" for number in range(200)]
    await asyncio.gather(*(engine.submit(Keep.run, bytes(3000), key=key) for key in keys))
    together = loop.time() - begun
    turning.cancel()
    faults.slow_syncs(0)  # type: ignore[attr-defined]
    await engine.close()
    await check_kept(path, keys, effects)
    print(alone, together, max(gaps), complaints)


def test_on_a_slow_disk_many_share_a_sync_and_the_loop_is_never_held(
    failing_calls: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    said = succeeded(run_child("test_disks:slow_syncs", path, library=failing_calls))
    alone, together, gap, complaints = said.split(maxsplit=3)
    assert 0.2 <= float(alone) < 1.5, "a step's start and the result: a sync each"
    assert float(together) < 4, "one by one they would take 40 s"
    assert float(gap) < 0.5, said
    assert complaints == "[]\n"
