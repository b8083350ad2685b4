"""A driver that has to ask somebody else for every read: activations stop, and are gone on with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from driver import Driver, Handler, World

from perdure._core._entries import Entry, Flag, Kind, encode_names
from perdure._core._machine import Activation
from perdure._core._view import LATER


class LaterWorld(World):
    """What is read of it comes later."""

    def state(self, name: str) -> Any:
        super().state(name)
        return LATER

    def state_names(self) -> Any:
        super().state_names()
        return LATER

    def promise(self, name: str) -> Any:
        super().promise(name)
        return LATER

    def answered(self, asked: Entry) -> Entry:
        """*asked* with its answer, as of now."""
        if asked.kind == Kind.STATE_GET:
            return asked._replace(payload=self.states.get(asked.name))
        if asked.kind == Kind.STATE_KEYS:
            return asked._replace(payload=encode_names(sorted(self.states)))
        completed = self.promises.get(asked.name)
        if asked.kind == Kind.PROMISE_PEEK:
            if completed is None:
                return asked
            payload, failed = completed
            return asked._replace(payload=payload, flags=Flag.FAILED if failed else 0)
        return asked if completed is None else asked._replace(flags=Flag.REFUSED)


class LaterDriver(Driver):
    """One invocation, each of whose reads is answered when its activation has stopped for it.

    Attributes:
      asked: How often that was.
    """

    def __init__(self, handler: Handler) -> None:
        self.later = LaterWorld()
        self.asked = 0
        super().__init__(handler, self.later)

    def deliver(self, notification: Entry) -> Activation:
        world = self.later
        before = dict(world.states), dict(world.promises), len(world.journal)
        try:
            whole = self._gone_on_with(
                lambda: self.machine.activate(notification, world.now_ms), len(world.journal)
            )
        except BaseException:
            world.states, world.promises = before[:2]  # an attempt that fails leaves no trace
            del world.journal[before[2] :]
            raise
        world.now_ms = self.machine.time_ms
        return whole

    def _gone_on_with(self, begin: Callable[[], Activation], at: int) -> Activation:
        activation = begin()
        self.world.apply(activation)
        while (asked := self.machine.asked) is not None:
            self.asked += 1
            activation = self.machine.answer(self.later.answered(asked))
            self.world.apply(activation)
        self.world.journal[at:] = [[entry for part in self.world.journal[at:] for entry in part]]
        return activation
