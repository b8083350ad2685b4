"""Directories an engine can not have: in use, read-only, another program's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run

from perdure import Context, DataDirectoryInUse, Service, StoreCorrupt, StoreError, handler
from perdure._runtime._due import DueTimers
from perdure._store import Store, _directory

NOBODY = 65534

OPEN = """
import asyncio, sys, perdure

async def main():
    async with perdure.Engine(sys.argv[1], []):
        print("opened")

try:
    asyncio.run(main())
except perdure.StoreError as refused:
    print(type(refused).__name__, refused)
"""


class Idle(Service):
    """Something to serve."""

    @handler
    async def nod(self, ctx: Context) -> str:
        return "nods"


def opened(place: Place, **options: Any) -> None:
    async def main() -> None:
        async with place.engine(Idle(), **options):
            pass

    run(main())


def in_another_process(path: Path, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        **options,
    )
    return done.stdout.strip()


def test_a_second_engine_in_the_process_is_refused_and_the_first_goes_on(
    resident_place: Place,
) -> None:
    async def main() -> None:
        async with resident_place.engine(Idle()) as engine:
            with pytest.raises(DataDirectoryInUse, match=f"is in use by process {os.getpid()}:"):
                await resident_place.engine(Idle()).open()
            assert await engine.call(Idle.nod) == "nods"

    run(main())
    opened(resident_place)


def test_an_engine_in_another_process_is_told_who_has_the_directory(
    resident_place: Place,
) -> None:
    async def main() -> str:
        async with resident_place.engine(Idle()):
            return in_another_process(resident_place.path)

    told = run(main())
    assert told.startswith("DataDirectoryInUse ")
    assert f"is in use by process {os.getpid()}: one process owns a data directory" in told
    assert in_another_process(resident_place.path) == "opened"


def test_a_refused_engine_may_be_opened_later(resident_place: Place) -> None:
    async def main() -> None:
        late = resident_place.engine(Idle())
        async with resident_place.engine(Idle()):
            with pytest.raises(DataDirectoryInUse):
                await late.open()
        async with late:
            pass

    run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_this_user_may_not_write_is_a_clear_error(
    resident_place: Place, tmp_path: Path
) -> None:
    opened(resident_place)
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    with pytest.raises(StoreError, match="Permission denied: give this user the rights"):
        _open_as_nobody(resident_place.path)


def _open_as_nobody(path: Path) -> None:
    """Open *path* in a forked child that is nobody; what it met is raised here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            opened(Place(path, 0))
            os.write(writing, b"opened")
        except BaseException as refused:
            os.write(writing, f"{type(refused).__name__} {refused}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    told = b""
    while part := os.read(reading, 65536):
        told += part
    os.close(reading)
    os.waitpid(pid, 0)
    kind, _, text = told.decode().partition(" ")
    assert kind == "StoreError", told
    raise StoreError(text)


def test_the_directory_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path / "theirs", 0)
    place.path.mkdir()
    (place.path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not a perdure data directory, and not empty; nothing"):
        opened(place)
    assert [path.name for path in place.path.iterdir()] == ["notes.txt"]


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path / "file", 0)
    place.path.write_text("mine")
    with pytest.raises(StoreError, match="is a file, or lies in one; name a directory"):
        opened(place)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path / "data", 0)
    opened(place)
    data = place.path / "data.mdb"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(StoreCorrupt, match="it was cut short; restore it from a backup"):
        opened(place)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"durability": "safe"}, "durability must be 'fsync', 'os' or 'memory', not 'safe'"),
        ({"max_resident": -1}, "max_resident must not be negative"),
        ({"step_threads": 0}, "step_threads must be at least 1"),
        ({"drain_timeout": -1}, "drain_timeout must not be negative"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_when_the_engine_is_made(
    resident_place: Place, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        resident_place.engine(Idle(), **options)


def test_an_engine_that_could_not_open_leaves_the_loop_to_the_next(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(DueTimers, "fire_due", refuse)
            with pytest.raises(StoreCorrupt):
                await resident_place.engine(Idle()).open()
        # It gets the number that the descriptor of the first had.
        async with resident_place.engine(Idle()) as engine:
            assert await (await engine.send(Idle.nod)).result() == "nods"

    def refuse(due: DueTimers, limit: int) -> None:
        raise StoreCorrupt("a bit has flipped")

    run(main())


def test_what_another_boot_may_have_cost_is_logged_at_open(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_and_leave() -> None:
        async with resident_place.engine():
            pass

    caplog.set_level(logging.WARNING, logger="perdure")
    monkeypatch.setattr(_directory, "read_boot_id", lambda: "boot-1")
    store = Store(resident_place.path, durability="os")
    store.close(flush=False)  # as a machine that stops would leave it
    monkeypatch.setattr(_directory, "read_boot_id", lambda: "boot-2")
    run(open_and_leave())
    assert "was in use with durability='os' when the machine stopped" in caplog.text
