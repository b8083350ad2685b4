"""Who has the key of an object, and who waits for it, in the order of their arrival.

Exclusive handlers of one key run one at a time. The first of a key's line has the key. A line is
read from the store when somebody asks for it, and forgotten where the store has all there is to
know. An invocation that is in memory only has its place too, and no row until it is written.

This module is compiled (see ``_inboxes.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from collections import deque

from perdure._runtime._layout import u64
from perdure._store import Db, Store


class Place:
    """A place in a line; *written*: it has its row."""

    __slots__ = ("arrival", "invocation_id", "written")

    def __init__(self, arrival: int, invocation_id: bytes, written: bool) -> None:
        self.arrival = arrival
        self.invocation_id = invocation_id
        self.written = written


class Inboxes:
    """Owner of the lines and of the database ``inbox``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[bytes, deque[Place]] = {}

    def join(self, group: bytes, invocation_id: bytes) -> bool:
        """Queue for the key; True if it is free, and so the invocation has it now."""
        line = self._line(group)
        line.append(Place(self._store.next_arrival(), invocation_id, False))
        self._lines[group] = line
        return len(line) == 1

    def write(self, group: bytes, invocation_id: bytes) -> None:
        """Give a place its row."""
        for place in self._line(group):
            if place.invocation_id == invocation_id and not place.written:
                self._store.put(Db.INBOX, group, u64(place.arrival), invocation_id)
                place.written = True

    def waits(self, group: bytes, invocation_id: bytes) -> bool:
        """Whether it is in the line and does not have the key."""
        line = self._line(group)
        if not line or line[0].invocation_id == invocation_id:
            return False
        return invocation_id in [place.invocation_id for place in line]

    def holder(self, group: bytes) -> bytes | None:
        """Who has the key."""
        line = self._lines.get(group)
        if line is not None:
            return line[0].invocation_id if line else None
        first = self._store.scan(Db.INBOX, group, limit=1)
        return first[0][1] if first else None

    def leave(self, group: bytes, invocation_id: bytes) -> bytes | None:
        """Leave the line; who has the key from now on, if it has changed hands."""
        line = self._line(group)
        for place in line:
            if place.invocation_id == invocation_id:
                had_key = place is line[0]
                line.remove(place)
                if place.written:
                    self._store.delete(Db.INBOX, group, u64(place.arrival))
                if not line:
                    self._lines.pop(group, None)
                    return None
                return line[0].invocation_id if had_key else None
        return None

    def forget(self, group: bytes) -> None:
        """Drop a line from memory, unless one of its places is there only."""
        line = self._lines.get(group)
        if line is None:
            return
        for place in line:
            if not place.written:
                return
        del self._lines[group]

    def _line(self, group: bytes) -> deque[Place]:
        line = self._lines.get(group)
        if line is None:
            rows = self._store.scan(Db.INBOX, group)
            line = deque(
                [Place(int.from_bytes(suffix, "big"), value, True) for suffix, value in rows]
            )
        return line
