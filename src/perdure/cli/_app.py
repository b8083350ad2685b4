"""The commands, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from perdure.cli import (
    _completing,
    _inspecting,
    _invoking,
    _keeping,
    _operating,
    _registering,
    _replaying,
    _serving,
)

app = typer.Typer(
    name="perdure",
    help="Serve durable workflows, and look into and act on them.",
    epilog="Example: perdure serve examples.document_approval:services --data ./data",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"perdure {version('perdure')}")
        raise typer.Exit


@app.callback()
def _perdure(
    show: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


for _group in (
    _serving,
    _registering,
    _inspecting,
    _invoking,
    _completing,
    _operating,
    _replaying,
    _keeping,
):
    _group.add_to(app)
