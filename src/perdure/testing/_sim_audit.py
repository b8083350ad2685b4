"""What must be true of an engine whatever happens to its machine, watched from its disk.

The auditor hears of each batch when the engine is told that it is durable, of each step before it
runs, and of each answer when it is given; after each death it is shown what the disk has.
"""

from __future__ import annotations

from collections.abc import Sequence

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

Step = tuple[bytes, int]


class PromiseBroken(AssertionError):
    """The engine has broken a promise that it gives."""


class Auditor:
    """Knows what is durable, as far as the engine was told."""

    def __init__(self, databases: int) -> None:
        self._believed: list[dict[bytes, bytes]] = [{} for _ in range(databases)]
        self._accepted: set[bytes] = set()  # invocations that ever had a record
        self._issued: set[Step] = set()
        self._settled: set[Step] = set()

    def committed(self, units: Sequence[Unit]) -> None:
        """The engine is told that *units* are durable."""
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
        if rows != self._believed:
            told = self._difference(rows)
            self.committed(in_flight)
            if rows != self._believed:
                raise PromiseBroken(f"what was acknowledged is not on the disk: {told}")
        findings: list[Finding] = []
        store = SimStore(disk.copy(), schedule=lambda commit: commit())
        Contents(store, findings.append, lambda _: None).read()
        store.close()
        if findings:
            raise PromiseBroken(
                "the rows contradict each other: "
                + "; ".join(f"{finding.place} {finding.what}" for finding in findings)
            )

    def _difference(self, rows: Sequence[dict[bytes, bytes]]) -> str:
        for db, found, believed in zip(Db, rows, self._believed, strict=True):
            missing = [key for key, value in believed.items() if found.get(key) != value]
            if missing:
                return f"{len(missing)} rows of {db.name.lower()}, as key {missing[0].hex()}"
        return "rows that were removed are back"
