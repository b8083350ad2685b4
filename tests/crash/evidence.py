"""Judging the ledgers of all lives of one directory: was anything lost, done twice or changed?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from crash_support import Note

STAGES = 4
"""State of a workflow of the mixed workload that has ended."""

APPROVAL: set[str] = set()
"""Stands for what the promise was resolved with."""

EXPECTED: dict[str, list[set[str]]] = {
    "mixed": [
        {"did first"},
        {"did in thread"},
        {"did retried"},
        {"did retried in thread"},
        {"gave up"},
        {"did a did b did c"},
        {"did x then did y", "did y then did x"},
        {"timed out"},
        {"did after slow"},
        {"refused"},
        {"did after stuck"},
        {"quick was first"},
        {"did after loser"},
        {"approval first", "deadline first"},
        {"did after race"},
        APPROVAL,
        {"did last"},
        {f"{STAGES - 1} stages"},
    ],
    "short": [{"did retried"}, {"timed out"}, {"did in thread"}, APPROVAL, {"did last"}],
    "plain": [{"did first"}, {"did last"}],
}
"""The results of the workload, each part one of those allowed."""


class Evidence:
    """What the lives of one directory have written down, in the order in which it happened.

    Attributes:
      problems: A sentence for each promise that was broken.
      accepted: Key to id of the invocations whose acceptance was acknowledged.
      results: Id to result of those whose result was acknowledged.
      repeated: How many steps ran again, as they may before their answer is durable.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.accepted: dict[str, str] = {}
        self.results: dict[str, list[str]] = {}
        self.repeated = 0
        self._steps: dict[tuple[str, str], Note] = {}  # the first run of each
        self._tokens: dict[str, tuple[str, str]] = {}
        self._settled: set[tuple[str, str]] = set()
        self._proposed: defaultdict[str, set[str]] = defaultdict(set)
        self._resolved: dict[str, str] = {}
        self._closed: set[str] = set()  # keys whose promise is known to be completed
        self._judges: dict[str, Callable[[Note], Iterator[str]]] = {
            "ran": self._ran,
            "accepted": self._accept,
            "resolving": self._resolving,
            "resolved": self._resolve,
            "refused": self._refuse,
            "result": self._result,
            "called": self._right,
            "stages": self._stages,
        }

    def add(self, life: int, notes: list[Note]) -> None:
        """Take the ledger of one life."""
        for note in notes:
            judge = self._judges.get(note["what"])
            if judge is not None:
                self.problems += [f"life {life}: {problem}: {note}" for problem in judge(note)]

    def unfinished(self, keys: list[str]) -> list[str]:
        """Those of *keys* whose result nobody has been told."""
        return [key for key in keys if self.accepted.get(key) not in self.results]

    def _ran(self, note: Note) -> Iterator[str]:
        key, step, token = note["key"], note["step"], note["token"]
        if (key, step) in self._settled:
            yield "a step ran again although its answer was durable"
        self._settled.update((key, name) for name in note["settled"])
        if self._tokens.setdefault(token, (key, step)) != (key, step):
            yield f"another step, {self._tokens[token]}, has this token"
        first = self._steps.setdefault((key, step), note)
        self.repeated += first is not note
        if first["token"] != token:
            yield f"the step had the token {first['token']} before"
        if first["saw"] != note["saw"]:
            yield f"the handler had been told {first['saw']} before"

    def _accept(self, note: Note) -> Iterator[str]:
        key = note["key"]
        if note["new"] and (key in self.accepted or key in self._closed):
            yield "it began anew although it was known"
        if self.accepted.setdefault(key, note["id"]) != note["id"]:
            yield f"it was accepted as {self.accepted[key]} before"

    def _resolving(self, note: Note) -> Iterator[str]:
        self._proposed[note["key"]].add(note["value"])
        yield from ()

    def _resolve(self, note: Note) -> Iterator[str]:
        key = note["key"]
        if key in self._closed:
            yield "a promise known to be completed was resolved again"
        self._closed.add(key)
        self._resolved[key] = note["value"]

    def _refuse(self, note: Note) -> Iterator[str]:
        key = note["key"]
        if len(self._proposed[key]) < 2:
            yield "the first to resolve a promise was refused"
        self._closed.add(key)

    def _result(self, note: Note) -> Iterator[str]:
        if self.results.setdefault(note["id"], note["value"]) != note["value"]:
            yield f"another result, {self.results[note['id']]}, was acknowledged"
        yield from self._right(note)

    def _right(self, note: Note) -> Iterator[str]:
        """Compare a result with what it must be, and with what the last step had been told."""
        key, result = note["key"], note["value"]
        expected = EXPECTED[note["kind"]]
        if len(result) != len(expected):
            yield f"the result has not {len(expected)} parts"
            return
        resolved = self._resolved.get(key)
        approvals = self._proposed[key] if resolved is None else {resolved}
        for found, allowed in zip(result, expected, strict=True):
            if found not in (allowed or approvals):
                yield f"{found!r} is none of {allowed or approvals}"
        told = self._steps[key, "last"]["saw"]
        if result[: len(told)] != told:
            yield f"the last step had been told {told}"

    def _stages(self, note: Note) -> Iterator[str]:
        if note["value"] != STAGES:
            yield f"the state is not {STAGES}"
