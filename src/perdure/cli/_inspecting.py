"""``ps``, ``describe``, ``state``, ``sql``: looking into a server or a directory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from perdure import Description, InvocationFilter, InvocationSummary, NotFound, Status, WaitingOn
from perdure.cli._commands import command, group
from perdure.cli._failures import usage
from perdure.cli._filters import ByAge, ByHandler, ByKey, ByService, ByStatus, filter_of
from perdure.cli._output import facts, lines, one_line, plain, table, to_json
from perdure.cli._times import age, moment
from perdure.cli._values import Id, json_of, keyed_of, text_of
from perdure.cli._where import Reader, Where

# Any, in this module: what stores hold.

_DESCRIBED_AT_A_TIME = 16
_STYLES = {
    Status.COMPLETED: "green",
    Status.PAUSED: "bold red",
    Status.BLOCKED: "red",
    Status.BACKING_OFF: "yellow",
    Status.RUNNING: "cyan",
    Status.READY: "cyan",
}

Keyed = Annotated[str, typer.Argument(metavar="SERVICE/KEY", help="Whose state.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    _add_ps(app)
    _add_describe(app)
    _add_state(app)
    _add_sql(app)


def _add_ps(app: typer.Typer) -> None:
    @command(app, "perdure ps --status paused --status backing-off --older-than 1h", reads=True)
    async def ps(
        where: Where,
        service: ByService = None,
        handler: ByHandler = None,
        key: ByKey = None,
        status: ByStatus = None,
        older_than: ByAge = None,
        limit: Annotated[int, typer.Option("--limit", min=1, help="The most to list.")] = 100,
        cursor: Annotated[
            str | None, typer.Option("--cursor", help="Where the listing before ended.")
        ] = None,
    ) -> None:
        """List invocations, those accepted first in front, with what they wait for."""
        wanted = filter_of(service, handler, key, status, older_than)
        async with where.reader() as reader:
            items, more = await _list(reader, wanted, limit, cursor)
            waits = await _waiting(reader, items)
        where.out.result(
            {
                "items": [
                    {**dataclasses.asdict(each), "waiting_on": waits.get(each.id, [])}
                    for each in items
                ],
                "cursor": more,
            },
            lambda: _listing(items, waits),
        )
        if more is not None:
            where.out.note(f"there are more: --cursor {more}")
        elif not items:
            where.out.note("there are none")


async def _list(
    reader: Reader, wanted: InvocationFilter | None, limit: int, cursor: str | None
) -> tuple[list[InvocationSummary], str | None]:
    """Up to *limit* of those wanted, and where to go on; a short page is not the end."""
    items: list[InvocationSummary] = []
    while True:
        page = await reader.invocations(wanted, limit=min(limit - len(items), 1_000), cursor=cursor)
        items += page.items
        cursor = page.cursor
        if cursor is None or len(items) == limit:
            return items, cursor


async def _waiting(reader: Reader, items: Iterable[InvocationSummary]) -> dict[str, list[str]]:
    """What each of those that wait is waiting for, by id."""
    turns = asyncio.Semaphore(_DESCRIBED_AT_A_TIME)
    found: dict[str, list[str]] = {}

    async def look(invocation_id: str) -> None:
        async with turns:
            try:
                description = await reader.describe(invocation_id, journal_limit=0)
            except NotFound:  # it has gone since it was listed
                return
        # A timer is the end of waiting for something, which people rather want to read.
        waits = sorted(description.waiting_on, key=lambda each: each.kind == "timer")
        found[invocation_id] = [each.text for each in waits]

    await asyncio.gather(*(look(each.id) for each in items if each.status != Status.COMPLETED))
    return found


def _listing(items: list[InvocationSummary], waits: dict[str, list[str]]) -> RenderableType:
    if not items:
        return lines()
    rows = [
        (
            each.id,
            _name(each.service, each.key, each.handler),
            status_text(each.status),
            age(each.created_at),
            str(each.attempt),
            _latest(each, waits.get(each.id, [])),
        )
        for each in items
    ]
    columns = ("ID", "INVOCATION", "STATUS", "AGE", "ATTEMPT", "WAITING FOR / LAST FAILURE")
    return table(columns, rows)


def _latest(item: InvocationSummary, waits: list[str]) -> Text:
    if item.last_failure is not None and item.status != Status.COMPLETED:
        return Text(one_line(item.last_failure), style="red")
    further = f" and {len(waits) - 1} more" if len(waits) > 1 else ""
    return Text(f"{one_line(waits[0])}{further}" if waits else "")


def _name(service: str, key: str, handler: str) -> str:
    return "/".join(filter(None, (service, key, handler)))


def status_text(status: Status) -> Text:
    """A status in its colour."""
    return Text(status.value, style=_STYLES.get(status, ""))


def _add_describe(app: typer.Typer) -> None:
    @command(app, "perdure describe inv_…", reads=True)
    async def describe(
        where: Where,
        invocation_id: Id,
        journal_from: Annotated[
            int, typer.Option("--from", min=0, help="The first journal entry to show.")
        ] = 0,
        journal_limit: Annotated[
            int, typer.Option("--limit", min=0, help="The most journal entries to show.")
        ] = 1_000,
    ) -> None:
        """Show where an invocation stands, what it waits for and where, and its journal."""
        async with where.reader() as reader:
            found = await reader.describe(
                invocation_id, journal_from=journal_from, journal_limit=journal_limit
            )
        fields = {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}
        where.out.result({**fields, "timeline": found.timeline()}, lambda: _described(found))


def _described(found: Description) -> RenderableType:
    paused = found.status is Status.PAUSED
    attempt = str(found.attempt) if found.attempt > 1 or found.last_failure else ""
    head = facts(
        [
            ("id", found.id),
            ("invocation", _name(found.service, found.key, found.handler)),
            ("version", found.version if found.version != 1 else ""),
            ("status", status_text(found.status)),
            ("accepted", moment(found.created_at)),
            ("completed", moment(found.completed_at)),
            ("attempt", attempt),
            ("last failure", found.last_failure),
            ("keeps waiting", found.blocks),
            ("goes on with", f"perdure resume {found.id}" if paused else ""),
        ]
    )
    return lines(
        head,
        *_waits(found),
        _heading("stack") if found.await_stack else None,
        *(Text(f"  {plain(frame)}") for frame in found.await_stack),
        _heading("journal"),
        Text(plain(found.timeline())),
    )


def _waits(found: Description) -> Iterable[Text]:
    if not found.waiting_on:
        return
    yield _heading("waits for")
    for each in found.waiting_on:
        yield _wait(each)
    more = found.waiting_count - len(found.waiting_on)
    if more > 0:
        yield Text(f"  … and {more:,} more")
    if found.waits_without_timeout and found.status is not Status.PAUSED:
        yield Text("  without a timeout: if nobody acts, it waits for ever", style="yellow")


def _wait(each: WaitingOn) -> Text:
    told = Text(f"  {plain(each.text)}")
    if each.deadline is not None:
        told.append(f", {moment(each.deadline).rpartition(', ')[2]}")
    if each.since is not None:
        told.append(f", for {age(each.since)}")
    if each.site:
        told.append(f"  {plain(each.site)}", style="dim")
    return told


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _add_state(app: typer.Typer) -> None:
    states = group(app, "state", "Show and replace the state of an object or a workflow.")

    @command(states, "perdure state get Counter/c-1", reads=True)
    async def get(
        where: Where,
        keyed: Keyed,
        name: Annotated[
            str | None, typer.Argument(metavar="[NAME]", help="One of its names; else all.")
        ] = None,
    ) -> None:
        """Show the state of a key."""
        service, key = keyed_of(keyed)
        async with where.reader() as reader:
            state = await reader.state(service, key)
        if name is None:
            where.out.value(state)
        elif name in state:
            where.out.value(state[name])
        else:
            raise NotFound(f"{keyed} has no state {name!r}")

    @command(states, "perdure state set Counter/c-1 '{\"total\": 3}'", name="set")
    async def replace(
        where: Where,
        keyed: Keyed,
        state: Annotated[
            str, typer.Argument(metavar="STATE", help="A JSON object; @FILE, or - for stdin.")
        ],
    ) -> None:
        """Replace the whole state of a key: names that are not given are gone."""
        service, key = keyed_of(keyed)
        given = json_of(state)
        if not isinstance(given, dict):
            raise usage(f"state is a JSON object of names and values, not {to_json(given):.60}")
        async with where.client() as client:
            await client.set_state(service, key, given)
        where.out.result(
            {"service": service, "key": key, "names": sorted(given)},
            lambda: Text(f"{one_line(keyed)} has {len(given)} names"),
        )


def _add_sql(app: typer.Typer) -> None:
    @command(
        app, "perdure sql 'SELECT status, count(*) FROM sys_invocation GROUP BY 1'", reads=True
    )
    async def sql(
        where: Where,
        query: Annotated[
            str, typer.Argument(metavar="QUERY", help="One SELECT; @FILE, or - for stdin.")
        ],
        limit: Annotated[int, typer.Option("--limit", min=1, help="The most rows.")] = 10_000,
        seconds: Annotated[
            float, typer.Option("--timeout", help="Seconds after which it is ended.")
        ] = 10.0,
    ) -> None:
        """Query invocations, journals, promises and state with SQL."""
        text = text_of(query)
        async with where.reader() as reader:
            found = await reader.query(text, timeout_s=seconds, rows_max=limit)
        where.out.result(
            {
                "columns": found.columns,
                "rows": [dict(zip(found.columns, row, strict=True)) for row in found.rows],
                "truncated": found.truncated,
            },
            lambda: table(found.columns, [[_cell(each) for each in row] for row in found.rows]),
        )
        if found.truncated:
            where.out.note(f"there are more than these {len(found.rows):,}: see --limit")


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return "" if value is None else str(value)
