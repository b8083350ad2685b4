"""What a handler does with other invocations, and what reaches it from outside.

Calls, sends, awakeables, signals, attaching, cancelling: the part of every context for them.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure._absent import ABSENT
from perdure._bound import Binder, Bound
from perdure._core._entries import Kind
from perdure._core._machine import Machine
from perdure._core._outgoing import Outgoing, child_id
from perdure._declarations import SignalDeclaration, name_and_serde
from perdure._ids import format_awakeable, format_id, parse_awakeable, parse_id
from perdure._limits import check_headers, check_idempotency_key, check_name, seconds_of
from perdure.errors import AlreadyCompleted, Conflict, InvalidInput, TerminalError
from perdure.futures import (
    Attachment,
    Awakeable,
    Call,
    DurableFuture,
    InvocationRef,
    Signal,
    failure_of,
)
from perdure.serde import UNTYPED, encode_failure, serde_for

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class Calling:
    """The part of a context that reaches beyond its own invocation.

    Attributes:
      _held: (service, key) that this handler has for itself, or None.
      _make_call, _make_ref: What a call and a send are answered with.
    """

    _machine: Machine
    _make_call: type[Call[Any]] = Call
    _make_ref: type[InvocationRef] = InvocationRef
    _origin: tuple[bytes, int] = b"", 0  # whose journal it began with, and how many entries of it
    _service: type = object  # class of the service whose handler this is, where it is known

    def __init__(self, raw_id: bytes, binder: Binder, held: tuple[str, str] | None) -> None:
        self._raw_id = raw_id
        self._bind = binder
        self._held = held

    @property
    def invocation_id(self) -> str:
        """``inv_`` and 26 characters."""
        return format_id(self._raw_id)

    @overload
    def call(
        self,
        handler: Callable[[Any, Any, A], Awaitable[R]],
        arg: A,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Call[R]: ...
    @overload
    def call(
        self,
        handler: Callable[[Any, Any], Awaitable[R]],
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Call[R]: ...
    @overload
    def call(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        returns: type[R],
    ) -> Call[R]: ...
    @overload
    def call(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        returns: Any = None,
    ) -> Call[Any]: ...

    def call(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        returns: Any = None,
    ) -> Call[Any]:
        """Call *handler*, which begins now; await what this returns for its result.

        Calls and sends from one handler to one key arrive in the order in which they were made.

        Args:
          handler: A method of a service class, or ``"Service.handler"``.
          arg: Its argument, where it takes one.
          key: For handlers of workflows and objects.
          idempotency_key: The first call with it begins an invocation, later ones attach to that.
          headers: Handed to the handler as ``ctx.request.headers``.
          returns: Type of the result; wins over the handler's own annotation.

        Raises:
          Conflict: Awaited: a workflow's ``run`` was started for *key* before.
          InvalidInput: *arg* is not what it takes; it waits for the key that this handler has, or
            the idempotency key is the one that this invocation was begun with.
          NotFound: No such service or handler here.
          TerminalError: Awaited: as the invocation failed.
        """
        bound = self._bind(handler, arg, key)
        if bound.is_exclusive and (bound.service, bound.key) == self._held:
            raise InvalidInput(
                f"{bound.service}.{bound.handler} of key {bound.key!r} can not be called from an "
                "exclusive handler of the same key: it would wait for this handler, and this one "
                "for it. Call the method itself, or send to it"
            )
        outgoing, existing = self._outgoing(bound, idempotency_key, headers)
        serde = bound.result_serde if returns is None else serde_for(returns)
        machine = self._machine
        if existing == self._raw_id and not bound.is_run:
            raise InvalidInput(
                f"{bound.service}.{bound.handler} was begun with this idempotency key, and calls "
                "itself with it: it would wait for itself for ever"
            )
        if existing is not None and not bound.is_run:
            # An idempotent call: the first one's result is this one's.
            attached = self._make_call(
                machine, Kind.ATTACH, format_id(existing), serde, format_id(existing)
            )
            attached.issue()
            return attached
        call = self._make_call(
            machine,
            Kind.CALL,
            outgoing.target,
            serde,
            format_id(outgoing.child),
            _recode(bound, outgoing.target),
        )
        if existing is not None:
            call.born_failed(already_started(bound))
        else:
            call.payload = bound.payload
            machine.begin_call(call, outgoing)
        return call

    @overload
    def send(
        self,
        handler: Callable[[Any, Any, A], Awaitable[Any]],
        arg: A,
        *,
        key: str | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationRef: ...
    @overload
    def send(
        self,
        handler: Callable[[Any, Any], Awaitable[Any]],
        *,
        key: str | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationRef: ...
    @overload
    def send(
        self,
        handler: str,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationRef: ...

    def send(
        self,
        handler: Any,
        arg: Any = ABSENT,
        *,
        key: str | None = None,
        delay: timedelta | float | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> InvocationRef:
        """Have *handler* run, exactly once, without waiting for it.

        Args:
          delay: Seconds or timedelta until it begins; only then does it queue for its key.

        Arguments and errors are otherwise those of :meth:`call`. A workflow's ``run`` that was
        started before stays as it is, and this refers to it.
        """
        bound = self._bind(handler, arg, key)
        due_ms = 0
        if delay is not None:
            seconds = seconds_of(delay, f"delay of a send to {bound.service}.{bound.handler}")
            due_ms = self._machine.time_ms + math.ceil(round(seconds * 1_000_000) / 1000)
        outgoing, existing = self._outgoing(bound, idempotency_key, headers)
        if existing is None:
            recode = _recode(bound, outgoing.target)
            self._machine.send(outgoing, bound.payload, due_ms, recode)
        return self._make_ref(self._machine, format_id(existing or outgoing.child))

    def _outgoing(
        self, bound: Bound, idempotency_key: str | None, headers: Mapping[str, str] | None
    ) -> tuple[Outgoing, bytes | None]:
        """What is to begin, and the invocation that stands already in its place, if one does."""
        machine = self._machine
        machine.check_usable()
        checked = check_headers(headers)
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            if bound.is_run:
                raise no_idempotency_key(bound.service)
        candidate = Outgoing(bound.service, bound.handler, bound.key, b"", checked, idempotency_key)
        existing = None
        if bound.is_run or idempotency_key is not None:
            existing = machine.look_up(candidate)
        child = child_id(self._id_at(machine.next_index), machine.next_index, machine.time_ms)
        return candidate._replace(child=child), existing

    # -- what comes from outside --------------------------------------------------------------

    @overload
    def awakeable(self, type: type[T]) -> Awakeable[T]: ...
    @overload
    def awakeable(self, type: Any = UNTYPED) -> Awakeable[Any]: ...

    def awakeable(self, type: Any = UNTYPED) -> Awakeable[Any]:
        """A future that whoever knows its ``id`` completes, once, from anywhere.

        ``engine.resolve_awakeable`` and ``ctx.resolve_awakeable`` do so, ``reject_awakeable`` fails
        it.
        """
        return Awakeable(self._machine, serde_for(type), self._awakeable_id)

    def _awakeable_id(self, index: int) -> str:
        return format_awakeable(self._id_at(index), index)

    def _check_id(self, invocation_id: str) -> None:
        """Refuse what is no id of an invocation."""
        parse_id(invocation_id)

    def _check_awakeable_id(self, awakeable_id: str) -> None:
        parse_awakeable(awakeable_id)

    def _id_at(self, index: int) -> bytes:
        """The id under which the entry at *index* was, or is being, written."""
        origin, length = self._origin
        return origin if index < length else self._raw_id

    async def resolve_awakeable(self, awakeable_id: str, value: Any) -> None:
        """Complete an awakeable with *value*.

        Raises:
          AlreadyCompleted: It was completed before, or nobody waits for it any more.
          InvalidInput: *awakeable_id* is none.
        """
        self._check_awakeable_id(awakeable_id)
        place = f"value of awakeable {awakeable_id}"
        payload = serde_for(UNTYPED).encode(value, place)

        def recode(recorded: bytes) -> bytes:
            return serde_for(UNTYPED).encode(serde_for(type(value)).decode(recorded, place), place)

        if not self._machine.complete_awakeable(awakeable_id, payload, failed=False, recode=recode):
            raise awakeable_is_over(awakeable_id)

    async def reject_awakeable(
        self, awakeable_id: str, reason: str | TerminalError, code: int = 500
    ) -> None:
        """Fail who waits for an awakeable with ``TerminalError(reason, code)``.

        Raises:
          AlreadyCompleted, InvalidInput: As :meth:`resolve_awakeable`.
        """
        self._check_awakeable_id(awakeable_id)
        payload = encode_failure(failure_of(reason, code))
        if not self._machine.complete_awakeable(awakeable_id, payload, failed=True, recode=None):
            raise awakeable_is_over(awakeable_id)

    @overload
    def signal(self, name: SignalDeclaration[T]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, type: type[T]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, type: Any = UNTYPED) -> DurableFuture[Any]: ...

    def signal(self, name: str | SignalDeclaration[Any], type: Any = UNTYPED) -> DurableFuture[Any]:
        """The next message *name* to this invocation: ``engine.signal(id, name, value)``.

        Each call takes one message, in the order of their arrival; those that came before it are
        kept for it. A message on its way to one that is cancelled goes to the next. *name* may be a
        declaration, which has a type of its own.
        """
        declared, serde = name_and_serde(name, type, SignalDeclaration, self._service)
        check_name(declared, "signal name")
        signal: Signal[Any] = Signal(self._machine, Kind.SIGNAL_AWAIT, declared, serde)
        signal.issue()
        return signal

    # -- other invocations --------------------------------------------------------------------

    @overload
    def attach(self, invocation_id: str, type: type[T]) -> DurableFuture[T]: ...
    @overload
    def attach(self, invocation_id: str, type: Any = UNTYPED) -> DurableFuture[Any]: ...

    def attach(self, invocation_id: str, type: Any = UNTYPED) -> DurableFuture[Any]:
        """The result of an invocation, of *type*, whoever began it.

        Raises:
          InvalidInput: It is no id, or this invocation's own, which would wait for itself.
          NotFound: Awaited: there is none with this id, or its result is not kept.
          TerminalError: Awaited: as the invocation failed.
        """
        self._check_id(invocation_id)
        if invocation_id == self.invocation_id:
            raise InvalidInput("an invocation that attaches to itself would wait for ever")
        attachment: Attachment[Any] = Attachment(
            self._machine, Kind.ATTACH, invocation_id, serde_for(type)
        )
        attachment.issue()
        return attachment

    def cancel(self, invocation_id: str) -> None:
        """Ask an invocation to end: it gets ``asyncio.CancelledError`` at its next await."""
        self._check_id(invocation_id)
        self._machine.cancel_invocation(invocation_id)


def already_started(target: Bound | Outgoing) -> bytes:
    """The encoded refusal of a second call of a workflow's run."""
    text = f"run of {target.service} was already started for key {target.key!r}"
    return encode_failure(Conflict(f"{text}; use ctx.attach for its result"))


def _recode(bound: Bound, target: str) -> Callable[[bytes], bytes]:
    place = f"argument of {target}"
    serde = bound.argument_serde

    def recode(recorded: bytes) -> bytes:
        return serde.encode(serde.decode(recorded, place), place)

    return recode


def no_idempotency_key(service: str) -> InvalidInput:
    """The refusal of an idempotency key where the key of the workflow is one."""
    return InvalidInput(
        f"run of {service} takes no idempotency key: the workflow's key is one, for it runs once"
    )


def awakeable_is_over(awakeable_id: str) -> AlreadyCompleted:
    """The refusal of a completion that comes too late."""
    return AlreadyCompleted(
        f"awakeable {awakeable_id} was completed before, or nobody waits for it any more"
    )
