"""A saga whose process is killed in an action or in a compensation undoes all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_support import Child, some
from invariants import violations

BOOKED = ["book flight", "book hotel", "book car"]
UNDONE = ["cancel car", "cancel hotel", "cancel flight"]


@pytest.mark.parametrize("max_resident", [10_000, 0], ids=["resident", "evicted"])
@pytest.mark.parametrize("die_in", ["book hotel", "book car", *UNDONE])
def test_killed_in_between_the_next_process_undoes_the_rest(
    tmp_path: Path, die_in: str, max_resident: int
) -> None:
    path = tmp_path / "data"
    options = {"run": "saga", "path": str(path), "max_resident": max_resident}
    first = Child("small_programs.py", life=1, die_in=die_in, **options).end_killed()
    assert violations(path) == []
    second = Child("small_programs.py", life=2, die_in="", **options).end_well()
    assert violations(path) == []
    steps = BOOKED + UNDONE
    at = steps.index(die_in)
    assert [run["step"] for run in some(first, "ran")] == steps[: at + 1]
    assert [run["step"] for run in some(second, "ran")] == steps[at:]
    assert [note["error"] for note in some(second, "failed")] == ["no car left"]
