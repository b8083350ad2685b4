"""The writer thread: no GIL, no signals, no harm from forks, exits and a map that is too small."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_support import (
    ROWS,
    commit,
    everything,
    fork_child,
    open_environment,
    run_script,
    wait_for,
)

from perdure._journal import Environment
from perdure.errors import StoreClosed

MIB = 1 << 20


@pytest.fixture
def long_switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("long_switch_interval")
def test_units_commit_while_one_python_thread_never_lets_the_gil_go(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, durability=0)
    unit = 0
    for number in range(200):
        environment.put(ROWS, b"%d" % number, b"value")
        unit = environment.seal()
    # Another Python thread could not run during this loop: nothing in it blocks, and the
    # interpreter switches threads every 1000 s.
    while environment.committed < unit:
        pass
    assert environment.count(ROWS) == 200
    environment.close()


def writer_tasks() -> list[Path]:
    return [
        task
        for task in Path("/proc/self/task").iterdir()
        if (task / "comm").read_text().strip() == "perdure-writer"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_signals_are_blocked_in_the_writer_thread_and_none_in_this_one(tmp_path: Path) -> None:
    def blocked(status: Path) -> int:
        line = next(x for x in status.read_text().splitlines() if x.startswith("SigBlk"))
        return int(line.split()[1], 16)

    before = blocked(Path("/proc/thread-self/status"))
    environment = open_environment(tmp_path)
    commit_one(environment)
    (task,) = writer_tasks()
    # 9 and 19 cannot be blocked; 32 and 33 belong to the C library.
    every = sum(1 << number - 1 for number in range(1, 65) if number not in (9, 19, 32, 33))
    assert blocked(task / "status") & every == every
    assert blocked(Path("/proc/thread-self/status")) == before
    environment.close()
    assert writer_tasks() == []


def commit_one(environment: Environment) -> None:
    environment.put(ROWS, b"one", b"")
    commit(environment)


def test_a_forked_child_can_neither_use_nor_harm_the_environment(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    parent = os.getpid()

    def child() -> None:
        for call in (
            lambda: environment.get(ROWS, b"k"),
            lambda: environment.put(ROWS, b"k", b"child"),
            environment.seal,
            lambda: environment.committed,
            lambda: environment.failure,
            environment.close,
        ):
            with pytest.raises(StoreClosed, match=f"opened by process {parent}; a forked child"):
                call()

    for number in range(20):
        environment.put(ROWS, b"%d" % number, b"v" * 1000)
        environment.seal()
        assert wait_for(fork_child(child)) == 0
    commit(environment)
    environment.put(ROWS, b"last", b"")
    commit(environment)
    assert environment.count(ROWS) == 21
    environment.close()


def test_a_forked_child_that_exits_normally_writes_and_closes_nothing(tmp_path: Path) -> None:
    result = run_script(
        """
import gc, os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from store_support import *
environment = open_environment(Path(sys.argv[1]))
environment.put(ROWS, b"open", b"")
pid = os.fork()
if pid == 0:
    del environment
    gc.collect()
    sys.exit(7)
assert wait_for(pid) == 7
commit(environment)
environment.put(ROWS, b"later", b"")
environment.seal()
""",
        tmp_path,
        Path(__file__).parent,
    )
    assert (result.returncode, result.stderr) == (0, "")
    environment = open_environment(tmp_path)
    assert everything(environment) == {b"open": b"", b"later": b""}
    environment.close()


def test_a_forked_child_may_open_another_directory(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    (tmp_path / "child").mkdir()

    def child() -> None:
        own = open_environment(tmp_path / "child")
        commit_one(own)
        own.close()

    assert wait_for(fork_child(child)) == 0
    environment.close()


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "cycle = [environment]; cycle.append(cycle)",
        "del environment",
        "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(environment))",
        "sys.exit(0)",
        "import threading; threading.Thread(target=sys.exit).start()",
        "import atexit; atexit.register(lambda: environment.fileno)",
    ],
)
def test_sealed_units_are_committed_when_the_interpreter_exits_without_close(
    tmp_path: Path, ending: str
) -> None:
    result = run_script(
        f"""
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from store_support import *
environment = open_environment(Path(sys.argv[1]), durability=0)
for number in range(32):  # more than is written while the interpreter takes itself apart
    environment.put(ROWS, b"%d" % number, b"v" * {MIB})
    environment.seal()
environment.put(ROWS, b"open", b"")
{ending}
""",
        tmp_path,
        Path(__file__).parent,
    )
    assert (result.returncode, result.stderr) == (0, "")
    environment = open_environment(tmp_path)
    assert environment.count(ROWS) == 32
    environment.close()


def test_an_environment_that_is_dropped_commits_and_lets_go_of_its_file(tmp_path: Path) -> None:
    for number in range(5):
        environment = open_environment(tmp_path)
        assert environment.count(ROWS) == number
        environment.put(ROWS, b"%d" % number, b"")
        environment.seal()
        del environment


def test_the_map_grows_while_other_threads_read(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, map_size=MIB)
    value = bytes(range(256)) * 64
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                for key, found in everything(environment).items():
                    assert found == value + key
                environment.get(ROWS, b"0000")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2000):
            key = b"%04d" % number
            environment.put(ROWS, key, value + key)
            environment.seal()
        assert environment.wait(environment.sealed, 120)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert environment.count(ROWS) == 2000
    assert (tmp_path / "data.mdb").stat().st_size > 32 * MIB
    environment.close()


def test_a_unit_larger_than_the_map_is_committed_whole(tmp_path: Path) -> None:
    environment = open_environment(tmp_path, map_size=MIB)
    big = os.urandom(24 * MIB)
    environment.put(ROWS, b"big", big)
    environment.put(ROWS, b"small", b"")
    commit(environment)
    assert environment.get(ROWS, b"big") == big
    assert environment.committed == 1
    environment.close()


def test_a_unit_that_touches_more_pages_than_a_transaction_holds_is_committed(
    tmp_path: Path,
) -> None:
    environment = open_environment(tmp_path, map_size=MIB, durability=2)
    # LMDB keeps at most 131,072 dirty pages in a transaction; each row here has a page of its own.
    value = b"v" * 4000
    for number in range(140_000):
        environment.put(ROWS, b"%d" % number, value)
    commit(environment)
    assert environment.count(ROWS) == 140_000
    assert environment.get(ROWS, b"77777") == value
    environment.close()
