"""A driver of the state machine without engine, store or event loop.

It keeps the world in dictionaries, delivers one notification at a time in an order the test
chooses, and can at any moment throw the machine away and replay what was recorded.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from perdure._bound import Bound
from perdure._core._entries import Entry, Flag, Kind
from perdure._core._machine import START, Activation, Machine, State
from perdure._core._operation import Operation
from perdure._core._outgoing import Outgoing
from perdure._runtime import _anyio, _gather, _unawaited
from perdure.context import Request, WorkflowContext
from perdure.errors import TerminalError
from perdure.futures import Step
from perdure.serde import UNTYPED, encode_failure, serde_for

for patch in (_anyio, _gather, _unawaited):
    patch.install()  # what asyncio, anyio and warnings do to a handler, as the engine has it

Handler = Callable[[WorkflowContext], Awaitable[Any]]

INVOCATION_ID = bytes(16)
COMPLETIONS = (Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT)
BEGIN_MS = 1_700_000_000_000


def encode(value: object) -> bytes:
    return serde_for(UNTYPED).encode(value, "test value")


def decode(payload: bytes) -> Any:
    return serde_for(UNTYPED).decode(payload, "test value")


class Sites:
    """Call sites, numbered in the order in which they are first seen."""

    def __init__(self) -> None:
        self.texts: list[str] = [""]

    def of(self, frame: FrameType) -> int:
        code = frame.f_code
        text = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text)

    def text(self, site: int) -> str:
        return self.texts[site]


class World:
    """What outlives a crash: the clock, the key's state and promises, the journal."""

    def __init__(self) -> None:
        self.now_ms = BEGIN_MS
        self.states: dict[str, bytes] = {}
        self.promises: dict[str, tuple[bytes, bool]] = {}
        self.journal: list[list[Entry]] = []  # an activation each, as kept
        self.reads_allowed = True  # a replay must never look: its answers are in the journal

    def state(self, name: str) -> bytes | None:
        assert self.reads_allowed, "a replay read the state of the world"
        return self.states.get(name)

    def state_names(self) -> list[str]:
        assert self.reads_allowed, "a replay read the state of the world"
        return list(self.states)

    def promise(self, name: str) -> tuple[bytes, bool] | None:
        assert self.reads_allowed, "a replay read the promises of the world"
        return self.promises.get(name)

    def existing(self, outgoing: Outgoing) -> bytes | None:
        raise AssertionError("no program calls")

    def awakeable_waits(self, name: str) -> bool:
        raise AssertionError("no program completes awakeables")

    def apply(self, activation: Activation) -> None:
        """Keep an activation and have its effects."""
        for entry in activation.entries:
            if entry.kind == Kind.STATE_SET:
                assert entry.payload is not None
                self.states[entry.name] = entry.payload
            elif entry.kind == Kind.STATE_CLEAR:
                self.states.pop(entry.name, None)
            elif entry.kind == Kind.STATE_CLEAR_ALL:
                self.states.clear()
            elif entry.kind in COMPLETIONS and not entry.flags & Flag.REFUSED:
                assert entry.payload is not None
                self.promises[entry.name] = entry.payload, entry.kind == Kind.PROMISE_REJECT
        self.journal.append(list(activation.kept))


def no_calls(handler: object, arg: object, key: str | None) -> Bound:
    raise AssertionError("no program calls")


