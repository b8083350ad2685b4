"""A disk that takes no more: a clear error, nothing acknowledged is lost."""

from __future__ import annotations

import itertools
import os
import resource
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_support import fork_child, wait_for

from perdure._store import Db, Store
from perdure.errors import StoreBroken

MIB = 1 << 20
GROUP = b"g" * 16


def fill_until_broken(path: Path, acknowledge: int) -> None:
    """Write until the store breaks; exits as a failed test would if it does not, or not rightly."""
    store = Store(path)
    poll = select.poll()
    poll.register(store.fileno(), select.POLLIN)

    def write_for_ever() -> None:
        for number in itertools.count():
            store.put(Db.STATE, GROUP, b"%06d" % number, os.urandom(3000))
            store.put(Db.STATE, GROUP, b"counter", b"%d" % number)
            store.wait_committed(store.seal())
            store.on_event()
            os.write(acknowledge, number.to_bytes(4, "big"))

    with pytest.raises(StoreBroken, match=r"No space left|File too large|Input/output error"):
        write_for_ever()
    # It stays broken, whoever asks; the loop's descriptor says so too; reading goes on.
    assert poll.poll(5000)
    with pytest.raises(StoreBroken):
        store.on_event()
    store.put(Db.STATE, GROUP, b"more", b"")
    for _ in range(2):
        with pytest.raises(StoreBroken, match="nothing more is written"):
            store.seal()
    store.discard()
    store.close()


def recover(path: Path, run_child: Callable[[int], int]) -> None:
    reading, writing = os.pipe()
    pid = run_child(writing)
    os.close(writing)
    acknowledged = b""
    while part := os.read(reading, 65536):
        acknowledged += part
    os.close(reading)
    assert wait_for(pid) == 0
    last_acknowledged = int.from_bytes(acknowledged[-4:], "big")
    assert last_acknowledged > 10
    store = Store(path)
    counter = int(store.get(Db.STATE, GROUP, b"counter") or b"-1")
    assert counter in (last_acknowledged, last_acknowledged + 1)
    rows = store.scan(Db.STATE, GROUP)
    assert len(rows) == counter + 2
    store.close()


def test_a_file_size_limit_breaks_the_store_and_reopening_recovers(tmp_path: Path) -> None:
    def run_child(acknowledge: int) -> int:
        def child() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))
            fill_until_broken(tmp_path / "data", acknowledge)

        return fork_child(child)

    recover(tmp_path / "data", run_child)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(mount)],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_breaks_the_store_and_reopening_with_room_recovers(small_disk: Path) -> None:
    path = small_disk / "data"

    def run_child(acknowledge: int) -> int:
        return fork_child(lambda: fill_until_broken(path, acknowledge))

    recover_with_room(small_disk, path, run_child)


def recover_with_room(disk: Path, path: Path, run_child: Callable[[int], int]) -> None:
    reading, writing = os.pipe()
    pid = run_child(writing)
    os.close(writing)
    acknowledged = b""
    while part := os.read(reading, 65536):
        acknowledged += part
    os.close(reading)
    assert wait_for(pid) == 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    last = int.from_bytes(acknowledged[-4:], "big")
    store = Store(path)
    counter = int(store.get(Db.STATE, GROUP, b"counter") or b"-1")
    assert counter in (last, last + 1)
    assert len(store.scan(Db.STATE, GROUP)) == counter + 2
    store.put(Db.STATE, GROUP, b"room again", b"")
    store.wait_committed(store.seal())
    store.close()
