"""What a server of perdure is asked by the verbs that Restate's serves otherwise, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perdure import _verbs
from perdure._client._asking import JSON, Asked, Body, path_of, query_of, text_id
from perdure._client._replies import check, error_of, record_of, value_of
from perdure._promises import Target
from perdure._runtime._check import CheckReport
from perdure._runtime._describe import Description
from perdure._runtime._filter import InvocationFilter
from perdure._runtime._keyed import PromiseInfo
from perdure._runtime._listing import InvocationPage
from perdure._sql import QueryResult
from perdure.errors import AlreadyCompleted, Conflict
from perdure.serde import UNTYPED, serde_for

if TYPE_CHECKING:
    import httpx

    from perdure._client._wire import Wire
    from perdure._history import History

# Any, in this module: values are of any type.

_RESTART = "restart-as-new"


class PerdureIngress:
    """The ingress of ``perdure serve``."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def submit(self, asked: Asked, headers: dict[str, bytes]) -> Any:
        """The result of a workflow's run, started or found."""
        path = path_of("perdure", "submit", asked.service, asked.key or "", asked.handler)
        response = await self._wire.ask(
            "POST", path, body=asked.body, headers=headers, waits=True, again=True
        )
        return value_of(response, asked.serde)

    async def signal(self, invocation_id: str, name: str, body: Body) -> None:
        """Give an invocation a message."""
        path = path_of("perdure", "signals", invocation_id, name)
        check(await self._wire.ask("POST", path, body=body))

    async def complete(
        self, verb: Literal["resolve", "reject"], target: Target, body: Body, query: dict[str, str]
    ) -> None:
        """Complete a promise."""
        path = path_of("perdure", "promises", target.service, target.key, target.name, verb)
        check(await self._wire.ask("POST", path, query=query, body=body))

    async def reject_awakeable(self, awakeable_id: str, body: Body, query: dict[str, str]) -> None:
        """Fail who waits for an awakeable."""
        path = path_of("restate", "awakeables", awakeable_id, "reject")
        check(await self._wire.ask("POST", path, query=query, body=body, again=True))


class PerdureAdmin:
    """The admin interface of ``perdure serve``."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    # -- acting -----------------------------------------------------------------------------

    async def act(self, act: _verbs.Act, invocation_id: str) -> bool:
        """Whether it did anything."""
        response = await self._wire.ask("PATCH", path_of("invocations", invocation_id, act))
        if response.is_success:
            return True
        error = error_of(response)
        if isinstance(error, AlreadyCompleted):  # there is nothing to be done any more
            return False
        raise error

    async def restart(self, invocation_id: str, from_entry: int) -> str:
        """The id of the new invocation."""
        path = path_of("invocations", invocation_id, _RESTART)
        query = {"from": str(from_entry)} if from_entry else {}
        response = await self._wire.ask("PATCH", path, query=query)
        if response.status_code == 422:  # of a workflow's run, Restate's and not that of conflicts
            raise Conflict(str(error_of(response)))
        return record_of(response, Begun).id

    async def each(self, act: _verbs.Act, filter: InvocationFilter) -> int:
        """For how many *act* did anything."""
        response = await self._wire.ask(
            "PATCH",
            path_of("invocations", _RESTART if act == "restart" else act),
            query=query_of(filter) or {"all": "true"},
            waits=True,
        )
        return record_of(response, _Count).count

    # -- reading ----------------------------------------------------------------------------

    async def describe(
        self, invocation_id: str, journal_from: int, journal_limit: int
    ) -> Description:
        """How an invocation stands, and that part of its journal."""
        response = await self._wire.ask(
            "GET",
            path_of("invocations", invocation_id),
            query={"journal_from": str(journal_from), "journal_limit": str(journal_limit)},
        )
        return record_of(response, Description)

    async def invocations(
        self, filter: InvocationFilter | None, limit: int, cursor: str | None
    ) -> InvocationPage:
        """A page of those that are meant."""
        query = [*query_of(filter), ("limit", str(limit))]
        if cursor is not None:
            query.append(("cursor", cursor))
        return record_of(await self._wire.ask("GET", "/invocations", query=query), InvocationPage)

    async def state(self, service: str, key: str) -> dict[str, Any]:
        """The state of a key."""
        response = await self._wire.ask("GET", path_of("state", service, key))
        return record_of(response, _State).state

    async def set_state(self, service: str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the state of a key."""
        body = Body(serde_for(UNTYPED).to_json(dict(state), "state"), JSON)
        check(await self._wire.ask("PUT", path_of("state", service, key), body=body))

    async def promises(self, workflow: str, key: str) -> list[PromiseInfo]:
        """The promises of a key."""
        response = await self._wire.ask("GET", path_of("workflows", workflow, key))
        return record_of(response, _Promises).promises

    async def query(self, sql: str, timeout_s: float, rows_max: int) -> QueryResult:
        """The rows that *sql* selects."""
        asked = {"query": sql, "timeout_s": timeout_s, "rows_max": rows_max}
        body = Body(serde_for(UNTYPED).to_json(asked, "query"), JSON)
        headers = {"accept": JSON.encode()}
        response = await self._wire.ask(
            "POST", "/query", body=body, headers=headers, again=True, waits=True
        )
        found = record_of(response, _Rows)
        rows = [tuple(row[name] for name in found.columns) for row in found.rows]
        return QueryResult(found.columns, rows, found.truncated)

    # -- copying ----------------------------------------------------------------------------

    async def check(self) -> CheckReport:
        """Whether the server's code fits its journals."""
        response = await self._wire.ask("POST", "/check", waits=True, again=True)
        return record_of(response, CheckReport)

    async def export(self, invocation_ids: tuple[str, ...]) -> History:
        """Journals, to be replayed elsewhere."""
        from perdure._history import History

        history = History()
        for path in [path_of("invocations", text_id(each), "history") for each in invocation_ids]:
            response = await self._wire.ask("GET", path, waits=True)  # it may be long
            check(response)
            history.add(History.loads(response.content))
        return history

    def backup(self) -> AbstractAsyncContextManager[httpx.Response]:
        """The data file, as it is at one moment."""
        return self._wire.stream("/backup")


class Begun(msgspec.Struct):
    """The reply to a restart."""

    id: str = msgspec.field(name="new_invocation_id")


class _Count(msgspec.Struct):
    count: int


class _State(msgspec.Struct):
    state: dict[str, Any]


class _Promises(msgspec.Struct):
    promises: list[PromiseInfo]


class _Rows(msgspec.Struct):
    rows: list[dict[str, Any]]
    columns: list[str]
    truncated: bool
