"""An invocation begun from outside, or the one that stands already in its place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from perdure._calling import no_idempotency_key
from perdure._core._outgoing import Outgoing
from perdure._handles import Accepted
from perdure._ids import InvocationId
from perdure._limits import check_headers, check_idempotency_key, seconds_of
from perdure._runtime._layout import Output
from perdure._runtime._scheduler import Scheduler
from perdure.service import HandlerDefinition, HandlerKind


class Ask(NamedTuple):
    """What is asked for, checked.

    Attributes:
      payload: The argument, encoded; None: left out.
      delay_ms: Not before so much later; for what nobody waits for.
    """

    definition: HandlerDefinition
    key: str
    payload: bytes | None
    headers: dict[str, str]
    idempotency_key: str | None
    delay_ms: int | None

    @classmethod
    def checked(
        cls,
        definition: HandlerDefinition,
        key: str,
        payload: bytes | None,
        headers: Mapping[str, str] | None,
        idempotency_key: str | None = None,
        delay: timedelta | float | None = None,
    ) -> Ask:
        """Check what is not of the handler.

        Raises:
          InvalidInput: Headers, idempotency key or delay make no sense.
        """
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            if definition.kind is HandlerKind.RUN:
                raise no_idempotency_key(definition.service)
        delay_ms = None
        if delay is not None:
            seconds = seconds_of(delay, f"delay of a send to {definition.service}")
            delay_ms = math.ceil(round(seconds * 1_000_000) / 1000)
        return cls(definition, key, payload, check_headers(headers), idempotency_key, delay_ms)


class Called(NamedTuple):
    """Attributes:
    output: Of the invocation that was begun; None: it stood already.
    """

    id: InvocationId
    output: asyncio.Future[Output] | None


class Sent(NamedTuple):
    """Attributes:
    durable: Done once that is; None: it stood already.
    """

    id: InvocationId
    durable: asyncio.Future[None] | None

    @property
    def accepted(self) -> Accepted:
        return Accepted.EXISTING if self.durable is None else Accepted.NEW


def begin_call(scheduler: Scheduler, ask: Ask) -> Called:
    """Begin what *ask* says, for someone who waits for its output."""
    existing = _existing(scheduler, ask)
    if existing is not None:
        return Called(existing, None)
    output: asyncio.Future[Output] = asyncio.get_running_loop().create_future()
    instance = scheduler.admit(
        ask.definition,
        key=ask.key,
        argument=ask.payload,
        headers=ask.headers,
        answer=output,
        idempotency_key=ask.idempotency_key,
    )
    return Called(InvocationId(instance.id), output)


def begin_send(scheduler: Scheduler, ask: Ask) -> Sent:
    """Begin what *ask* says, for someone who waits until that is durable."""
    existing = _existing(scheduler, ask)
    if existing is not None:
        return Sent(existing, None)
    durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    instance = scheduler.admit(
        ask.definition,
        key=ask.key,
        argument=ask.payload,
        headers=ask.headers,
        accepted=durable,
        idempotency_key=ask.idempotency_key,
        delay_ms=ask.delay_ms,
    )
    return Sent(InvocationId(instance.id), durable)


def _existing(scheduler: Scheduler, ask: Ask) -> InvocationId | None:
    """The invocation that stands already where a new one would begin."""
    definition, idempotency_key = ask.definition, ask.idempotency_key
    if idempotency_key is None and definition.kind is not HandlerKind.RUN:
        return None
    outgoing = Outgoing(definition.service, definition.name, ask.key, b"", {}, idempotency_key)
    existing = scheduler.existing(outgoing)
    return None if existing is None else InvocationId(existing)
