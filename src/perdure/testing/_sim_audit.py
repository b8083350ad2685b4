"""What must be true of an engine whatever happens to its machine, watched from its disk.

The auditor hears of each batch when the engine is told that it is durable, of each step before it
runs, and of each answer when it is given; after each death it is shown what the disk has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from perdure._core._entries import Kind
from perdure._doctor._contents import Contents
from perdure._doctor._report import Finding
from perdure._handles import InvocationHandle
from perdure._ids import parse_id
from perdure._journal import decode_entries
from perdure._runtime._running import RunningStep
from perdure._store import Db
from perdure.testing._sim_environment import SimDisk, Unit
from perdure.testing._sim_store import SimStore

Step: TypeAlias = tuple[bytes, int]
Belief: TypeAlias = "tuple[list[dict[bytes, bytes]], set[bytes], set[Step], set[Step]]"


class PromiseBroken(AssertionError):
    """The engine has broken a promise that it gives."""


class Auditor:
    """Knows what is durable, as far as the engine was told."""

    def __init__(self, databases: int) -> None:
        self._believed: list[dict[bytes, bytes]] = [{} for _ in range(databases)]
        self._accepted: set[bytes] = set()  # invocations that ever had a record
        self._issued: set[Step] = set()
        self._settled: set[Step] = set()
        # What was believed before a commit was found on the disk that nobody was told of. A kill
        # leaves it unsynced, and a sync of the next process may fail and lose it. Until this one
        # has heard of a commit of its own, it has done nothing that rests on it.
        self._before: Belief | None = None

    def committed(self, units: Sequence[Unit]) -> None:
        """The engine is told that *units* are durable."""
        self._before = None
        self._learn(units)

    def _learn(self, units: Sequence[Unit]) -> None:
        for unit in units:
            for db, key, value in unit:
                if value is None:
                    self._believed[db].pop(key, None)
                    continue
                self._believed[db][key] = value
                if db == Db.INVOCATIONS:
                    self._accepted.add(key)
                elif db in (Db.JOURNAL, Db.PENDING):
                    self._entries(db, key, value)

    def _entries(self, db: int, key: bytes, value: bytes) -> None:
        invocation_id = key[:16]
        index = int.from_bytes(key[16:], "big") if db == Db.JOURNAL else 0
        for number, entry in enumerate(decode_entries(value)):
            if entry[0] == Kind.STEP_DONE:
                self._settled.add((invocation_id, entry[1]))
            elif entry[0] == Kind.RUN:
                self._issued.add((invocation_id, index + number))

    def step_begins(self, running: RunningStep) -> None:
        """An attempt of a step is about to run.

        Raises:
          PromiseBroken: Its result is journalled, or its command is not.
        """
        step = running.invocation_id, running.index
        if step in self._settled:
            raise PromiseBroken(f"step {running.index} of {running.text_id} ran again")
        if step not in self._issued:
            raise PromiseBroken(
                f"step {running.index} of {running.text_id} ran before its command was durable"
            )

    def answered(self, answer: object) -> None:
        """The engine gives a client this answer.

        Raises:
          PromiseBroken: What it acknowledges is not durable.
        """
        if isinstance(answer, InvocationHandle) and parse_id(answer.id) not in self._accepted:
            raise PromiseBroken(f"{answer.id} was acknowledged before it was durable")

    def found(self, disk: SimDisk, in_flight: Sequence[Unit]) -> None:
        """A dead process has left *disk*; its last commit had begun, with these units.

        Raises:
          PromiseBroken: Something durable is not there, a batch is there in part, or rows
            contradict each other.
        """
        rows = [table.values for table in disk.tables]
        if rows != self._believed and not self._is_undecided(rows, in_flight):
            raise PromiseBroken(
                f"what was acknowledged is not on the disk: {self._difference(rows)}"
            )
        findings: list[Finding] = []
        store = SimStore(disk.copy(), schedule=lambda commit: commit())
        Contents(store, findings.append, lambda _: None).read()
        store.close()
        if findings:
            raise PromiseBroken(
                "the rows contradict each other: "
                + "; ".join(f"{finding.place} {finding.what}" for finding in findings)
            )

    def _is_undecided(self, rows: list[dict[bytes, bytes]], in_flight: Sequence[Unit]) -> bool:
        """Whether *rows* are what is believed with a commit that nobody was told of, or without."""
        believed = self._belief()
        for base in (believed, self._before):
            if base is None:
                continue
            self._believe(base)
            if rows == self._believed:
                self._before = None
                return True
            self._learn(in_flight)
            if rows == self._believed:
                self._before = base
                return True
        self._believe(believed)
        return False

    def _belief(self) -> Belief:
        rows = [dict(each) for each in self._believed]
        return rows, set(self._accepted), set(self._issued), set(self._settled)

    def _believe(self, belief: Belief) -> None:
        rows, accepted, issued, settled = belief
        self._believed = [dict(each) for each in rows]
        self._accepted, self._issued, self._settled = set(accepted), set(issued), set(settled)

    def _difference(self, rows: Sequence[dict[bytes, bytes]]) -> str:
        for db, found, believed in zip(Db, rows, self._believed, strict=True):
            missing = [key for key, value in believed.items() if found.get(key) != value]
            if missing:
                return f"{len(missing)} rows of {db.name.lower()}, as key {missing[0].hex()}"
        return "rows that were removed are back"
