"""The verbs that read, and that of state: at the admin interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perdure import _verbs
from perdure._client._asking import keyed, text_id
from perdure._client._connected import Connected
from perdure._runtime._check import CheckReport
from perdure._runtime._describe import Description, check_range
from perdure._runtime._filter import InvocationFilter, wanted_by
from perdure._runtime._keyed import PromiseInfo, encode_state
from perdure._runtime._listing import InvocationPage, check_limit
from perdure._sql import QueryResult

if TYPE_CHECKING:
    from perdure._history import History


class Inspecting(_verbs.Listing, Connected):
    """Introspection and state."""

    async def describe(
        self, invocation_id: str, *, journal_from: int = 0, journal_limit: int = 1_000
    ) -> Description:
        """As :meth:`Engine.describe`; values of the journal are as JSON has them."""
        check_range(journal_from, journal_limit)
        checked = text_id(invocation_id)
        return await (await self._at_admin()).describe(checked, journal_from, journal_limit)

    async def invocations(
        self,
        filter: InvocationFilter | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> InvocationPage:
        """As :meth:`Engine.invocations`; a cursor is good for an engine and its clients alike."""
        wanted_by(filter)
        check_limit(limit)
        return await (await self._at_admin()).invocations(filter, limit, cursor)

    async def state(self, service: type | str, key: str) -> dict[str, Any]:
        """As :meth:`Engine.state`; values are as JSON has them."""
        name = keyed(service, key)
        return await (await self._at_admin()).state(name, key)

    async def set_state(self, service: type | str, key: str, state: Mapping[str, Any]) -> None:
        """As :meth:`Engine.set_state`; values go as JSON: dates and bytes arrive as text.

        Raises:
          Unavailable: There was no answer; also all that :meth:`Engine.set_state` raises.
        """
        name = keyed(service, key)
        encode_state(state)
        await (await self._at_admin()).set_state(name, key, state)

    async def promises(self, workflow: type | str, key: str) -> list[PromiseInfo]:
        """As :meth:`Engine.promises`; values are as JSON has them."""
        name = keyed(workflow, key)
        return await (await self._at_admin()).promises(name, key)

    async def check(self) -> CheckReport:
        """As :meth:`Engine.check`, against the code of the server."""
        return await (await self._at_admin()).check()

    async def export(self, *invocation_ids: str) -> History:
        """As :meth:`Engine.export`."""
        return await (await self._at_admin()).export(invocation_ids)

    async def query(
        self, sql: str, *, timeout_s: float = 10.0, rows_max: int = 10_000
    ) -> QueryResult:
        """As :meth:`Engine.query`, on the server; blobs arrive as text, in base64.

        Raises:
          Unavailable: There was no answer; also all that :meth:`Engine.query` raises.
        """
        return await (await self._at_admin()).query(sql, timeout_s, rows_max)
