"""The verbs that act on what is there: at the admin interface."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure import _verbs
from perdure._client._asking import path_of, query_of, text_id
from perdure._client._invoking import Invoking
from perdure._client._replies import check, error_of, record_of
from perdure._handles import Accepted, InvocationHandle
from perdure._runtime._filter import InvocationFilter
from perdure.errors import AlreadyCompleted, Conflict, InvalidInput
from perdure.serde import UNTYPED, serde_for

_RESTART = "restart-as-new"


class Operating(_verbs.Operating, Invoking):
    """What operators do to invocations: to one, by its id, or to all that a filter means."""

    async def _cancel(self, invocation_id: str) -> bool:
        return await self._act("cancel", invocation_id)

    async def _kill(self, invocation_id: str) -> bool:
        return await self._act("kill", invocation_id)

    async def _pause(self, invocation_id: str) -> bool:
        return await self._act("pause", invocation_id)

    async def _resume(self, invocation_id: str) -> bool:
        return await self._act("resume", invocation_id)

    async def _purge(self, invocation_id: str) -> None:
        check(await self._admin.ask("PATCH", _path(invocation_id, "purge")))

    async def _restart(self, invocation_id: str, from_entry: int = 0) -> InvocationHandle[Any]:
        if type(from_entry) is not int or from_entry < 0:
            raise InvalidInput(f"from_entry: expected a whole number from 0, got {from_entry!r}")
        response = await self._admin.ask(
            "PATCH",
            _path(invocation_id, _RESTART),
            query={"from": str(from_entry)} if from_entry else {},
        )
        if not response.is_success:
            error = error_of(response)
            # Of a workflow's run, Restate's status and not that of other conflicts.
            raise Conflict(str(error)) if response.status_code == 422 else error
        return self._handle(record_of(response, _Begun).id, Accepted.NEW, serde_for(UNTYPED))

    async def _act(self, act: _verbs.Act, invocation_id: str) -> bool:
        """Whether it did anything."""
        response = await self._admin.ask("PATCH", _path(invocation_id, act))
        if response.is_success:
            return True
        error = error_of(response)
        if isinstance(error, AlreadyCompleted):  # there is nothing to be done any more
            return False
        if type(error) is Conflict and "already completed" in error.message:  # says Restate
            return False
        raise error

    async def _each(self, act: _verbs.Act, filter: InvocationFilter) -> int:
        response = await self._admin.ask(
            "PATCH",
            path_of("invocations", _RESTART if act == "restart" else act),
            query=query_of(filter) or {"all": "true"},
            waits=True,
        )
        return record_of(response, _Count).count


class _Begun(msgspec.Struct):
    id: str = msgspec.field(name="new_invocation_id")


class _Count(msgspec.Struct):
    count: int


def _path(invocation_id: str, verb: str) -> str:
    return path_of("invocations", text_id(invocation_id), verb)
