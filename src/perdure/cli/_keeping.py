"""``doctor``, ``backup``, ``restore``, ``version``: the data directory and what reads it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import platform
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from perdure import CheckReport
from perdure.cli._commands import Json, command, register
from perdure.cli._failures import Exit, usage
from perdure.cli._output import Output, facts, lines, plain
from perdure.cli._where import Where

if TYPE_CHECKING:
    from perdure._doctor import DoctorReport

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


def _findings(report: DoctorReport) -> dict[str, object]:
    return {
        "findings": [dataclasses.asdict(each) for each in report.findings],
        "facts": report.facts,
    }


def _doctored(report: DoctorReport) -> RenderableType:
    verdict = Text("ok", style="green") if report.ok else Text("not ok", style="bold red")
    shown = facts(
        [("directory", report.path), ("verdict", verdict)]
        + [(name.replace("_", " "), _fact(value)) for name, value in report.facts.items()]
    )
    found = [
        Text(
            f"\n{each.severity}: {plain(each.place)}\n  {plain(each.what)}\n  {plain(each.remedy)}"
        )
        for each in report.findings
    ]
    note = None if report.deep else Text("\nnot every row was read: --deep does that", style="dim")
    return lines(shown, *found, note)


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,}" for name, number in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _add_backup(app: typer.Typer) -> None:
    @command(app, "perdure backup ./backup-1", reads=True)
    async def backup(
        where: Where,
        target: Annotated[
            Path, typer.Argument(metavar="TARGET", help="A new directory.", show_default=False)
        ],
    ) -> None:
        """Copy all that is kept, as it is at one moment, to a new directory."""
        with where.out.progress("backup") as tell:
            async with where.reader() as reader:
                await reader.backup(target, progress=tell)
        size = (target / "data.mdb").stat().st_size
        where.out.result(
            {"path": str(target), "bytes": size},
            lambda: Text(f"{plain(target)} has {size:,} bytes"),
        )


def _add_restore(app: typer.Typer) -> None:
    def restore(
        source: Annotated[
            Path, typer.Argument(metavar="BACKUP", help="The directory of a backup, or its file.")
        ],
        target: Annotated[Path, typer.Argument(metavar="DIR", help="A new data directory.")],
        as_json: Json = False,
    ) -> None:
        """Make a data directory of a backup, once every row of it was found sound."""
        from perdure._restoring import restore as restore_backup

        out = Output(as_json)
        with out.progress("restore") as tell:
            restore_backup(source, target, progress=tell)
        out.result({"path": str(target)}, lambda: Text(f"an engine can open {plain(target)}"))

    register(app, "perdure restore ./backup-1 ./data", "restore")(restore)


def _add_version(app: typer.Typer) -> None:
    def version(as_json: Json = False) -> None:
        """Print the versions of perdure and of what it runs on."""
        found = {
            "perdure": installed("perdure"),
            "python": platform.python_version(),
            "lmdb": installed("lmdb"),
            "platform": sys.platform,
        }
        Output(as_json).result(found, lambda: facts(found.items()))

    register(app, "perdure version --json", "version")(version)
