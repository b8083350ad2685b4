"""What a Restate server is asked at its admin interface, which is other than perdure's.

Theory of operation. It acts on one invocation at a time, at the paths that perdure has taken over,
and says less of what it did. All that is known of invocations, state and promises is in tables,
which it reads by SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from perdure import _verbs
from perdure._client import _restate_journal as journals
from perdure._client import _restate_listing as listing
from perdure._client._asking import JSON, Body, path_of
from perdure._client._perdure import Begun
from perdure._client._replies import check, error_of, record_of
from perdure._client._restate import not_supported
from perdure._client._restate_values import (
    completion_of,
    failure_of_text,
    kept_of,
    literal,
    plain_of,
)
from perdure._runtime._check import CheckReport
from perdure._runtime._describe import Description
from perdure._runtime._filter import InvocationFilter, wanted_by
from perdure._runtime._keyed import PromiseInfo
from perdure._runtime._listing import InvocationPage
from perdure._runtime._status import Status
from perdure._sql import QueryResult
from perdure.errors import Conflict, InvalidInput, NotFound, PerdureError, TerminalError

if TYPE_CHECKING:
    import httpx

    from perdure._client._wire import Wire
    from perdure._history import History

# Any, in this module: values are of any type.

_UNFINISHED: Final = frozenset(Status) - {Status.COMPLETED, Status.BLOCKED}
_MEANT: Final[dict[_verbs.Act, frozenset[Status]]] = {
    "cancel": _UNFINISHED,
    "kill": _UNFINISHED,
    "pause": frozenset({Status.READY, Status.RUNNING, Status.BACKING_OFF}),
    "resume": frozenset({Status.PAUSED}),
    "purge": frozenset({Status.COMPLETED}),
    "restart": frozenset({Status.COMPLETED}),
}
"""What an act can do anything to, where a filter says nothing of the status."""

_NO_ANSWER_TO_SQL: Final = "Datafusion error: "
"""Begins what is wrong with a statement, whatever the status."""


class RestateAdmin:
    """The admin interface of a Restate server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    # -- acting -----------------------------------------------------------------------------

    async def act(self, act: _verbs.Act, invocation_id: str) -> bool:
        """Whether it did anything."""
        if act == "resume" and await self._status(invocation_id) is not Status.PAUSED:
            return False  # where it backs off or is suspended, that would start an attempt
        response = await self._wire.ask("PATCH", path_of("invocations", invocation_id, act))
        if response.status_code == 200 and act == "pause":
            return await self._not_paused(invocation_id)
        if response.is_success:
            return True
        error = error_of(response)
        is_moot = act != "purge" and type(error) is Conflict
        if is_moot and await self._status(invocation_id) is Status.COMPLETED:
            return False
        raise error

    async def _not_paused(self, invocation_id: str) -> bool:
        """What a pause was that Restate says it need not do, with success: False.

        Raises:
          Conflict: It waits, and goes on when that comes.
        """
        status = await self._status(invocation_id)
        if status in (Status.PAUSED, Status.COMPLETED):
            return False
        raise Conflict(
            f"{invocation_id} is {status}: a Restate server pauses only what runs or backs off"
        )

    async def _status(self, invocation_id: str) -> Status:
        sql = f"SELECT status FROM sys_invocation WHERE id = {literal(invocation_id)}"
        rows = await self._rows(sql)
        if not rows:
            raise NotFound(f"there is no invocation {invocation_id}")
        return listing.status_of(rows[0])

    async def restart(self, invocation_id: str, from_entry: int) -> str:
        """The id of the new invocation."""
        path = path_of("invocations", invocation_id, "restart-as-new")
        # Restate names the last entry that is taken over.
        query = {"from": str(from_entry - 1)} if from_entry else {}
        response = await self._wire.ask("PATCH", path, query=query)
        if response.status_code in (422, 425):  # of a workflow's run; it has not begun
            raise Conflict(str(error_of(response)))
        return record_of(response, Begun).id

    async def each(self, act: _verbs.Act, filter: InvocationFilter) -> int:
        """For how many *act* did anything, one after the other."""
        count = 0
        for row in await self._rows(listing.ids_sql(filter.wanted, _MEANT[act])):
            try:
                if act == "restart":
                    await self.restart(row["id"], 0)
                    count += 1
                else:
                    count += await self.act(act, row["id"])
            except (Conflict, NotFound):
                pass  # it has ended, begun or gone since it was listed
        return count

    # -- reading ----------------------------------------------------------------------------

    async def describe(
        self, invocation_id: str, journal_from: int, journal_limit: int
    ) -> Description:
        """How an invocation stands, and that part of its journal."""
        one = f"WHERE id = {literal(invocation_id)}"
        rows = await self._rows(f"SELECT * FROM sys_invocation {one}")
        if not rows:
            raise NotFound(f"there is no invocation {invocation_id}")
        of_journal = 'SELECT "index", name, {}, appended_at FROM sys_journal ' + one
        order = 'ORDER BY "index"'
        outline = journals.outline_of(
            await self._rows(f"{of_journal.format('entry_lite_json')} {order}")
        )
        part = f'"index" >= {journal_from} AND "index" < {journal_from + journal_limit}'
        shown = await self._rows(f"{of_journal.format('entry_json')} AND {part} {order}")
        entries = [journals.entry_of(row, outline.answers) for row in shown]
        return journals.description_of(rows[0], outline, entries, journal_from)

    async def invocations(
        self, filter: InvocationFilter | None, limit: int, cursor: str | None
    ) -> InvocationPage:
        """A page of those that are meant."""
        wanted = wanted_by(filter)
        rows = await self._rows(listing.page_sql(wanted, limit, cursor))
        return listing.page_of(rows, wanted, limit)

    async def state(self, service: str, key: str) -> dict[str, Any]:
        """The state of a key."""
        await self._check_kind(service, "VirtualObject", "Workflow")
        rows = await self._rows(f"SELECT key, value FROM state {_of(service, key)} ORDER BY key")
        return {row["key"]: plain_of(bytes.fromhex(row.get("value", ""))) for row in rows}

    async def set_state(self, service: str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the state of a key, when it is not in use."""
        await self._check_kind(service, "VirtualObject", "Workflow")
        new_state = {name: list(kept_of(value, f"state {name!r}")) for name, value in state.items()}
        content = msgspec.json.encode({"object_key": key, "new_state": new_state})
        path = path_of("services", service, "state")
        check(await self._wire.ask("POST", path, body=Body(content, JSON)))

    async def promises(self, workflow: str, key: str) -> list[PromiseInfo]:
        """The promises of a key."""
        await self._check_kind(workflow, "Workflow")
        rows = await self._rows(f"SELECT * FROM sys_promise {_of(workflow, key)} ORDER BY key")
        waiters = await self._waiters(workflow, key)
        return [_promise(row, waiters.get(row["key"], [])) for row in rows]

    async def _waiters(self, workflow: str, key: str) -> dict[str, list[str]]:
        """Who waits for each promise of a key, by its name."""
        unfinished = (
            f"SELECT id FROM sys_invocation WHERE target_service_name = {literal(workflow)} "
            f"AND target_service_key = {literal(key)} AND status <> 'completed'"
        )
        by_id: dict[str, list[dict[str, Any]]] = {}
        for row in await self._rows(
            'SELECT id, "index", name, entry_lite_json, appended_at FROM sys_journal '
            f'WHERE id IN ({unfinished}) ORDER BY id, "index"'
        ):
            by_id.setdefault(row["id"], []).append(row)
        waiters: dict[str, list[str]] = {}
        for invocation_id, rows in by_id.items():
            waits = journals.outline_of(rows).outstanding.values()
            for name in {each.name for each in waits if each.kind == "promise"}:
                waiters.setdefault(name, []).append(invocation_id)
        return waiters

    async def _check_kind(self, service: str, *kinds: str) -> None:
        """Refuse a service that is of none of *kinds*, or that is not there."""
        response = await self._wire.ask("GET", path_of("services", service))
        kind = record_of(response, _Service).ty
        if kind not in kinds:
            lacks = "state" if "VirtualObject" in kinds else "promises"
            raise InvalidInput(f"{service} is a {kind}, and has no {lacks}")

    async def query(self, sql: str, timeout_s: float, rows_max: int) -> QueryResult:
        """The rows that *sql* selects."""
        try:
            async with asyncio.timeout(timeout_s):
                rows = await self._rows(sql)
                columns = await self._columns(sql, rows)
        except TimeoutError as error:
            raise TerminalError(f"the query took longer than {timeout_s} s") from error
        values = [tuple(row.get(name) for name in columns) for row in rows[:rows_max]]
        return QueryResult(columns, values, len(rows) > rows_max)

    async def _columns(self, sql: str, rows: list[dict[str, Any]]) -> list[str]:
        """The columns of *sql*: rows come without those that are NULL."""
        try:
            return [row["column_name"] for row in await self._rows(f"DESCRIBE {sql}")]
        except PerdureError:  # it is none of the statements that can be described
            return list(dict.fromkeys(name for row in rows for name in row))

    async def _rows(self, sql: str) -> list[dict[str, Any]]:
        body = Body(msgspec.json.encode({"query": sql}), JSON)
        response = await self._wire.ask(
            "POST", "/query", body=body, headers={"accept": JSON.encode()}, again=True, waits=True
        )
        if not response.is_success:
            error = error_of(response)
            _, found, reason = str(error).partition(_NO_ANSWER_TO_SQL)
            raise InvalidInput(reason) if found else error
        return record_of(response, _Rows).rows

    # -- copying ----------------------------------------------------------------------------

    async def check(self) -> CheckReport:
        """Refuse it.

        Raises:
          NotSupportedOnRestate: Always.
        """
        raise not_supported(
            "check",
            "replays no journal for nothing; register changed code as a new deployment: what is "
            "in flight stays on the one it began on",
        )

    async def export(self, invocation_ids: tuple[str, ...]) -> History:
        """Refuse it.

        Raises:
          NotSupportedOnRestate: Always.
        """
        raise not_supported(
            "export", "has journals of another form than perdure's; describe shows one"
        )

    def backup(self) -> AbstractAsyncContextManager[httpx.Response]:
        """Refuse it.

        Raises:
          NotSupportedOnRestate: Always.
        """
        raise not_supported(
            "backup", "sends nobody its data; configure snapshots of its partitions there"
        )


def _of(service: str, key: str) -> str:
    return f"WHERE service_name = {literal(service)} AND service_key = {literal(key)}"


def _promise(row: Mapping[str, Any], waiters: list[str]) -> PromiseInfo:
    if not row.get("completed"):
        return PromiseInfo(row["key"], "pending", None, None, waiters)
    value, failure = completion_of(bytes.fromhex(row.get("completion_success_value", "")))
    if "completion_failure" in row:
        failure = failure_of_text(row["completion_failure"])
    status: Literal["resolved", "rejected"] = "resolved" if failure is None else "rejected"
    return PromiseInfo(row["key"], status, value, failure, [])


class _Service(msgspec.Struct):
    ty: str


class _Rows(msgspec.Struct):
    rows: list[dict[str, Any]]
