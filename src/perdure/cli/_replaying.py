"""``export`` and ``replay``: recorded journals, and today's code against them."""

from __future__ import annotations

import bdb
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perdure import InvocationFilter, NotFound
from perdure._ids import ID_PREFIX
from perdure._loading import load_services
from perdure.cli._commands import command
from perdure.cli._failures import Exit, usage
from perdure.cli._filters import ByAge, ByHandler, ByKey, ByService, ByStatus, filter_of
from perdure.cli._output import plain
from perdure.cli._where import Reader, Where

if TYPE_CHECKING:
    from perdure.testing import History, ReplayReport

# Any, in this module: fields of a report.

_STDOUT = Path("-")


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    _add_export(app)
    _add_replay(app)


def _add_export(app: typer.Typer) -> None:
    @command(app, "perdure export inv_… --output orders.json", reads=True)
    async def export(
        where: Where,
        ids: Annotated[
            list[str] | None, typer.Argument(metavar="[ID...]", help="Of invocations.")
        ] = None,
        service: ByService = None,
        handler: ByHandler = None,
        key: ByKey = None,
        status: ByStatus = None,
        older_than: ByAge = None,
        limit: Annotated[
            int, typer.Option("--limit", min=1, help="The most that a filter exports.")
        ] = 100,
        output: Annotated[
            Path, typer.Option("--output", "-o", metavar="FILE", help="Write to it; -: to stdout.")
        ] = _STDOUT,
    ) -> None:
        """Write invocations and their journals to a file, for `perdure replay`."""
        wanted = filter_of(service, handler, key, status, older_than)
        if bool(ids) == (wanted is not None):
            raise usage("export which? Give ids, or a filter such as --service")
        async with where.reader() as reader:
            if wanted is None:
                history = await reader.export(*(each.strip() for each in ids or ()))
            else:
                history = await _export_wanted(where, reader, wanted, limit)
        if output == _STDOUT:
            sys.stdout.write(history.dumps())
            return
        history.save(output)
        entries = sum(each.journal_length for each in history.invocations)
        where.out.result(
            {"path": str(output), "invocations": len(history), "entries": entries},
            lambda: Text(
                f"{plain(output)} has {len(history):,} invocations with {entries:,} entries"
            ),
        )


async def _export_wanted(
    where: Where, reader: Reader, wanted: InvocationFilter, limit: int
) -> History:
    """The first *limit* that a filter means and that have a journal."""
    from perdure.testing import History

    history, without = History(), 0
    async for item in reader.all_invocations(wanted):
        if len(history) == limit:
            where.out.note(f"there are more than these {limit:,}: see --limit")
            break
        try:
            history.add(await reader.export(item.id))
        except NotFound:
            without += 1
    if without:
        where.out.note(f"{without:,} left out: they have no journal, or it is not kept")
    return history


def _add_replay(app: typer.Typer) -> None:
    @command(app, "perdure replay orders.json shop:services", reads=True)
    async def replay(
        where: Where,
        source: Annotated[
            str,
            typer.Argument(metavar="SOURCE", help="A file of `perdure export`, or an id."),
        ],
        target: Annotated[
            str,
            typer.Argument(
                metavar="MODULE[:SERVICES]", help="The services, as `serve` takes them."
            ),
        ],
        debug: Annotated[
            bool, typer.Option("--pdb", help="Stop in each handler, under the debugger.")
        ] = False,
    ) -> None:
        """Run code against recorded journals: whether it fits them. No step runs."""
        report = _replayed(await _history(where, source), load_services(target), debug)
        where.out.result(_plain(report), lambda: Text(plain(report)))
        if not report.ok:
            raise typer.Exit(Exit.FAILED)


async def _history(where: Where, source: str) -> History:
    """What *source* names: an id, else a file."""
    from perdure.testing import History

    if not source.strip().startswith(ID_PREFIX):
        return History.load(source)
    async with where.reader() as reader:
        return await reader.export(source.strip())


def _replayed(history: History, services: list[Any], debug: bool) -> ReplayReport:
    from perdure import testing

    try:
        if not debug:
            return testing.replay(history, services)
        from perdure.testing._debugging import debug as replay_under_debugger

        return replay_under_debugger(history, services)
    except bdb.BdbQuit as quit_by_user:
        raise typer.Abort from quit_by_user


def _plain(report: ReplayReport) -> dict[str, object]:
    from perdure.testing._telling import fields_of

    invocations = []
    for each in report.invocations:
        divergence = None if each.divergence is None else fields_of(each.divergence)
        fields = {of.name: getattr(each, of.name) for of in dataclasses.fields(each)}
        invocations.append({**fields, "divergence": divergence})
    return {"ok": report.ok, "counts": report.counts, "invocations": invocations}
