"""Objects that call, send, wait, are cancelled and crash, against what was acknowledged.

Theory of operation. A batch of clients' requests runs at once. It ends when the engine is idle, or
in a crash: the directory as it was after one of the units of the batch is what the next engine
opens, and what clients heard later than that is forgotten. The model is not a second engine. It
knows what was asked, what was acknowledged, and what follows from that whatever the order of
events: each number that was accepted is in the log of its key once, unless its end was asked for;
numbers of one key are in the order in which they were sent; what was read is still there.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from engine_support import ManualClock, Place, quiet_log, until_idle
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from invariants import violations

from perdure import (
    Engine,
    ObjectContext,
    ObjectSharedContext,
    RetryPolicy,
    Status,
    TerminalError,
    VirtualObject,
    handler,
)
from perdure._store import Store

KEYS = ("a", "b", "c")
CALLED, FORWARDED = 10_000, 20_000
"""Added to a number that reaches another key by a call or by a delayed send."""

HOURS_MAX = 40

SOON = RetryPolicy(initial=0.001, factor=1, max_interval=0.001, max_attempts=None)


class Tally(VirtualObject, idempotency_retention=365 * 86_400):
    """Each exclusive handler appends its number to the log of its key, sooner or later."""

    def __init__(self, awakeables: dict[str, str]) -> None:
        self.awakeables = awakeables  # by invocation
        self.inside: dict[str, set[str]] = {key: set() for key in KEYS}
        self.crowded: list[str] = []
        self.failed: set[str] = set()

    @handler
    async def work(self, ctx: ObjectContext, order: tuple[str, int]) -> int:
        inside = self.inside[ctx.key]
        inside.add(ctx.invocation_id)
        if len(inside) > 1:
            self.crowded.append(f"{inside} are inside of {ctx.key} at once")
        try:
            kind, number = order
            await self._wait(ctx, kind, number)
            log = [*(await ctx.get("log", list[int], [])), number]
            ctx.set("log", log)
            return len(log)
        finally:
            inside.discard(ctx.invocation_id)

    async def _wait(self, ctx: ObjectContext, kind: str, number: int) -> None:
        other = chr(ord(ctx.key) + 1)
        if kind == "signal":
            await ctx.signal("go", int)
        elif kind == "awakeable":
            awakeable = ctx.awakeable(int)
            self.awakeables[ctx.invocation_id] = awakeable.id
            await awakeable
        elif kind == "sleep":
            await ctx.sleep(3600)
        elif kind == "step":
            await ctx.run("step", str, number)
        elif kind == "call" and other in KEYS:
            await ctx.call(Tally.work, ("step", CALLED + number), key=other)
        elif kind == "forward" and other in KEYS:
            ctx.send(Tally.work, ("now", FORWARDED + number), key=other, delay=3600)
        elif kind == "fail once" and ctx.invocation_id not in self.failed:
            self.failed.add(ctx.invocation_id)
            raise ConnectionError("once in each process")

    @handler
    async def log(self, ctx: ObjectSharedContext) -> list[int]:
        return await ctx.get("log", list[int], [])


KINDS = ("now", "signal", "awakeable", "sleep", "step", "call", "forward", "fail once")


@dataclass
class Facts:
    """What has been acknowledged.

    Attributes:
      accepted: Number to invocation id.
      results: Number to the length of the log that its call was told.
      ended: Numbers whose end was asked for and acknowledged.
      seen: The log of each key, as read last.
    """

    accepted: dict[int, str] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    seen: dict[str, list[int]] = field(default_factory=lambda: {key: [] for key in KEYS})


class ObjectsKeepWhatIsAcknowledged(RuleBasedStateMachine):
    """Rules ask for things; the batch they make up runs, or crashes, at the next."""

    def __init__(self) -> None:
        super().__init__()
        quiet_log()
        self.root = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.facts = Facts()
        self.ending: set[int] = set()  # asked for, acknowledged or not
        self.keys: dict[int, str] = {}  # by number
        self.unordered: set[int] = set()
        self.sends: dict[int, tuple[str, float | None]] = {}
        self.awakeables: dict[str, str] = {}
        self.batch: list[Any] = []  # functions from an engine to a coroutine
        self.tasks: list[asyncio.Task[None]] = []
        self.lives = 0
        self.path = self.root / "0"
        self.open(True)

    def open(self, resident: bool) -> None:
        self.tally = Tally(self.awakeables)
        place = Place(self.path, 10_000 if resident else 0)
        self.engine = place.engine(self.tally, clock=self.clock, default_retry=SOON)
        self.do(self.engine.__aenter__())
        self.is_open = True

    def do(self, main: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(main, 10))

    # -- what clients ask for -----------------------------------------------------------------

    def number(self, key: str) -> int:
        number = len(self.keys) + 1
        self.keys[number] = key
        return number

    @rule(key=st.sampled_from(KEYS), kind=st.sampled_from(KINDS), hours=st.sampled_from([0, 0, 1]))
    def send(self, key: str, kind: str, hours: int) -> None:
        number = self.number(key)
        if hours:
            self.unordered.add(number)

        self.sends[number] = kind, 3600 * hours or None
        self.batch.append(lambda engine: self.sent(engine, number))

    async def sent(self, engine: Engine, number: int) -> None:
        kind, delay = self.sends[number]
        handle = await engine.send(
            Tally.work,
            (kind, number),
            key=self.keys[number],
            delay=delay,
            idempotency_key=f"{number}",
        )
        self.facts.accepted[number] = handle.id

    async def send_again(self) -> None:
        """What clients do that a crash has left without an answer."""
        for number in self.sends.keys() - self.facts.accepted.keys():
            self.unordered.add(number)  # it may have been lost, and begins anew
            await self.sent(self.engine, number)

    @rule(key=st.sampled_from(KEYS), kind=st.sampled_from(["now", "step", "call", "fail once"]))
    def call(self, key: str, kind: str) -> None:
        number = self.number(key)

        async def call(engine: Engine) -> None:
            length = await engine.call(Tally.work, (kind, number), key=key)
            self.facts.results[number] = length

        self.batch.append(call)

    @precondition(lambda self: self.facts.accepted)
    @rule(
        verb=st.sampled_from(["signal", "awakeable", "cancel", "kill", "pause", "resume"]),
        choice=st.integers(0, 1 << 16),
    )
    def act(self, verb: str, choice: int) -> None:
        numbers = sorted(self.facts.accepted)
        number = numbers[choice % len(numbers)]
        if verb in ("cancel", "kill"):
            self.ending.add(number)
        self.batch.append(lambda engine: self.acted(engine, verb, number))

    async def acted(self, engine: Engine, verb: str, number: int) -> None:
        invocation_id = self.facts.accepted[number]
        try:
            if verb == "signal":
                await engine.signal(invocation_id, "go", number)
            elif verb == "awakeable":
                if invocation_id in self.awakeables:
                    await engine.resolve_awakeable(self.awakeables[invocation_id], number)
            elif await getattr(engine, verb)(invocation_id) and verb in ("cancel", "kill"):
                self.facts.ended.add(number)
        except TerminalError:
            pass  # it has ended, has not begun, was answered before

    @rule(hours=st.integers(0, 2))
    def advance(self, hours: int) -> None:
        async def advance(engine: Engine) -> None:
            self.clock.advance(hours * 3600 + 1)

        self.batch.append(advance)

    # -- running and crashing -----------------------------------------------------------------

    @precondition(lambda self: self.batch)
    @rule()
    def run(self) -> None:
        self.do(self.run_batch())

    @precondition(lambda self: self.batch)
    @rule(unit=st.integers(1, 12), resident=st.booleans())
    def crash(self, unit: int, resident: bool) -> None:
        """The disk is left as it is when *unit* of the batch has committed."""
        self.lives += 1
        left, seal = self.root / f"{self.lives}", Store.seal
        units = 0
        facts: Facts | None = None

        def sealed(store: Store) -> int:
            nonlocal units, facts
            before = store.sealed
            number = seal(store)
            units += number > before
            if units == unit and facts is None:
                store.wait_committed(number)
                facts = copy.deepcopy(self.facts)
                left.mkdir()
                shutil.copy(store.path / "data.mdb", left)
            return number

        with patch.object(Store, "seal", sealed):
            self.do(self.run_batch())
        self.close()
        if facts is not None:
            self.path, self.facts = left, facts
        assert violations(self.path) == []
        self.open(resident)
        self.do(self.look())
        self.do(self.send_again())

    @rule(resident=st.booleans())
    def restart(self, resident: bool) -> None:
        self.close()
        assert violations(self.path) == []
        self.open(resident)
        self.do(self.look())

    async def run_batch(self) -> None:
        batch, self.batch = self.batch, []
        self.tasks += [asyncio.create_task(begin(self.engine)) for begin in batch]
        await until_idle(self.engine)
        await self.look()

    def close(self) -> None:
        async def close() -> None:
            for task in self.tasks:
                task.cancel()  # clients whose calls have not come back
            await asyncio.gather(*self.tasks, return_exceptions=True)
            self.tasks.clear()
            await self.engine.__aexit__(None, None, None)

        self.is_open = False
        self.do(close())

    # -- what must be so ----------------------------------------------------------------------

    async def look(self) -> None:
        """Read the logs, and compare them with what is known."""
        await until_idle(self.engine)
        assert self.tally.crowded == []
        for key in KEYS:
            log = await self.engine.call(Tally.log, key=key)
            seen = self.facts.seen[key]
            assert log[: len(seen)] == seen, "what was read is not there any more"
            assert len(set(log)) == len(log), "a number was logged twice"
            self.facts.seen[key] = log
            direct = [n for n in log if n < CALLED and n not in self.unordered]
            assert direct == sorted(direct), "out of order"
            assert all(self.keys[n] == key for n in log if n < CALLED)
            assert not self.facts.ended.intersection(log), "what was ended has logged"
        for number, length in self.facts.results.items():
            assert self.facts.seen[self.keys[number]][length - 1] == number
        for number, invocation_id in self.facts.accepted.items():
            again = await self.engine.send(
                Tally.work, ("now", 0), key=self.keys[number], idempotency_key=f"{number}"
            )
            assert again.id == invocation_id, "an idempotency key was forgotten"

    async def finish(self) -> None:
        """Let all that is accepted end, and see that it has done its work."""
        left = set(self.facts.accepted)
        for _ in range(HOURS_MAX):
            for number in sorted(left):
                for verb in ("resume", "signal", "awakeable"):
                    await self.acted(self.engine, verb, number)
            self.clock.advance(3601)
            await until_idle(self.engine)
            for number in sorted(left):
                description = await self.engine.describe(self.facts.accepted[number])
                if description.status is Status.COMPLETED:
                    left.discard(number)
        assert not left, "it never ended"
        self.clock.advance(3601)
        await self.look()
        logged = {number for log in self.facts.seen.values() for number in log}
        for number in self.facts.accepted:
            assert number in logged or number in self.ending, f"{number} has not logged"

    def teardown(self) -> None:
        try:
            if self.is_open:  # else a rule has failed
                self.do(self.run_batch())
                self.do(self.finish())
                self.close()
                assert violations(self.path) == []
        finally:
            self.loop.close()
            shutil.rmtree(self.root)


@pytest.mark.parametrize("examples", [30, pytest.param(300, marks=pytest.mark.long)])
def test_objects_keep_what_is_acknowledged(examples: int) -> None:
    run_state_machine_as_test(
        ObjectsKeepWhatIsAcknowledged,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
