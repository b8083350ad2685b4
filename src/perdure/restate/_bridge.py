"""Commands of a handler as calls of restate-sdk, and their outcomes as notifications."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import restate
from restate import RestateDurableFuture, SendHandle
from restate import TerminalError as SdkTerminalError
from restate.context import RestateDurableCallFuture
from restate.serde import BytesSerde

from perdure._bodies import JSON, value_of
from perdure._calling import already_started
from perdure._core._entries import Entry, Flag, Kind, encode_names
from perdure._core._machine import Activation, Machine
from perdure._core._operation import Operation
from perdure._core._outgoing import Outgoing
from perdure._ids import format_id
from perdure.errors import TerminalError
from perdure.futures import Call, StepOptions
from perdure.restate._steps import BridgeRunner, StepAction, run_options
from perdure.restate._values import (
    KIND_KEY,
    code_of,
    completion_payload,
    from_sdk,
    private_bytes,
    private_payload,
    rejection_bytes,
    wire_bytes,
)
from perdure.serde import decode_failure, encode_failure

T = TypeVar("T")

_BYTES = BytesSerde()
_ALREADY_STARTED = "the workflow method was already invoked"  # Restate's words

# The notification that tells of the end of each kind of operation.
_DONE = {
    Kind.RUN: Kind.STEP_DONE,
    Kind.TIMER: Kind.TIMER_FIRED,
    Kind.PROMISE_AWAIT: Kind.PROMISE_DONE,
    Kind.CALL: Kind.CALL_DONE,
    Kind.ATTACH: Kind.CALL_DONE,
    Kind.AWAKEABLE: Kind.AWAKEABLE_DONE,
    Kind.SIGNAL_AWAIT: Kind.SIGNAL_DONE,
}


class _Begun(NamedTuple):
    """An operation under way.

    Attributes:
      action: What Restate runs, of a step.
    """

    operation: Operation
    future: RestateDurableFuture[Any]
    action: StepAction | None = None


class Bridge:
    """Between the machine of one attempt and the SDK's context of it."""

    def __init__(
        self, context: Any, machine: Machine, invocation_id: str, runner: BridgeRunner
    ) -> None:
        # Any: the SDK's one context class has the members of all its types.
        self._context = context
        self._machine = machine
        self._invocation_id = invocation_id
        self._runner = runner
        self._begun: dict[int, _Begun] = {}  # by journal index
        # What has begun other invocations, by the ids that the machine knows them by.
        self._children: dict[str, RestateDurableCallFuture[Any] | SendHandle] = {}
        self._ids: dict[str, str] = {}  # that Restate gave to them, as far as they are known
        self._awakeables: dict[int, RestateDurableFuture[Any]] = {}
        self._cleared: set[str] = set()  # state, since it was set last
        # What has come and is not delivered, in its order; None: a cancellation.
        self._arrived: deque[int | None] = deque()
        self._calls_cancelled: set[int] = set()  # by the SDK, as it does with those of a cancelled

    def make_awakeable(self, index: int) -> str:
        """The id of the awakeable that the command at *index* has made."""
        awakeable_id, future = self._context.awakeable(_BYTES)
        self._awakeables[index] = future
        return cast(str, awakeable_id)

    async def time_ms(self) -> int:
        """Milliseconds since 1970, as Restate's journal has them."""
        run = self._context.run_typed("time", _clock, run_options(None))
        return int(await self.settled(run))

    # -- commands -----------------------------------------------------------------------------

    async def issue(self, activation: Activation) -> None:
        """Have Restate do what an activation has asked for."""
        timers: list[Operation] = []
        for index, entry in enumerate(activation.entries, activation.first_index):
            operation = self._machine.outstanding.get(index)
            if operation is not None and entry.kind == Kind.TIMER:
                timers.append(operation)
            elif operation is not None:
                self._begun[index] = await self._begin(operation, entry)
            elif entry.kind == Kind.CALL:  # and it was given up at once
                self._call(index, entry)
            elif entry.kind == Kind.CANCEL:
                await self._end(entry.ref)
            else:
                await self._do(index, entry)
        # Restate counts from when it is told. Told in the order of the deadlines, however slowly,
        # it has none of them fire before one with an earlier deadline.
        for timer in sorted(timers, key=lambda each: (each.time_ms, each.index)):
            delay = _milliseconds(timer.time_ms - self._machine.time_ms)
            self._begun[timer.index] = _Begun(timer, self._context.sleep(delay))

    async def _begin(self, operation: Operation, entry: Entry) -> _Begun:
        context = self._context
        kind, name = entry.kind, entry.name
        if kind == Kind.RUN:
            options: StepOptions = operation.options
            action = StepAction(self._runner, self._invocation_id, cast(Any, operation))
            run = context.run_typed(name, action.attempt, run_options(options.retry))
            return _Begun(operation, run, action)
        if kind == Kind.PROMISE_AWAIT:
            return _Begun(operation, context.promise(name, _BYTES).value())
        if kind == Kind.CALL:
            return _Begun(operation, self._call(operation.index, entry))
        if kind == Kind.ATTACH:
            return _Begun(operation, context.attach_invocation(await self._real_id(name), _BYTES))
        if kind == Kind.AWAKEABLE:
            return _Begun(operation, self._awakeables.pop(operation.index))
        assert kind == Kind.SIGNAL_AWAIT, kind
        return _Begun(operation, context.signal(name, _BYTES))

    def _call(self, index: int, entry: Entry) -> RestateDurableCallFuture[Any]:
        outgoing = self._machine.outgoing[index]
        call = self._context.generic_call(
            outgoing.service, outgoing.handler, _argument(outgoing, entry), **_route(outgoing)
        )
        self._children[format_id(outgoing.child)] = call
        return cast("RestateDurableCallFuture[Any]", call)

    async def _do(self, index: int, entry: Entry) -> None:
        """What has no outcome to wait for, or has had its answer already."""
        context = self._context
        kind, name, payload = entry.kind, entry.name, entry.payload or b""
        if kind == Kind.STATE_SET:
            self._cleared.discard(name)
            context.set(name, private_bytes(payload), _BYTES)
        elif kind == Kind.STATE_CLEAR:
            self._cleared.add(name)
            context.clear(name)
        elif kind == Kind.STATE_CLEAR_ALL:
            context.clear_all()
        elif kind == Kind.SEND:
            outgoing = self._machine.outgoing[index]
            delay = entry.time_ms - self._machine.time_ms
            self._children[format_id(outgoing.child)] = context.generic_send(
                outgoing.service,
                outgoing.handler,
                _argument(outgoing, entry),
                send_delay=_milliseconds(delay) if delay > 0 else None,
                **_route(outgoing),
            )
        elif kind == Kind.CANCEL_INVOCATION:
            context.cancel_invocation(await self._real_id(name))
        elif kind == Kind.AWAKEABLE_RESOLVE:
            context.resolve_awakeable(name, wire_bytes(payload, name), _BYTES)
        elif kind == Kind.AWAKEABLE_REJECT:
            failure = decode_failure(payload)
            context.reject_awakeable(name, failure.message, code_of(failure))

    async def _end(self, index: int) -> None:
        """The handler has cancelled an operation: nobody waits for it any more."""
        begun = self._begun.pop(index, None)
        if begun is None:
            outgoing = self._machine.outgoing.get(index)
            if outgoing is not None:
                self._context.cancel_invocation(await self._id_of(format_id(outgoing.child)))
        elif begun.action is not None:
            begun.action.cancel()
        elif begun.operation.kind == Kind.CALL and index not in self._calls_cancelled:
            call = cast("Call[Any]", begun.operation)
            self._context.cancel_invocation(await self._id_of(call._invocation_id))

    # -- outcomes -----------------------------------------------------------------------------

    async def notification(self) -> Entry:
        """The next thing that the handler is to be told."""
        while True:
            while self._arrived:
                index = self._arrived.popleft()
                if index is None:
                    return Entry(Kind.CANCELLED)
                begun = self._begun.pop(index, None)
                if begun is not None:  # the handler has not cancelled it since
                    return await self._told(index, begun)
            await self._wait()

    async def settled(self, future: Awaitable[T]) -> T:
        """The value of a future of the SDK's; what else comes meanwhile is kept."""
        while not await self._wait(cast("RestateDurableFuture[Any]", future)):
            pass
        return cast(T, await _fetched(future))

    async def _wait(self, asked: RestateDurableFuture[Any] | None = None) -> bool:
        """Wait until something has come; whether it is what was *asked*."""
        # All that is outstanding is waited for, always. The SDK tells of one at a time, in the
        # order of its journal, but not of the order of what it had no reason to tell of.
        waiting = {
            id(each.future): index
            for index, each in self._begun.items()
            if index not in self._arrived
        }
        futures = [self._begun[index].future for index in waiting.values()]
        if asked is not None:
            futures.append(asked)
        try:
            done, _ = await restate.wait_completed(*futures)
        except SdkTerminalError:
            # Waiting fails for no other reason: the futures' own failures come with their values.
            self._cancelled()
            return False
        self._arrived += [waiting[id(future)] for future in done if future is not asked]
        return any(future is asked for future in done)

    def _cancelled(self) -> None:
        """A cancellation has come; the SDK has passed it on to all that was called."""
        self._arrived.append(None)
        self._calls_cancelled.update(
            index for index, each in self._begun.items() if each.operation.kind == Kind.CALL
        )

    async def _told(self, index: int, begun: _Begun) -> Entry:
        operation = begun.operation
        try:
            data = await _fetched(begun.future)
            payload, failed = _outcome(operation, data)
        except SdkTerminalError as failure:
            payload, failed = _failure(operation, failure), True
        except TerminalError as failure:
            payload, failed = encode_failure(failure), True
        flags = Flag.FAILED if failed else 0
        return Entry(_DONE[operation.kind], index, payload=payload, flags=flags)

    async def answer(self, asked: Entry) -> Entry:
        """*asked* with its answer."""
        context, kind, name = self._context, asked.kind, asked.name
        if kind == Kind.STATE_GET:
            data = await self.settled(context.get(name, _BYTES))
            return (
                asked
                if data is None
                else asked._replace(payload=private_payload(data, f"state {name!r}"))
            )
        if kind == Kind.STATE_KEYS:
            names = await self.settled(context.state_keys())
            # The SDK still lists what was cleared of the state that came with the invocation.
            return asked._replace(payload=encode_names(sorted(set(names) - self._cleared)))
        if kind == Kind.PROMISE_PEEK:
            return await self._peeked(asked)
        if kind == Kind.LOOK_UP:
            return asked._replace(payload=(await self._id_of(name)).encode())
        assert kind in (Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT), kind
        return await self._completed(asked)

    async def _peeked(self, asked: Entry) -> Entry:
        try:
            data = await self.settled(self._context.promise(asked.name, _BYTES).peek())
        except SdkTerminalError as failure:
            return asked._replace(payload=from_sdk(failure), flags=Flag.FAILED)
        if data is None:
            return asked
        payload, failed = completion_payload(data, f"promise {asked.name!r}")
        return asked._replace(payload=payload, flags=Flag.FAILED if failed else 0)

    async def _completed(self, asked: Entry) -> Entry:
        """Resolve or reject a promise, and say whether that was refused."""
        promise, payload = self._context.promise(asked.name, _BYTES), asked.payload or b""
        if asked.kind == Kind.PROMISE_RESOLVE:
            completion = promise.resolve(private_bytes(payload))
        else:
            failure = decode_failure(payload)
            if type(failure) is TerminalError and not failure.metadata:
                completion = promise.reject(failure.message, code_of(failure))
            else:  # of which Restate's rejections have no place for the rest
                completion = promise.resolve(rejection_bytes(payload))
        try:
            await self.settled(completion)
        except SdkTerminalError:
            return asked._replace(flags=Flag.REFUSED)
        return asked

    async def _real_id(self, name: str) -> str:
        """Restate's id of what a handler knows by *name*, which may be that id."""
        return await self._id_of(name) if name in self._children else name

    async def _id_of(self, name: str) -> str:
        """The id that Restate gave to what a call or a send has begun."""
        # The members of the SDK that give it can be awaited once: a cancellation that comes
        # meanwhile would be all that they ever say.
        child: Any = self._children[name]
        lazy = getattr(child, "invocation_id_future", child.future)
        while name not in self._ids:
            try:
                self._ids[name] = await lazy.async_def()
            except SdkTerminalError:
                self._cancelled()
        return self._ids[name]


