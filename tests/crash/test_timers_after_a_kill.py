"""Timers that came due while no process was there."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from crash_support import Child, Note, some
from invariants import violations

from perdure._runtime._due import TIMERS_PER_TURN

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
SLEEPERS = 100


def live(path: Path, hours: int, **options: Any) -> list[Note]:
    """One process, whose clock stands some hours after that of the first."""
    now_ms = NOW_MS + hours * HOUR_MS
    child = Child("small_programs.py", run="timers", path=str(path), now_ms=now_ms, **options)
    notes = child.end_killed() if options["then"] == "die" else child.end_well()
    assert violations(path) == []
    return notes


def shuffled(count: int) -> list[int]:
    """1 to *count* in an order that is always the same."""
    seconds = list(range(1, count + 1))
    random.Random(count).shuffle(seconds)
    return seconds


def fired(notes: list[Note]) -> list[int]:
    return [note["seconds"] for note in some(notes, "fired")]


@pytest.mark.parametrize("max_resident", [10_000, 0], ids=["resident", "evicted"])
def test_timers_of_many_workflows_due_at_the_start_fire_in_the_order_of_their_deadlines(
    tmp_path: Path, max_resident: int
) -> None:
    sleepers = [[seconds] for seconds in shuffled(SLEEPERS)]
    options = {"sleepers": sleepers, "max_resident": max_resident}
    assert fired(live(tmp_path / "data", 0, then="die", **options)) == []
    notes = live(tmp_path / "data", 1, then="finish", **options)
    assert fired(notes) == sorted(shuffled(SLEEPERS))
    assert [note["value"] for note in some(notes, "result")] == sleepers


@pytest.mark.parametrize("max_resident", [10_000, 0], ids=["resident", "evicted"])
def test_timers_of_one_workflow_due_at_the_start_are_delivered_in_the_order_of_their_deadlines(
    tmp_path: Path, max_resident: int
) -> None:
    options = {"sleepers": [shuffled(SLEEPERS)], "max_resident": max_resident}
    live(tmp_path / "data", 0, then="die", **options)
    notes = live(tmp_path / "data", 1, then="finish", **options)
    assert [note["value"] for note in some(notes, "result")] == [sorted(shuffled(SLEEPERS))]


def test_timers_due_at_the_start_fire_before_the_first_call_is_taken(tmp_path: Path) -> None:
    count = TIMERS_PER_TURN + 1
    options = {"sleepers": [[seconds] for seconds in shuffled(count)], "max_resident": 10_000}
    live(tmp_path / "data", 0, then="die", **options)
    notes = live(tmp_path / "data", 1, then="ask", **options)
    whats = [note["what"] for note in notes if note["what"] in ("fired", "asked")]
    assert whats == ["fired"] * count + ["asked"]


def test_a_timer_that_fired_before_a_kill_does_not_fire_again(tmp_path: Path) -> None:
    # The clock of the second life is between the two deadlines of each workflow.
    sleepers = [[2 * 3600, seconds] for seconds in shuffled(SLEEPERS)]
    options = {"sleepers": sleepers, "max_resident": 10_000}
    live(tmp_path / "data", 0, then="die", **options)
    live(tmp_path / "data", 1, then="die", **options)
    notes = live(tmp_path / "data", 3, then="finish", **options)
    results = [note["value"] for note in some(notes, "result")]
    assert results == [[seconds, 2 * 3600] for _, seconds in sleepers]
