"""Whether the code at hand fits the journals: all of them replayed, with every effect refused.

Theory of operation. Each unfinished invocation is replayed on a machine of its own
(:mod:`._rehearsal`), beside the one that may be in memory, which is closed where its journal ends.
The store is read as committed, one journal at a time, and the host's loop has its turn in between.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure._core._entries import Entry
from perdure._ids import format_id
from perdure._runtime._layout import Record
from perdure._runtime._rehearsal import Rehearsal
from perdure._store import Db, Store
from perdure.errors import NondeterminismError, StoreCorrupt
from perdure.serde import describe_failure

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

PROBLEMS_MAX = 1000
"""Problems that a report holds; beyond, they are counted."""

PROBLEMS_SHOWN = 20
"""Problems that the text of a report shows."""

_SLICE_S = 0.004
"""The host's loop gets its turn after this long, and the activation that is being replayed."""

_ROWS_PER_PAGE = 256


class Verdict(enum.StrEnum):
    """What a check says of one unfinished invocation."""

    SAFE = "safe"
    DIVERGES = "diverges"
    FAILS = "fails"
    NOT_COVERED = "not covered"


@dataclass(frozen=True, slots=True)
class CheckedInvocation:
    """One invocation, as a check found it.

    Attributes:
      reason: Both sides, what the handler raised, or why it is not covered; empty where it is safe.
      divergence: Where it diverges: entry, both sides, difference; else None.
    """

    id: str
    service: str
    key: str
    handler: str
    version: int
    verdict: Verdict
    reason: str = ""
    divergence: NondeterminismError | None = None

    def __str__(self) -> str:
        key = f", key {self.key!r}" if self.key else ""
        title = f"{self.id} ({self.service}.{self.handler}, version {self.version}{key})"
        if self.divergence is not None:
            return f"{title} {self.verdict} at entry {self.divergence.index}\n{self.reason}"
        return f"{title} {self.verdict}" + (f": {self.reason}" if self.reason else "")


@dataclass(slots=True)
class CheckReport:
    """What a check found; ``str(report)`` is for people.

    Attributes:
      counts: How many invocations have each verdict.
      problems: Those that diverge or fail; the first 1,000, in the order of their ids.
      not_covered: Why invocations could not be checked, and how many for each reason.
    """

    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    problems: list[CheckedInvocation] = field(default_factory=list)
    not_covered: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether none diverges and none fails; what is not covered is left alone."""
        return not self._problem_count

    @property
    def _problem_count(self) -> int:
        return self.counts[Verdict.DIVERGES] + self.counts[Verdict.FAILS]

    def _add(self, found: CheckedInvocation) -> None:
        self.counts[found.verdict] += 1
        if found.verdict is Verdict.NOT_COVERED:
            self.not_covered[found.reason] = self.not_covered.get(found.reason, 0) + 1
        elif found.verdict is not Verdict.SAFE and len(self.problems) < PROBLEMS_MAX:
            self.problems.append(found)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(f"{n:,} {verdict}" for verdict, n in self.counts.items() if n)
        lines = [f"{total:,} unfinished invocations" + (f": {counts}" if counts else "")]
        lines += [f"not covered, {n:,}: {reason}" for reason, n in self.not_covered.items()]
        lines += [str(problem) for problem in self.problems[:PROBLEMS_SHOWN]]
        further = self._problem_count - PROBLEMS_SHOWN
        if further > 0:
            lines.append(f"and {further:,} further that diverge or fail")
        return "\n".join(lines)


async def check_unfinished(scheduler: Scheduler) -> CheckReport:
    """Check all that is committed when this begins; what completes meanwhile is left out."""
    await scheduler.answers.committed()
    report = CheckReport()
    check = _Check(scheduler)
    for invocation_id, value in _rows(scheduler.store):
        await check.give_way()
        if not check.is_unfinished(invocation_id):
            continue
        found = await check.judge(invocation_id, Record.unpack(value, invocation_id))
        # It may have completed in between, and its journal may be gone.
        if check.is_unfinished(invocation_id):
            report._add(found)
    await scheduler.answers.committed()
    return report


def _rows(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """Ids and records of all invocations, completed ones included, a page in memory at a time."""
    start = b""
    while page := store.scan_committed(Db.INVOCATIONS, start, limit=_ROWS_PER_PAGE):
        yield from page
        start = page[-1][0] + b"\0"


class _Check:
    """One check, of one invocation after the other."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._store = scheduler.store
        self._context = contextvars.copy_context()
        self._deadline = self._scheduler.ticks() + _SLICE_S

    async def give_way(self) -> None:
        """Let the host's loop have its turn, if it is due.

        Raises:
          StoreBroken, StoreClosed: The engine ended meanwhile.
        """
        if self._scheduler.ticks() < self._deadline:
            return
        self._scheduler.stage.leave()
        await asyncio.sleep(0)
        self._scheduler.check_open()
        self._deadline = self._scheduler.ticks() + _SLICE_S

    def is_unfinished(self, invocation_id: bytes) -> bool:
        store = self._store
        return (
            store.get(Db.OUTPUTS, invocation_id, b"") is None
            and store.get(Db.INVOCATIONS, invocation_id, b"") is not None
        )

    async def judge(self, invocation_id: bytes, record: Record) -> CheckedInvocation:
        """What there is to say of an unfinished invocation."""
        verdict, divergence = Verdict.NOT_COVERED, None
        reason = self._scheduler.registry.why_blocked(record)
        if not reason:
            has_journal, failure = await self._replay(invocation_id, record)
            if not has_journal:
                reason = "it has no journal yet: nothing of it has been done"
            elif isinstance(failure, NondeterminismError):
                verdict, divergence, reason = Verdict.DIVERGES, failure, failure.sides()
            elif failure is not None:
                verdict, reason = Verdict.FAILS, describe_failure(failure)
            else:
                verdict = Verdict.SAFE
        return CheckedInvocation(
            id=format_id(invocation_id),
            service=record.service,
            key=record.key,
            handler=record.handler,
            version=record.version,
            verdict=verdict,
            reason=reason,
            divergence=divergence,
        )

    async def _replay(
        self, invocation_id: bytes, record: Record
    ) -> tuple[bool, BaseException | None]:
        """Replay a journal on a machine of its own: whether there is one, and what that raised."""
        scheduler = self._scheduler
        rehearsal = Rehearsal(
            invocation_id,
            record,
            registry=scheduler.registry,
            stage=scheduler.stage,
            sites=scheduler.sites,
            context=self._context,
            guard=scheduler.guard,
        )
        try:
            return await self._feed(invocation_id, rehearsal)
        finally:
            rehearsal.close()

    async def _feed(
        self, invocation_id: bytes, rehearsal: Rehearsal
    ) -> tuple[bool, BaseException | None]:
        position = 0
        while True:
            try:
                page = self._store.journal(invocation_id, position, Entry)
            except StoreCorrupt as corrupt:
                return True, corrupt
            if not page:
                return position > 0, None
            for first_index, entries in page:
                failure = rehearsal.feed(entries)
                if failure is not None:
                    return True, failure
                position = first_index + len(entries)
                await self.give_way()