def _milliseconds(count: int) -> timedelta:
    # The SDK multiplies seconds by 1000 and cuts: 1.001 s would be 1000 ms, and too early.
    return timedelta(milliseconds=count, microseconds=500)


async def _clock() -> bytes:
    # The SDK's own ctx.time() asks a thread: on a busy loop that is a wait for the GIL, twice.
    return b"%d" % (time.time_ns() // 1_000_000)


def _fetched(future: Any) -> Awaitable[Any]:
    """The value of what is done: awaited itself, a future of the SDK's makes a task for that."""
    return cast("Awaitable[Any]", future.future.async_def())


def _route(outgoing: Outgoing) -> dict[str, Any]:
    return {
        "key": outgoing.key or None,
        "idempotency_key": outgoing.idempotency_key,
        "headers": outgoing.headers or None,
    }


def _argument(outgoing: Outgoing, entry: Entry) -> bytes:
    """The argument of a call as what crosses services has it."""
    return wire_bytes(entry.payload, f"argument of {outgoing.target}")


def _outcome(operation: Operation, data: bytes | None) -> tuple[bytes | None, bool]:
    """What an operation has ended with, as the machine knows it."""
    kind = operation.kind
    if kind == Kind.TIMER:
        return None, False
    if kind == Kind.RUN:
        return private_payload(data or b"", str(operation)), False
    if kind == Kind.PROMISE_AWAIT:
        return completion_payload(data or b"", str(operation))
    serde, place = operation._serde, str(operation)
    if not data and serde.annotation is not bytes:
        value = None  # as handlers in other languages return nothing
    else:
        value = value_of(serde, data or b"", JSON, place)
    return serde.encode(value, place), False


def _failure(operation: Operation, failure: SdkTerminalError) -> bytes:
    """What an operation has failed with; what Restate itself says of it as an engine puts it."""
    if operation.kind == Kind.CALL and failure.message == _ALREADY_STARTED:
        return already_started(operation.options)
    if operation.kind != Kind.RUN or KIND_KEY in (failure.metadata or {}):
        return from_sdk(failure)
    retry = operation.options.retry
    attempts = retry.max_attempts if retry is not None else None
    count = f"{attempts} attempts" if attempts else "its last attempt"
    text = f"step {operation.name!r} failed after {count}: {failure.message}"
    return encode_failure(TerminalError(text))
