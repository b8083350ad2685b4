"""Who has the key of an object, and who waits for it, in the order of their arrival.

Exclusive handlers of one key run one at a time. The first of a key's line has the key. A line is
read from the store when somebody asks for it, and forgotten where the store has all there is to
know. An invocation that is in memory only has its place too, and no row until it is written.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from perdure._runtime._layout import u64
from perdure._store import Db, Store


class Place(NamedTuple):
    """A place in a line."""

    arrival: int
    invocation_id: bytes


class Inboxes:
    """Owner of the lines and of the database ``inbox``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[bytes, deque[Place]] = {}

    def join(self, group: bytes, invocation_id: bytes) -> bool:
        """Queue for the key; True if it is free, and so the invocation has it now."""
        line = self._line(group)
        line.append(Place(self._store.next_arrival(), invocation_id))
        self._lines[group] = line
        return len(line) == 1

    def write(self, group: bytes, invocation_id: bytes) -> None:
        """Give a place its row."""
        for place in self._line(group):
            if place.invocation_id == invocation_id:
                self._store.put(Db.INBOX, group, u64(place.arrival), invocation_id)

    def waits(self, group: bytes, invocation_id: bytes) -> bool:
        """Whether it is in the line and does not have the key."""
        line = self._line(group)
        return any(place.invocation_id == invocation_id for place in line) and (
            line[0].invocation_id != invocation_id
        )

    def holder(self, group: bytes) -> bytes | None:
        """Who has the key."""
        line = self._line(group)
        return line[0].invocation_id if line else None

    def leave(self, group: bytes, invocation_id: bytes) -> bytes | None:
        """Leave the line; who has the key from now on, if it has changed hands."""
        line = self._line(group)
        if not line:
            return None
        if line[0].invocation_id == invocation_id:
            self._store.delete(Db.INBOX, group, u64(line.popleft().arrival))
            if line:
                return line[0].invocation_id
            self._lines.pop(group, None)
            return None
        for place in line:
            if place.invocation_id == invocation_id:
                line.remove(place)
                self._store.delete(Db.INBOX, group, u64(place.arrival))
                return None
        return None

    def forget(self, group: bytes) -> None:
        """Drop a line from memory, unless one of its places is there only."""
        line = self._lines.get(group)
        if line is not None and all(
            self._store.get(Db.INBOX, group, u64(place.arrival)) is not None for place in line
        ):
            del self._lines[group]

    def _line(self, group: bytes) -> deque[Place]:
        line = self._lines.get(group)
        if line is None:
            rows = self._store.scan(Db.INBOX, group)
            line = deque(Place(int.from_bytes(suffix, "big"), value) for suffix, value in rows)
        return line
