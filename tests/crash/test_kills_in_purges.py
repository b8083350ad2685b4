"""A process is killed at each commit while what has completed goes, by time and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_support import Child, Note, some
from engine_support import rows_left
from invariants import violations

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000

POINTS_MIN = 3
"""So many events there are at least."""


def live(path: Path, program: str, **options: object) -> tuple[bool, list[Note]]:
    """One process; whether it was killed, and its notes."""
    child = Child("small_programs.py", run=program, path=str(path), **options)
    killed = child.end()
    assert violations(path) == [], options
    return killed, child.notes


def lives(path: Path, event: str, number: int, by_hand: bool, max_resident: int) -> bool:
    """Be killed at one event, carry on, judge; False if the life ended before the event."""
    begin = {"now_ms": NOW_MS, "max_resident": max_resident}
    (begun,) = some(live(path, "begin_purges", **begin)[1], "begun")
    now_ms = NOW_MS if by_hand else NOW_MS + DAY_MS
    options = {"now_ms": now_ms, "max_resident": max_resident, "by_hand": by_hand, "begun": begun}
    killed, _ = live(path, "purges", die_at=[event, number], **options)
    notes = live(path, "purges", **options)[1]
    gone = {note["id"]: note["why"] for note in some(notes, "gone")}
    waits = begun["waits"][: 2 if by_hand else 3]
    assert set(gone) == {begun["kept"], begun["unkept"], *waits}
    for waiting in waits:
        assert "was purged while this waited for its promise 'never'" in gone[waiting]
    left = rows_left(path)
    results = left["OUTPUTS"]  # of those who waited
    if by_hand:  # a promise of the key that never ran, its expiry, and who waits there
        expected = {"INVOCATIONS": 3, "JOURNAL": 1, "PROMISES": 1, "WAITERS": 2, "EXPIRY": 3}
    else:
        expected = {"INVOCATIONS": 3, "EXPIRY": 3}
    assert left == {**expected, "OUTPUTS": results}
    return killed


@pytest.mark.parametrize(
    ("event", "by_hand", "max_resident"),
    [
        ("sealed", False, 10_000),
        ("committed", True, 0),
        pytest.param("sealed", True, 0, marks=pytest.mark.long),
        pytest.param("sealed", True, 10_000, marks=pytest.mark.long),
        pytest.param("sealed", False, 0, marks=pytest.mark.long),
        pytest.param("committed", True, 10_000, marks=pytest.mark.long),
        pytest.param("committed", False, 0, marks=pytest.mark.long),
        pytest.param("committed", False, 10_000, marks=pytest.mark.long),
    ],
)
def test_a_kill_at_any_unit_of_a_purge_leaves_what_the_next_life_ends(
    tmp_path: Path, event: str, by_hand: bool, max_resident: int
) -> None:
    number = 1
    while lives(tmp_path / str(number), event, number, by_hand, max_resident):
        number += 1
    assert number > POINTS_MIN
