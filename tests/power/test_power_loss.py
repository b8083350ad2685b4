"""The power goes at every sync of a real process: what was acknowledged is there, and whole.

The process writes by the real liblmdb, and each of its calls is logged (``write_log.c``). What may
be on the disk is worked out of the log by the fault model at the head of ``lost_power.py``. Real
stores and engines go on from that.

No device mapper: kernels of test machines and containers often have none (``dm-log-writes`` and
``dm-flakey`` are modules), and a log of the calls tells also what had been acknowledged when.

A red run prints the seed and the number of disks with which the same disks are judged again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lost_power import Disk
from power_support import HERE, Logged, run_logged

MOMENTS_MIN = 80
"""Twice as many as there are syncs at least: fewer, and the log misses some."""


@pytest.fixture(scope="module")
def write_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("writes are logged by a preloaded library, which takes Linux and gcc")
    library = tmp_path_factory.mktemp("write_log") / "write_log.so"
    source = HERE / "write_log.c"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return library


@pytest.fixture(scope="module")
def store_logged(write_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """A store that has been made, written to, closed, opened, copied and restored."""
    return run_logged(write_log, tmp_path_factory.mktemp("store"), "store_program")


@pytest.fixture(scope="module")
def engine_logged(write_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """An engine that has run workflows, services and an object, and was copied and restored."""
    return run_logged(write_log, tmp_path_factory.mktemp("engine"), "engine_program")


@pytest.fixture(params=["store", "engine"])
def logged(request: pytest.FixtureRequest) -> Logged:
    found: Logged = request.getfixturevalue(f"{request.param}_logged")
    return found


def test_the_log_holds_all_that_the_process_wrote(logged: Logged) -> None:
    disk = Disk(logged.root)
    for record in logged.records():
        disk.begin(record)
        disk.end(record)
    files = {
        str(path.relative_to(logged.root)): path.read_bytes()
        for path in logged.root.rglob("*")
        if path.is_file()
    }
    seen = disk.files_seen()
    assert files.keys() == seen.keys()
    for name, content in files.items():
        if not name.endswith("lock.mdb"):  # LMDB maps it, and makes it anew at each opening
            assert content == seen[name], name


def test_a_store_keeps_whole_units_and_all_that_was_acknowledged(store_logged: Logged) -> None:
    verdict = store_logged.judge(10)
    assert verdict.problems == []
    assert verdict.moments > MOMENTS_MIN


def test_an_engine_loses_nothing_acknowledged_and_repeats_no_journalled_step(
    engine_logged: Logged,
) -> None:
    verdict = engine_logged.judge(4)
    assert verdict.problems == []
    assert verdict.moments > MOMENTS_MIN


@pytest.mark.long
def test_an_engine_loses_nothing_of_everything_a_handler_can_do(
    write_log: Path, tmp_path: Path
) -> None:
    verdict = run_logged(write_log, tmp_path, "engine_program", mixed=1).judge(4)
    assert verdict.problems == []


@pytest.mark.long
def test_a_store_keeps_all_on_many_more_disks(write_log: Path, tmp_path: Path) -> None:
    verdict = run_logged(write_log, tmp_path, "store_program", units=24).judge(30)
    assert verdict.problems == []


@pytest.mark.long
@pytest.mark.parametrize("die_at", [9, 16])  # of 22 units; how many commits there are is luck
def test_an_engine_that_goes_on_after_a_kill_loses_nothing(
    write_log: Path, tmp_path: Path, die_at: int
) -> None:
    run_logged(write_log, tmp_path, "engine_program", die_at=die_at)
    verdict = run_logged(write_log, tmp_path, "engine_program", life=2).judge(4)
    assert verdict.problems == []


@pytest.mark.parametrize(
    "die_at", [2, *(pytest.param(at, marks=pytest.mark.long) for at in (3, 4))]
)
def test_a_name_is_synced_also_where_who_made_it_was_killed(
    write_log: Path, tmp_path: Path, die_at: int
) -> None:
    run_logged(write_log, tmp_path, "store_program", die_at=die_at)
    verdict = run_logged(write_log, tmp_path, "store_program", units=4).judge(4)
    assert verdict.problems == []


@pytest.mark.parametrize("samples", [5, pytest.param(25, marks=pytest.mark.long)])
def test_a_store_that_does_not_sync_is_whole_or_says_that_it_may_not_be(
    write_log: Path, tmp_path: Path, samples: int
) -> None:
    logged = run_logged(write_log, tmp_path, "store_program", durability="os")
    assert logged.judge(samples, warned=True).problems == []


# -- what must be found wanting -------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["lie_about_syncs", "forget_directories"])
def test_a_disk_that_lies_is_found_out(store_logged: Logged, lie: str) -> None:
    assert store_logged.judge(25, tamper=lie).problems != []


def test_an_acknowledgement_before_the_last_sync_is_found_out(store_logged: Logged) -> None:
    problems = store_logged.judge(2, tamper="acknowledge_early").problems
    assert "was acknowledged" in problems[0]


@pytest.mark.parametrize("program", ["store_program", "engine_program"])
def test_a_writer_that_publishes_before_it_commits_is_found_out(
    write_log: Path, tmp_path: Path, program: str
) -> None:
    assert run_logged(write_log, tmp_path, program, early=True).judge(4).problems != []


@pytest.mark.parametrize(
    "program", ["store_program", pytest.param("engine_program", marks=pytest.mark.long)]
)
def test_a_store_that_does_not_sync_is_found_out(
    write_log: Path, tmp_path: Path, program: str
) -> None:
    assert run_logged(write_log, tmp_path, program, durability="os").judge(4).problems != []