class Driver:
    """One invocation of *handler* in a fake world.

    Attributes:
      machine: The present machine; another one after each :meth:`crash`.
      complaints: What closing machines complained of.
      problems: What the loop would have given its exception handler.
    """

    def __init__(self, handler: Handler, world: World | None = None) -> None:
        self.handler = handler
        self.world = world if world is not None else World()
        self.sites = Sites()
        self.complaints: list[str] = []
        self.problems: list[dict[str, Any]] = []
        self.variables = contextvars.copy_context()
        self.machine = self._new_machine()

    def _new_machine(self) -> Machine:
        async def main(machine: Machine) -> tuple[bytes, bool]:
            context = WorkflowContext(machine, INVOCATION_ID, "key", Request(), no_calls)
            try:
                return encode(await self.handler(context)), False
            except TerminalError as failure:
                return encode_failure(failure), True

        return Machine(
            main,
            reads=self.world,
            sites=self.sites,
            context=self.variables.copy(),
            report=self.problems.append,
            show=lambda payload: repr(decode(payload)),
        )

    # -- delivering -------------------------------------------------------------------------

    def start(self) -> Activation:
        return self.deliver(START)

    def deliver(self, notification: Entry) -> Activation:
        """Deliver *notification* now; the activation is kept if it succeeds."""
        activation = self.machine.activate(notification, self.world.now_ms)
        self.world.now_ms = self.machine.time_ms
        self.world.apply(activation)
        return activation

    def deliverable(self) -> list[Operation]:
        """What the world may answer next: any step or promise, and the timer that is due first."""
        outstanding = list(self.machine.outstanding.values())
        timers = [operation for operation in outstanding if operation.kind == Kind.TIMER]
        first = min(timers, key=lambda timer: (timer.time_ms, timer.index), default=None)
        return [
            operation
            for operation in outstanding
            if operation.kind != Kind.TIMER or operation is first
        ]

    def answer(self, operation: Operation) -> Activation:
        """Let the world answer *operation*: run the step, fire the timer, complete the promise."""
        if operation.kind == Kind.TIMER:
            return self.fire(operation)
        if operation.kind == Kind.RUN:
            return self.step_done(operation)
        return self.promise_done(operation)

    def fire(self, timer: Operation) -> Activation:
        self.world.now_ms = max(self.world.now_ms, timer.time_ms)
        return self.deliver(Entry(Kind.TIMER_FIRED, timer.index))

    def step_done(self, operation: Operation) -> Activation:
        assert isinstance(operation, Step)
        flags = 0
        try:
            payload = operation.encode(operation.function(*operation.arguments))
        except TerminalError as failure:
            payload = encode_failure(failure)
            flags = Flag.FAILED
        return self.deliver(
            Entry(Kind.STEP_DONE, operation.index, operation.name, payload, flags=flags)
        )

    def promise_done(self, operation: Operation) -> Activation:
        """Resolve the promise from outside with its own name, unless it was completed before."""
        completed = self.world.promises.setdefault(
            operation.name, (encode(f"value of {operation.name}"), False)
        )
        payload, failed = completed
        return self.deliver(
            Entry(
                Kind.PROMISE_DONE,
                operation.index,
                operation.name,
                payload,
                flags=Flag.FAILED if failed else 0,
            )
        )

    def named(self, name: str) -> Operation:
        """The outstanding step or promise *name*."""
        return next(o for o in self.machine.outstanding.values() if o.name == name)

    def timer(self) -> Operation:
        """The outstanding timer that is due first."""
        return next(o for o in self.deliverable() if o.kind == Kind.TIMER)

    def finish(self, *, crash_each_time: bool = False) -> Any:
        """Answer whatever is outstanding, the oldest first, until the handler has ended."""
        if self.machine.state is State.NEW:
            self.start()
        while not self.completed:
            if crash_each_time:
                self.crash()
            self.answer(self.deliverable()[0])
        if crash_each_time:
            self.crash()
        return self.result()

    # -- crashing ---------------------------------------------------------------------------

    def evict(self) -> list[str]:
        """Close the machine; what it complains of."""
        complaints = self.machine.close()
        self.complaints += complaints
        return complaints

    def crash(self, handler: Handler | None = None) -> None:
        """Drop the machine and replay the journal in a new one, with *handler* if given."""
        before = outstanding_of(self.machine)
        self.evict()
        if handler is not None:
            self.handler = handler
        self.machine = self._new_machine()
        self.replay()
        assert outstanding_of(self.machine) == before

    def replay(self) -> None:
        """Feed the journal to the machine, which must be new."""
        self.world.reads_allowed = False
        try:
            for entries in self.world.journal:
                self.machine.replay(entries)
        finally:
            self.world.reads_allowed = True
        assert self.machine.next_index == len(self.entries)

    # -- looking ----------------------------------------------------------------------------

    @property
    def entries(self) -> list[Entry]:
        return [entry for activation in self.world.journal for entry in activation]

    @property
    def completed(self) -> bool:
        return self.machine.state is State.COMPLETED

    def commands(self) -> list[tuple[int, str]]:
        """Kind and name of each command in the journal."""
        return [(entry.kind, entry.name) for entry in self.entries if entry.kind >= Kind.OUTPUT]

    def output(self) -> Entry:
        entry = self.entries[-1]
        assert entry.kind == Kind.OUTPUT, "the handler has not ended"
        return entry

    def result(self) -> Any:
        """What the handler returned, or the failure as (message, code)."""
        output = self.output()
        assert output.payload is not None
        return decode(output.payload)

    def failed(self) -> bool:
        return bool(self.output().flags & Flag.FAILED)


def outstanding_of(machine: Machine) -> list[tuple[int, int, str, int]]:
    """What a machine waits for, in order."""
    return [
        (index, operation.kind, operation.name, operation.time_ms)
        for index, operation in machine.outstanding.items()
    ]


def run(handler: Handler) -> Driver:
    """Run *handler* to its end twice, the second time crashed after each notification.

    Returns the driver of the crashed run; both must have kept the same journal.
    """
    plain = Driver(handler)
    plain.finish()
    plain.evict()
    crashed = Driver(handler)
    crashed.finish(crash_each_time=True)
    crashed.evict()
    assert crashed.entries == plain.entries
    assert crashed.problems == plain.problems == []
    return crashed
