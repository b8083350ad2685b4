"""A disk that refuses a call of a commit: a clear error, nothing acknowledged is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perdure._store import Db, Store

SHIM = Path(__file__).with_name("failing_calls.c")
GROUP = b"g" * 16

WRITE_UNTIL_BROKEN = """
import sys
from perdure._store import Db, Store
from perdure.errors import StoreBroken

store = Store(sys.argv[1])
try:
    for number in range(1000):
        store.put(Db.STATE, b"g" * 16, b"%06d" % number, bytes(3000))
        store.put(Db.STATE, b"g" * 16, b"counter", b"%d" % number)
        store.wait_committed(store.seal())
        print(number, flush=True)
except StoreBroken as broken:
    print(broken, file=sys.stderr)
store.close()
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("calls are made to fail by a preloaded library, which takes Linux and gcc")
    library = tmp_path_factory.mktemp("shim") / "failing_calls.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"], check=True
    )
    return library


@pytest.mark.parametrize(
    ("call", "code", "remedy"),
    [
        ("fdatasync", errno.EIO, "the disk may be full or failing"),
        ("pwrite", errno.EIO, "the disk may be full or failing"),
        ("pwrite", errno.ENOSPC, "make room"),
        ("writev", errno.EIO, "the disk may be full or failing"),
        ("writev", errno.ENOSPC, "make room"),
    ],
)
@pytest.mark.parametrize("after", [20, 21, 22, 23])
def test_a_refused_call_breaks_the_store_and_reopening_recovers(
    shim: Path, tmp_path: Path, call: str, code: int, remedy: str, after: int
) -> None:
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "FAIL_CALL": call,
        "FAIL_AFTER": str(after),
        "FAIL_ERRNO": str(code),
    }
    child = subprocess.run(
        [sys.executable, "-c", WRITE_UNTIL_BROKEN, str(tmp_path / "data")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert os.strerror(code) in child.stderr
    assert remedy in child.stderr
    last = int(child.stdout.split()[-1])
    assert last < 999
    store = Store(tmp_path / "data")
    counter = int(store.get(Db.STATE, GROUP, b"counter") or b"-1")
    assert counter in (last, last + 1)  # all of the unit that failed, or none
    assert len(store.scan(Db.STATE, GROUP)) == counter + 2
    store.put(Db.STATE, GROUP, b"more", b"")
    store.wait_committed(store.seal())
    store.close()
