"""A real process is killed at any moment, again and again, and carries on with all it promised."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
from crash_support import Child, Note
from evidence import Evidence
from invariants import violations

WORKFLOWS_A_LIFE = 3
NOTES_MAX = 150
"""Notes after which a life is killed at the latest; a workflow that nobody kills writes 40."""

PAUSE_MAX_S = 0.004


class Directory:
    """A data directory, and the lives of the processes that had it."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._choose = random.Random(seed)
        self._keys: list[str] = []
        self.evidence = Evidence()
        self.kills = 0

    def live_and_be_killed(self, life: int) -> None:
        """Begin something, carry on with the rest, and die at a random moment."""
        self._keys += [f"{life}-{number}" for number in range(WORKFLOWS_A_LIFE)]
        child = Child(
            "mixed_workload.py",
            life=life,
            path=str(self._path),
            max_resident=0 if life % 2 else 10_000,
            mixed=self.evidence.unfinished(self._keys),
            plain=[str(life)],
            again=self._known()[-3:],
            finish=False,
        )
        # One in five dies while it opens the directory or recovers.
        count = 1 if self._choose.random() < 0.2 else self._choose.randrange(2, NOTES_MAX)
        for note in islice(child.read(), count):
            if note["what"] == "idle":
                break
        # The one sleep: it is the random moment, and nothing waits for anything by it.
        time.sleep(self._choose.random() * PAUSE_MAX_S)
        self._add(life, child.kill())
        self.kills += 1

    def live_and_finish(self, life: int) -> list[Note]:
        """Carry on until all is done; ask again for all that was ever acknowledged."""
        child = Child(
            "mixed_workload.py",
            life=life,
            path=str(self._path),
            max_resident=0 if life % 2 else 10_000,
            mixed=self._keys,
            again=self._known(),
            finish=True,
        )
        notes = child.end_well()
        self._add(life, notes)
        return notes

    def _known(self) -> list[tuple[str, str]]:
        """What was accepted and has no key to find it by."""
        accepted = self.evidence.accepted.items()
        return [(key, found) for key, found in accepted if key.startswith("sent ")]

    def _add(self, life: int, notes: list[Note]) -> None:
        self.evidence.add(life, notes)
        assert self.evidence.problems == []
        if (self._path / "data.mdb").exists():  # else killed before there was anything
            assert violations(self._path) == [], f"after life {life}"

    def missing(self, notes: Iterable[Note]) -> set[str]:
        """Ids that were accepted, and whose results the last life has not had."""
        told = {note["id"] for note in notes if note["what"] == "result"}
        return set(self.evidence.accepted.values()) - told


@pytest.mark.parametrize(("seed", "lives"), [(1, 16), pytest.param(2, 120, marks=pytest.mark.long)])
def test_killed_again_and_again_nothing_acknowledged_is_lost_and_nothing_journalled_runs_again(
    tmp_path: Path, seed: int, lives: int
) -> None:
    print(f"seed {seed}")
    directory = Directory(tmp_path / "data", seed)
    for life in range(lives):
        directory.live_and_be_killed(life)
    notes = directory.live_and_finish(lives)
    assert directory.missing(notes) == set()
    assert directory.evidence.repeated > 0, "no kill met a running step: the test tests nothing"
