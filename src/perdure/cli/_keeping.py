"""``doctor``, ``backup``, ``restore``, ``version``: the data directory and what reads it."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from perdure import CheckReport
from perdure.cli._commands import Json, command, register
from perdure.cli._failures import Exit, usage
from perdure.cli._output import Output, facts, lines, plain, table
from perdure.cli._where import Where

Deep = Annotated[
    bool, typer.Option("--deep", help="Read every row, and hold the rules between them true.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    _add_doctor(app)
    _add_backup(app)
    _add_restore(app)
    _add_version(app)


def _add_doctor(app: typer.Typer) -> None:
    @command(app, "perdure doctor --data ./data --deep", reads=True)
    async def doctor(where: Where, deep: Deep = False) -> None:
        """Check a data directory; at a server, whether its code fits the journals."""
        if where.data is not None:
            await _check_directory(where, where.data, deep)
            return
        if deep:
            raise usage("--deep reads a directory that no engine has open: name it with --data")
        async with where.client() as client:
            with where.out.busy("checking"):
                found = await client.check()
        where.out.result({**_plain_report(found), "ok": found.ok}, lambda: Text(plain(found)))
        if not found.ok:
            raise typer.Exit(Exit.FAILED)


def _plain_report(found: CheckReport) -> dict[str, object]:
    return {
        "counts": found.counts,
        "problems": [
            {"id": each.id, "verdict": each.verdict, "reason": each.reason}
            for each in found.problems
        ],
        "not_covered": found.not_covered,
    }


async def _check_directory(where: Where, directory: Path, deep: bool) -> None:
    from perdure._doctor import check_directory

    with where.out.progress("rows") if deep else contextlib.nullcontext(None) as tell:
        report = await asyncio.to_thread(check_directory, directory, deep=deep, progress=tell)
    where.out.result(
        {"path": report.path, "ok": report.ok, "deep": deep, **_findings(report)},
        lambda: _doctored(report),
    )
    if not report.ok:
        raise typer.Exit(Exit.FAILED)
