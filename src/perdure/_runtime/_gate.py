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

    __slots__ = ("args", "callback", "unit")

    def __init__(self, unit: int, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.unit = unit
        self.callback = callback
        self.args = args


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

    def when_committed(self, callback: Callable[..., None], *args: Any) -> None:
        """Call *callback* once all that is sealed now has committed; at once if it has.

        If it never commits, futures among *args* fail instead.
        """
        unit = self._store.sealed
        if self.failure is not None:
            fail_futures(args, self.failure)
        elif not self._held and unit <= self._store.committed:
            callback(*args)
        else:
            self._held.append(Held(unit, callback, args))

    def hold(self, unit: int, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Call *callback* once *unit*, the last that is sealed or an older one, has committed."""
        self._held.append(Held(unit, callback, args))

    def holds(self) -> bool:
        """Whether anything waits for a commit."""
        return bool(self._held)

    def settled(self) -> int:
        """The last unit for which nothing is held any more."""
        committed: int = self._store.committed
        return min(committed, self._held[0].unit - 1) if self._held else committed

    def release(self) -> None:
        """Let out what waited for the units that have committed."""
        held = self._held
        committed = self._store.committed
        while held:
            first: Held = held[0]
            if first.unit > committed:
                return
            held.popleft()
            first.callback(*first.args)

    def fail(self, failure: PerdureError) -> None:
        """Nothing leaves any more; futures that were held fail."""
        self.failure = failure
        held = list(self._held)
        self._held.clear()
        for item in held:
            fail_futures(item.args, failure)


def fail_futures(items: Iterable[Any], failure: PerdureError) -> None:
    """Fail those of *items* that are futures somebody still waits for."""
    for item in items:
        if isinstance(item, asyncio.Future) and not item.done():
            item.set_exception(failure)


def set_result(future: asyncio.Future[Any], value: Any) -> None:
    """Give a future its result, unless nobody waits for it any more."""
    if not future.done():
        future.set_result(value)
