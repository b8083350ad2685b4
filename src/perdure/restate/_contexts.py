"""The contexts of handlers that Restate drives: what differs from the embedded ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from perdure._core._entries import Entry, Kind
from perdure._core._question import Question
from perdure.context import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    Request,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.errors import InvalidInput, NotSupportedOnRestate
from perdure.futures import Call, InvocationRef
from perdure.restate._values import wire_bytes
from perdure.serde import UNTYPED, serde_for
from perdure.service import HandlerKind

if TYPE_CHECKING:
    from perdure.restate._invocation import Invocation

_ID: Final = re.compile(r"inv_1[0-9A-Za-z]{33}")
_AWAKEABLE_ID: Final = re.compile(r"(sign|prom)_1[0-9A-Za-z_-]{38}")


class RestateRequest(Request):
    """How an invocation came to be, without the number of its attempt."""

    def __init__(self, headers: Mapping[str, str], idempotency_key: str | None) -> None:
        # Past the dataclass, which is frozen and would set the attempt.
        object.__setattr__(self, "headers", headers)
        object.__setattr__(self, "idempotency_key", idempotency_key)

    def __getattr__(self, name: str) -> NoReturn:
        if name == "attempt":  # the one that is not set
            raise NotSupportedOnRestate(
                "ctx.request.attempt: Restate does not tell a handler which attempt it is"
            )
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"Request(headers={self.headers!r}, idempotency_key={self.idempotency_key!r})"


class RestateCall(Call[Any]):
    """A call whose id Restate gives."""

    __slots__ = ()

    async def invocation_id(self) -> str:
        return await _id_from_restate(self._machine, self._invocation_id)


class RestateRef(InvocationRef):
    """A send whose id Restate gives."""

    __slots__ = ()

    async def invocation_id(self) -> str:
        return await _id_from_restate(self._machine, self._invocation_id)


async def _id_from_restate(machine: Any, provisional: str) -> str:
    entry = await Question(machine, Entry(Kind.LOOK_UP, name=provisional), None)
    return (entry.payload or b"").decode()


class _OnRestate(Context):
    """What all of them do otherwise."""

    _invocation: Invocation
    _make_call = RestateCall
    _make_ref = RestateRef

    @property
    def invocation_id(self) -> str:
        """Restate's: ``inv_1`` and so on."""
        return self._invocation.id

    def now(self) -> datetime:
        self._invocation.tells_time = True
        return super().now()

    def patched(self, id: str) -> bool:
        raise NotSupportedOnRestate(
            "ctx.patched: Restate keeps an invocation on the deployment it began with; serve the "
            "changed code at another address and register that"
        )

    def _seed(self) -> str:
        return self._invocation.id

    def _awakeable_id(self, index: int) -> str:
        return self._invocation.make_awakeable(index)

    def _check_id(self, invocation_id: str) -> None:
        _check(invocation_id, _ID, "an invocation id: inv_1 and 33 letters and digits")

    def _check_awakeable_id(self, awakeable_id: str) -> None:
        _check(awakeable_id, _AWAKEABLE_ID, "the id of an awakeable, as ctx.awakeable().id is one")

    async def resolve_awakeable(self, awakeable_id: str, value: Any) -> None:
        place = f"value of awakeable {awakeable_id}"
        wire_bytes(serde_for(UNTYPED).encode(value, place), place)  # refused here, if it is
        await super().resolve_awakeable(awakeable_id, value)


def _check(text: object, form: re.Pattern[str], what: str) -> None:
    # What is none Restate refuses by failing each attempt of who used it.
    if not (isinstance(text, str) and form.fullmatch(text)):
        raise InvalidInput(f"{text!r:.100} is not {what}")


class _ServiceContext(_OnRestate, Context):
    pass


class _ObjectContext(_OnRestate, ObjectContext):
    pass


class _ObjectSharedContext(_OnRestate, ObjectSharedContext):
    pass


class _WorkflowContext(_OnRestate, WorkflowContext):
    pass


class _WorkflowSharedContext(_OnRestate, WorkflowSharedContext):
    pass


CONTEXTS: dict[HandlerKind, type[_OnRestate]] = {
    HandlerKind.SERVICE: _ServiceContext,
    HandlerKind.EXCLUSIVE: _ObjectContext,
    HandlerKind.SHARED: _ObjectSharedContext,
    HandlerKind.RUN: _WorkflowContext,
    HandlerKind.WORKFLOW_SHARED: _WorkflowSharedContext,
}
