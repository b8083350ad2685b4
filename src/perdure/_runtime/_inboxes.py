"""Who has the key of an object, and who waits for it, in the order of their arrival.

Exclusive handlers of one key run one at a time. The first of a key's line has the key. A line is
read from the store when somebody asks for it, and forgotten where the store has all there is to
know. An invocation that is in memory only has its place too, and no row until it is written.
Those with rows stand before those without: a crash must leave the key with the first that is left.

This module is compiled (see ``_inboxes.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from collections import deque

from perdure._ids import ID_BYTES
from perdure._runtime._layout import stranger, u64
from perdure._store import Db, Store

FORGOTTEN_MAX = 16
"""Places in a line that leaves memory."""


class Place:
    """A place in a line."""

    __slots__ = ("arrival", "invocation_id")

    def __init__(self, arrival: int, invocation_id: bytes) -> None:
        self.arrival = arrival
        self.invocation_id = invocation_id


class Line:
    """The line of one key: its places in order, and how many of the first ones have rows."""

    __slots__ = ("places", "written")

    def __init__(self, places: deque[Place]) -> None:
        self.places = places
        self.written = len(places)


class Inboxes:
    """Owner of the lines and of the database ``inbox``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[bytes, Line] = {}

    def join(self, group: bytes, invocation_id: bytes) -> bool:
        """Queue for the key; True if it is free, and so the invocation has it now."""
        line = self._lines[group] = self._line(group)
        line.places.append(Place(self._store.next_arrival(), invocation_id))
        return len(line.places) == 1

    def unwritten(self, group: bytes, invocation_id: bytes) -> list[bytes]:
        """Who has no row and stands before *invocation_id*, which has none either."""
        line = self._line(group)
        before: list[bytes] = []
        for position in range(line.written, len(line.places)):
            place = line.places[position]
            if place.invocation_id == invocation_id:
                return before
            before.append(place.invocation_id)
        return []  # it has its row

    def write(self, group: bytes, invocation_id: bytes) -> None:
        """Give the first place without a row its row, if it is that of *invocation_id*."""
        line = self._line(group)
        if line.written < len(line.places):
            place = line.places[line.written]
            if place.invocation_id == invocation_id:
                self._store.put(Db.INBOX, group, u64(place.arrival), invocation_id)
                line.written += 1

    def has_key(self, group: bytes, invocation_id: bytes) -> bool:
        """Whether it is the first of the line."""
        return self._line(group).places[0].invocation_id == invocation_id

    def waits(self, group: bytes, invocation_id: bytes) -> bool:
        """Whether it is in the line and does not have the key."""
        places = self._line(group).places
        if not places or places[0].invocation_id == invocation_id:
            return False
        return invocation_id in [place.invocation_id for place in places]

    def holder(self, group: bytes) -> bytes | None:
        """Who has the key."""
        line = self._lines.get(group)
        if line is not None:
            return line.places[0].invocation_id if line.places else None
        first = self._rows(group, 1)
        return first[0][1] if first else None

    def behind(self, group: bytes, invocation_id: bytes) -> int:
        """How many wait for a key that *invocation_id* has; 0 where it has none."""
        places = self._line(group).places
        if not places or places[0].invocation_id != invocation_id:
            return 0
        return len(places) - 1

    def leave(self, group: bytes, invocation_id: bytes) -> bytes | None:
        """Leave the line; who has the key from now on, if it has changed hands."""
        if group not in self._lines:
            # Most often it is the first that leaves: the others need not be read.
            rows = self._rows(group, 2)
            if rows and rows[0][1] == invocation_id:
                self._store.delete(Db.INBOX, group, rows[0][0])
                return rows[1][1] if len(rows) == 2 else None
        line = self._line(group)
        places = line.places
        for position, place in enumerate(places):
            if place.invocation_id == invocation_id:
                del places[position]
                if position < line.written:
                    line.written -= 1
                    self._store.delete(Db.INBOX, group, u64(place.arrival))
                if not places:
                    self._lines.pop(group, None)
                elif position == 0:
                    return places[0].invocation_id
                return None
        return None

    def forget(self, group: bytes) -> None:
        """Drop a line from memory, unless one of its places is there only.

        A long one stays: to read it again and again would cost more than it takes.
        """
        line = self._lines.get(group)
        if line is not None and line.written == len(line.places) <= FORGOTTEN_MAX:
            del self._lines[group]

    def _line(self, group: bytes) -> Line:
        line = self._lines.get(group)
        if line is None:
            rows = self._rows(group, 0)
            line = Line(
                deque([Place(int.from_bytes(suffix, "big"), value) for suffix, value in rows])
            )
        return line

    def _rows(self, group: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """(arrival, id) of the first *limit* in a line that have rows; 0: of all."""
        rows = self._store.scan(Db.INBOX, group, limit=limit)
        for suffix, value in rows:
            if len(value) != ID_BYTES or len(suffix) != 8:
                raise stranger("inbox", group + suffix, "it is no arrival of an id")
        return rows
