"""The verbs that read, and that of state: at the admin interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from perdure import _verbs
from perdure._client._asking import JSON, Body, keyed_path, path_of, query_of, text_id
from perdure._client._connected import Connected
from perdure._client._replies import check, record_of
from perdure._runtime._check import CheckReport
from perdure._runtime._describe import Description, check_range
from perdure._runtime._filter import InvocationFilter
from perdure._runtime._keyed import PromiseInfo, encode_state
from perdure._runtime._listing import InvocationPage, check_limit
from perdure._sql import QueryResult
from perdure.serde import UNTYPED, serde_for

if TYPE_CHECKING:
    from perdure._history import History

T = TypeVar("T")


class Inspecting(_verbs.Listing, Connected):
    """Introspection and state."""

    async def describe(
        self, invocation_id: str, *, journal_from: int = 0, journal_limit: int = 1_000
    ) -> Description:
        """As :meth:`Engine.describe`; values of the journal are as JSON has them."""
        check_range(journal_from, journal_limit)
        response = await self._admin.ask(
            "GET",
            path_of("invocations", text_id(invocation_id)),
            query={"journal_from": str(journal_from), "journal_limit": str(journal_limit)},
        )
        return record_of(response, Description)

    async def invocations(
        self,
        filter: InvocationFilter | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> InvocationPage:
        """As :meth:`Engine.invocations`; a cursor is good for an engine and its clients alike."""
        query = [*query_of(filter), ("limit", str(check_limit(limit)))]
        if cursor is not None:
            query.append(("cursor", cursor))
        response = await self._admin.ask("GET", "/invocations", query=query)
        return record_of(response, InvocationPage)

    async def state(self, service: type | str, key: str) -> dict[str, Any]:
        """As :meth:`Engine.state`; values are as JSON has them."""
        response = await self._admin.ask("GET", keyed_path("state", service, key))
        return record_of(response, _State).state

    async def set_state(self, service: type | str, key: str, state: Mapping[str, Any]) -> None:
        """As :meth:`Engine.set_state`; values go as JSON: dates and bytes arrive as text.

        Raises:
          Unavailable: There was no answer; also all that :meth:`Engine.set_state` raises.
        """
        path = keyed_path("state", service, key)
        encode_state(state)
        body = Body(serde_for(UNTYPED).to_json(dict(state), "state"), JSON)
        check(await self._admin.ask("PUT", path, body=body))

    async def promises(self, workflow: type | str, key: str) -> list[PromiseInfo]:
        """As :meth:`Engine.promises`; values are as JSON has them."""
        response = await self._admin.ask("GET", keyed_path("workflows", workflow, key))
        return record_of(response, _Promises).promises

    async def check(self) -> CheckReport:
        """As :meth:`Engine.check`, against the code of the server."""
        return record_of(
            await self._admin.ask("POST", "/check", waits=True, again=True), CheckReport
        )

    async def export(self, *invocation_ids: str) -> History:
        """As :meth:`Engine.export`."""
        from perdure._history import History

        history = History()
        for path in [path_of("invocations", text_id(each), "history") for each in invocation_ids]:
            response = await self._admin.ask("GET", path, waits=True)  # it may be long
            check(response)
            history.add(History.loads(response.content))
        return history

    async def query(
        self, sql: str, *, timeout_s: float = 10.0, rows_max: int = 10_000
    ) -> QueryResult:
        """As :meth:`Engine.query`, on the server; blobs arrive as text, in base64.

        Raises:
          Unavailable: There was no answer; also all that :meth:`Engine.query` raises.
        """
        asked = {"query": sql, "timeout_s": timeout_s, "rows_max": rows_max}
        body = Body(serde_for(UNTYPED).to_json(asked, "query"), JSON)
        headers = {"accept": JSON.encode()}
        response = await self._admin.ask(
            "POST", "/query", body=body, headers=headers, again=True, waits=True
        )
        found = record_of(response, _Rows)
        rows = [tuple(row[name] for name in found.columns) for row in found.rows]
        return QueryResult(found.columns, rows, found.truncated)


class _State(msgspec.Struct):
    state: dict[str, Any]


class _Promises(msgspec.Struct):
    promises: list[PromiseInfo]


class _Rows(msgspec.Struct):
    rows: list[dict[str, Any]]
    columns: list[str]
    truncated: bool
