"""One run of a workflow whose events come in an order that is given."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure._runtime._layout import TimerKey
from perdure._runtime._running import RunningStep
from perdure._store import Db
from perdure.testing._sim_disk import Faults
from perdure.testing._sim_host import SimClock
from perdure.testing._trial import Subject, Trial, TrialClock, TrialFailed

EVENTS_MAX = 10_000
"""Of one run; beyond, it goes round in circles."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that could happen, and did.

    Attributes:
      what: Such as ``step 'charge' ends``.
      site: ``file:line in function`` of the command concerned; empty where none is.
      others: What could have happened in its place.
    """

    what: str
    site: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = self.what + (f", {self.site}" if self.site else "")
        return text + (f"   (before {', '.join(self.others)})" if self.others else "")


class NoSuchOrder(ValueError):
    """An order was asked for that the workflow does not have."""


@dataclass
class _Held:
    """Something that happens when it is chosen."""

    what: str
    site: str
    happen: Callable[[], object]


class HeldTime(TrialClock):
    """A clock that stands still until it is chosen that time passes."""

    def __init__(self, loop: Any, chance: random.Random, faults: Faults) -> None:
        super().__init__(loop, chance, faults)
        self.waiting: list[tuple[int, int, asyncio.Handle]] = []
        self._order = itertools.count()
        self._held_ms = super().now_ms()

    def now_ms(self) -> int:
        return self._held_ms

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when_ms: int, callback: Callable[[], None]
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, (), loop, context=contextvars.copy_context())
        heapq.heappush(self.waiting, (when_ms, next(self._order), handle))
        self._release(loop)
        return handle

    def pass_to(self, loop: asyncio.AbstractEventLoop, to_ms: int) -> None:
        """Have it be *to_ms*, and what is due by then happen."""
        self._held_ms = max(self._held_ms, to_ms)
        self._release(loop)

    def _release(self, loop: Any) -> None:
        while self.waiting and self.waiting[0][0] <= self._held_ms:
            loop._ready.append(heapq.heappop(self.waiting)[2])


class OrderedTrial(Trial):
    """A run in which *choices* say what happens next; after them, the first of what could.

    Attributes:
      choices: All that were made.
      events: What they were.
    """

    def __init__(self, subject: Subject, choices: tuple[int, ...]) -> None:
        super().__init__(subject)
        self.choices: list[int] = []
        self.events: list[Event] = []
        self._counts: list[int] = []  # between how many
        self._wanted = choices
        self._held: list[_Held] = []
        self._wakes: list[tuple[int, asyncio.Future[None]]] = []  # when the script goes on

    def branches(self, begin: int) -> list[tuple[int, ...]]:
        """The orders that differ from this one first at a choice from *begin* on."""
        return [
            (*self.choices[:position], other)
            for position in range(begin, len(self.choices))
            for other in range(1, self._counts[position])
        ]

    def _make_clock(self, faults: Faults) -> SimClock:
        self._time = HeldTime(self._loop, self._chance, faults)
        return self._time

    def step_ended(self, running: RunningStep, tell: Callable[[], None]) -> None:
        if self._ending:
            return
        context = contextvars.copy_context()

        def end() -> None:
            if not running.cancelled:  # meanwhile: then nobody is told
                tell()

        self._held.append(
            _Held(
                f"step {running.step.name!r} ends",
                self.site_of(running),
                lambda: self._loop.call_soon(self.hear, end, context=context),
            )
        )

    async def about_to_ask(self, verb: str) -> None:
        turn = self._loop.create_future()
        self._held.append(_Held(f"the script does its {verb}", "", lambda: turn.set_result(None)))
        await turn

    async def sleep(self, seconds: float) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        wake_ms = self._time.now_ms() + math.ceil(seconds * 1000)
        self._wakes.append((wake_ms, turn))
        await turn

    async def _come_to_rest(self) -> None:
        await super()._come_to_rest()
        while self._held:  # the order of these is no matter of the workflow
            self._held.pop(0).happen()
            await super()._come_to_rest()

    def nothing_left(self) -> None:
        options = [*self._held, *self._passing_of_time()]
        if not options or self._ending or self._failure is not None:
            super().nothing_left()
            return
        if len(self.choices) >= EVENTS_MAX:
            self._fail(TrialFailed(f"it comes to no end: {EVENTS_MAX:,} events have happened"))
            return
        position = len(self.choices)
        wanted = self._wanted[position] if position < len(self._wanted) else 0
        if not 0 <= wanted < len(options):
            self._fail(
                NoSuchOrder(f"choice {position} is {wanted}, but only {len(options)} are possible")
            )
            return
        chosen = options[wanted]
        self.choices.append(wanted)
        self._counts.append(len(options))
        others = tuple(each.what for each in options if each is not chosen)
        self.events.append(Event(chosen.what, chosen.site, others))
        self.log(chosen.what)
        if chosen in self._held:
            self._held.remove(chosen)
        chosen.happen()

    def _passing_of_time(self) -> list[_Held]:
        """Time passes to the next timer, or to when the script goes on, whichever is earlier."""
        now_ms = self._time.now_ms()
        wake_ms = min((wake_ms for wake_ms, _ in self._wakes), default=None)
        timer = self._next_timer(now_ms)
        options = []
        if timer is not None and (wake_ms is None or timer.due_ms <= wake_ms):
            number = self._sites_of.get((timer.invocation_id, timer.operation), 0)
            due_ms = timer.due_ms
            options.append(
                _Held(
                    f"a timer is due after {_span(due_ms - now_ms)}",
                    self.sites[number],
                    lambda: self._time.pass_to(self._loop, due_ms),
                )
            )
        if wake_ms is not None and (timer is None or wake_ms <= timer.due_ms):
            # At one moment with a timer it may go on before that, too.
            until_ms = wake_ms - 1 if timer is not None and timer.due_ms == wake_ms else wake_ms
            options.append(
                _Held(
                    f"the script goes on after {_span(max(0, wake_ms - now_ms))}",
                    "",
                    lambda: self._wake(wake_ms, until_ms),
                )
            )
        return options

    def _next_timer(self, now_ms: int) -> TimerKey | None:
        process = self._current()
        scheduler = process.engine._scheduler
        if not process.alive or scheduler is None:
            return None
        after = (now_ms + 1).to_bytes(8, "big")
        for suffix, _ in scheduler.store.scan(Db.TIMERS, b"", after=after, limit=1):
            return TimerKey.unpack(suffix)
        return None

    def _wake(self, wake_ms: int, until_ms: int) -> None:
        self._time.pass_to(self._loop, until_ms)
        for each in [each for each in self._wakes if each[0] <= wake_ms]:
            self._wakes.remove(each)
            each[1].set_result(None)


def _span(duration_ms: int) -> timedelta:
    return timedelta(milliseconds=duration_ms)
