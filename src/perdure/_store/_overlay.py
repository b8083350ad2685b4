"""The store's own writes that are not on the disk yet, so that reads see them.

This module is compiled (see ``_overlay.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

# Texts, so that nothing of them is compiled.
Row: TypeAlias = "tuple[int, bytes | None]"  # number of the unit, value or None for "deleted"
Rows: TypeAlias = "dict[bytes, Row]"
# Database, group, suffix, and the row before the write or None.
Change: TypeAlias = "tuple[int, bytes, bytes, Row | None]"

MARK_NS = 20_000_000


class Overlay:
    """Per database: group -> suffix -> row. A row goes when its unit has committed, not before.

    A key written again by a later unit shows the later value until that unit commits, or until
    :meth:`undo` brings back the row before.
    """

    def __init__(self, databases: int, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.rows: list[dict[bytes, Rows]] = [{} for _ in range(databases)]
        self.changes: list[Change] = []  # of the open unit
        self.sealed: deque[tuple[int, list[Change]]] = deque()  # units that changed rows
        # (unit, when it was sealed) of some units: one in so many nanoseconds at the most.
        self.marks: deque[tuple[int, int]] = deque()
        self.last_unit = 0
        self.dropped_unit = 0  # rows of units up to this one are gone

    def seal(self, unit: int) -> None:
        """The changes since the last call belong to *unit*, which is on its way to the disk."""
        self.last_unit = unit
        now_ns = self._now_ns()
        if not self.marks or now_ns - self.marks[-1][1] > MARK_NS:
            self.marks.append((unit, now_ns))
        if self.changes:
            self.sealed.append((unit, self.changes))
            self.changes = []

    def undo(self) -> None:
        """Take the changes of the open unit back."""
        for db, group, suffix, before in reversed(self.changes):
            groups = self.rows[db]
            rows = groups[group]
            # A row whose unit committed meanwhile would never be dropped; the disk has it.
            if before is not None and before[0] > self.dropped_unit:
                rows[suffix] = before
                continue
            del rows[suffix]
            if not rows:
                del groups[group]
        self.changes = []

    def drop(self, committed: int) -> None:
        """Forget the rows of the units up to *committed*."""
        sealed = self.sealed
        self.dropped_unit = committed
        while sealed and sealed[0][0] <= committed:
            unit, changes = sealed.popleft()
            for db, group, suffix, _ in changes:
                groups = self.rows[db]
                rows = groups.get(group)
                if rows is None:
                    continue
                row = rows.get(suffix)
                if row is not None and row[0] <= unit:
                    del rows[suffix]
                    if not rows:
                        del groups[group]

    def oldest_ns(self, committed: int) -> int:
        """When the oldest unit after *committed* was sealed, or a little earlier; 0 if none is.

        A little: :data:`MARK_NS`.
        """
        marks = self.marks
        if self.last_unit <= committed:
            marks.clear()  # where each unit commits before the next, nothing else drops them
            return 0
        while len(marks) > 1 and marks[1][0] <= committed + 1:
            marks.popleft()
        return marks[0][1]


def merge(
    rows: Rows, after: bytes | None, committed: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """*committed* rows in key order, with the overlay's *rows* in their places."""
    own = sorted([suffix for suffix in rows if after is None or suffix > after])
    position = 0
    for suffix, value in committed:
        while position < len(own) and own[position] < suffix:
            mine = rows[own[position]][1]
            if mine is not None:
                yield own[position], mine
            position += 1
        if position < len(own) and own[position] == suffix:
            mine = rows[suffix][1]
            position += 1
            if mine is not None:
                yield suffix, mine
        else:
            yield suffix, value
    for suffix in own[position:]:
        mine = rows[suffix][1]
        if mine is not None:
            yield suffix, mine
