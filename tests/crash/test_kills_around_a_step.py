"""A step is at-least-once until its answer is journalled, then exactly-once."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_support import Child, Note, some
from invariants import violations


class Killed:
    """An order whose process was killed in one place, and finished by the next process."""

    def __init__(self, path: Path, die_in: str, *, in_thread: bool, max_resident: int) -> None:
        self._options = {
            "run": "steps",
            "path": str(path),
            "in_thread": in_thread,
            "max_resident": max_resident,
        }
        first = Child("small_programs.py", life=1, die_in=die_in, **self._options).end_killed()
        assert violations(path) == []
        second = Child("small_programs.py", life=2, die_in="", **self._options).end_well()
        assert violations(path) == []
        self._runs = some(first + second, "ran")
        [self.result] = [note["value"] for note in some(second, "result")]

    def runs(self, step: str) -> list[Note]:
        return [run for run in self._runs if run["step"] == step]

    def lives(self, step: str) -> list[int]:
        """The lives in which *step* ran."""
        return [run["life"] for run in self.runs(step)]


in_thread_or_not = pytest.mark.parametrize("in_thread", [False, True], ids=["async", "in_thread"])


@in_thread_or_not
def test_a_step_killed_between_its_effect_and_its_journalling_runs_again_with_its_token(
    tmp_path: Path, in_thread: bool
) -> None:
    order = Killed(tmp_path / "data", "charge", in_thread=in_thread, max_resident=10_000)
    assert order.lives("charge") == [1, 2]
    assert len({run["token"] for run in order.runs("charge")}) == 1
    assert order.result == [2, 2]


@in_thread_or_not
def test_a_step_whose_answer_the_handler_had_but_not_the_disk_runs_again(
    tmp_path: Path, in_thread: bool
) -> None:
    order = Killed(tmp_path / "data", "handler", in_thread=in_thread, max_resident=10_000)
    assert order.lives("charge") == [1, 2]
    assert order.result == [2, 2]


@pytest.mark.parametrize("max_resident", [10_000, 0], ids=["resident", "evicted"])
@in_thread_or_not
def test_a_step_never_runs_again_once_the_next_has_begun(
    tmp_path: Path, in_thread: bool, max_resident: int
) -> None:
    order = Killed(tmp_path / "data", "ship", in_thread=in_thread, max_resident=max_resident)
    assert order.lives("charge") == [1]
    assert order.lives("ship") == [1, 2]
    assert order.result == [1, 2], "the handler was told what the first process had journalled"
