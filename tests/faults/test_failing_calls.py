"""A disk that refuses any one call: a clear error, and nothing that was acknowledged is lost."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults_support import FOR_EVER, run_child, succeeded

REMEDIES = {
    errno.EIO: "the disk may be full or failing, the system's log tells",
    errno.ENOSPC: "make room for it",
    errno.EROFS: "it is on a read-only file system; mount that for writing",
    errno.EMFILE: "too many files are open; allow more (ulimit -n)",
}


@pytest.mark.parametrize(
    ("code", "durability"),
    [
        pytest.param(errno.EIO, "fsync", id="EIO"),
        pytest.param(errno.ENOSPC, "os", id="ENOSPC", marks=pytest.mark.long),
        pytest.param(errno.EROFS, "fsync", id="EROFS", marks=pytest.mark.long),
    ],
)
def test_whichever_call_of_a_commit_fails_all_that_was_acknowledged_is_there(
    failing_calls: Path, tmp_path: Path, code: int, durability: str
) -> None:
    path = tmp_path / "data"
    child = run_child(
        "failing_children:fail_each_call_of_a_commit",
        path,
        code,
        durability,
        library=failing_calls,
    )
    outcomes = json.loads(succeeded(child))
    calls = {call for call, _ in outcomes}
    assert {"writev", "pwrite", "fstat"} <= calls
    assert ("fdatasync" in calls) == (durability == "fsync")
    for call, failure in outcomes:
        assert failure.startswith(f"StoreBroken: {path}: the commit after unit "), call
        assert f"{os.strerror(code)} (code {code}): {REMEDIES[code]}" in failure
        assert failure.endswith("nothing more is written until the directory is opened again")


def openings() -> Iterator[Any]:
    """Each way in which calls of an opening fail; two of them suffice for every day."""
    codes = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
    counts = {"once": 1, "for-ever": FOR_EVER}
    for names in itertools.product(codes, ("existing", "new"), counts):
        code, existing, count = names
        quick = names in (("EIO", "existing", "once"), ("EIO", "new", "for-ever"))
        yield pytest.param(
            *(codes[code], existing, counts[count]),
            id="-".join(names),
            marks=[] if quick else [pytest.mark.long],
        )


@pytest.mark.parametrize(("code", "existing", "count"), [*openings()])
def test_whichever_call_of_an_opening_fails_it_says_why_and_the_next_opening_is_whole(
    failing_calls: Path, tmp_path: Path, code: int, existing: str, count: int
) -> None:
    path = tmp_path / "data"
    child = run_child(
        "failing_children:fail_each_call_of_an_opening",
        path,
        code,
        existing,
        count,
        library=failing_calls,
    )
    outcomes = json.loads(succeeded(child))
    calls = {call for call, _ in outcomes}
    assert {"open", "flock", "ftruncate", "pwrite", "mmap", "fcntl", "fdatasync"} <= calls
    for call, failure in outcomes:
        if not failure:  # what only helps may fail: to close in a child, to give a lock back
            assert count == 1, call
            assert call in ("fcntl", "flock", "open", "fsync"), call
            continue
        assert failure.startswith("Store"), (call, failure)
        assert str(path) in failure, (call, failure)
        if call == "fcntl" and count == 1:
            continue  # LMDB then tries another lock, and says why that one can not be had
        assert os.strerror(code) in failure, (call, failure)
        assert REMEDIES[code] in failure, (call, failure)
