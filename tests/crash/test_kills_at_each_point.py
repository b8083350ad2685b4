"""One workflow is killed at each point at which the store stands between two states."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_support import Child, some
from evidence import Evidence
from invariants import violations

POINTS_MIN = 6
"""So many events there are at least."""


def lives(path: Path, event: str, number: int, max_resident: int) -> bool:
    """Be killed at one event, carry on, judge; False if the first life ended before the event."""
    load = {"path": str(path), "max_resident": max_resident, "short": ["key"], "finish": True}
    evidence = Evidence()
    first = Child("mixed_workload.py", life=1, die_at=[event, number], **load)
    killed = first.end()
    evidence.add(1, first.notes)
    assert violations(path) == [], f"after a kill at number {number}"
    second = Child("mixed_workload.py", life=2, **load).end_well()
    evidence.add(2, second)
    assert evidence.problems == [], f"after a kill at number {number}"
    assert len(some(second, "result")) == 1
    assert violations(path) == [], f"at the end, after a kill at number {number}"
    return killed


@pytest.mark.parametrize(
    ("event", "max_resident"),
    [
        ("sealed", 10_000),
        ("committed", 0),
        pytest.param("sealed", 0, marks=pytest.mark.long),
        pytest.param("committed", 10_000, marks=pytest.mark.long),
    ],
)
def test_a_kill_at_any_unit_before_anybody_hears_of_it_loses_and_repeats_nothing(
    tmp_path: Path, event: str, max_resident: int
) -> None:
    number = 1
    while lives(tmp_path / str(number), event, number, max_resident):
        number += 1
    assert number > POINTS_MIN
