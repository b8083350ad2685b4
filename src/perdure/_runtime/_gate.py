"""What leaves the engine, and when.

This module is compiled (see ``_gate.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure._store import Store
    from perdure.errors import PerdureError


class Held:
    """A call that waits for the commit of a unit."""

    __slots__ = ("callback", "first", "second", "unit")

    def __init__(
        self, unit: int, callback: Callable[[Any, Any], None], first: Any, second: Any
    ) -> None:
        self.unit = unit
        self.callback = callback
        self.first = first
        self.second = second


class Gate:
    """The one way out: what leaves waits for the commit of all that was sealed before.

    Attributes:
      failure: Why nothing leaves any more, once a commit has failed.
    """

    __slots__ = ("_held", "_store", "failure")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: deque[Held] = deque()
        self.failure: PerdureError | None = None

    def when_committed(
        self, callback: Callable[[Any, Any], None], first: Any, second: Any = None
    ) -> None:
        """Call ``callback(first, second)`` once all that is sealed now has committed.

        At once if it has. If it never commits, *first* fails, if it is a future.
        """
        unit = self._store.sealed
        if self.failure is not None:
            fail_futures((first,), self.failure)
        elif not self._held and unit <= self._store.committed:
            callback(first, second)
        else:
            self._held.append(Held(unit, callback, first, second))

    def hold(
        self, unit: int, callback: Callable[[Any, Any], None], first: Any, second: Any
    ) -> None:
        """The same for the commit of *unit*, the last that is sealed or an older one."""
        self._held.append(Held(unit, callback, first, second))

    def holds(self) -> bool:
        """Whether anything waits for a commit."""
        return bool(self._held)

    def settled(self) -> int:
        """The last unit for which nothing is held any more."""
        committed: int = self._store.committed
        return min(committed, self._held[0].unit - 1) if self._held else committed

    def release(self, limit: int) -> bool:
        """Let out what waited for the units that have committed; True if *limit* left some."""
        held = self._held
        committed = self._store.committed
        while held:
            item: Held = held[0]
            if item.unit > committed:
                return False
            if limit == 0:
                return True
            limit -= 1
            held.popleft()
            item.callback(item.first, item.second)
        return False

    def fail(self, failure: PerdureError) -> None:
        """Nothing leaves any more; futures that were held fail."""
        self.failure = failure
        held = list(self._held)
        self._held.clear()
        fail_futures([item.first for item in held], failure)


def fail_futures(items: Iterable[Any], failure: PerdureError) -> None:
    """Fail those of *items* that are futures somebody still waits for."""
    for item in items:
        if isinstance(item, asyncio.Future) and not item.done():
            item.set_exception(failure)


def set_result(future: asyncio.Future[Any], value: Any) -> None:
    """Give a future its result, unless nobody waits for it any more."""
    if not future.done():
        future.set_result(value)
