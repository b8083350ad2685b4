"""The verbs that act on what is there: at the admin interface."""

from __future__ import annotations

from typing import Any

from perdure import _verbs
from perdure._client._asking import text_id
from perdure._client._invoking import Invoking
from perdure._handles import Accepted, InvocationHandle
from perdure._runtime._filter import InvocationFilter
from perdure.errors import InvalidInput
from perdure.serde import UNTYPED, serde_for


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
        await self._act("purge", invocation_id)

    async def _restart(self, invocation_id: str, from_entry: int = 0) -> InvocationHandle[Any]:
        if type(from_entry) is not int or from_entry < 0:
            raise InvalidInput(f"from_entry: expected a whole number from 0, got {from_entry!r}")
        checked = text_id(invocation_id)
        begun = await (await self._at_admin()).restart(checked, from_entry)
        return self._handle(begun, Accepted.NEW, serde_for(UNTYPED))

    async def _act(self, act: _verbs.Act, invocation_id: str) -> bool:
        checked = text_id(invocation_id)
        return await (await self._at_admin()).act(act, checked)

    async def _each(self, act: _verbs.Act, filter: InvocationFilter) -> int:
        return await (await self._at_admin()).each(act, filter)
