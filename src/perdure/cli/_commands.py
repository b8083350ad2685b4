"""How a command is added: its own parameters, and those that say where it works.

Theory of operation. typer reads parameters off the signature of a function. A command here is a
coroutine function whose first parameter is a :class:`Where`; what typer sees is made of its other
parameters and the shared options, so that these stand in one place.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from perdure.cli._output import Output
from perdure.cli._where import Where

# Any, in this module: parameters of commands are of any type.

Command = Callable[..., Coroutine[Any, Any, None]]

Json = Annotated[
    bool,
    typer.Option("--json", help="Write JSON, and nothing else, to stdout; errors as JSON too."),
]

_PANEL: Final = "Where"


def _option(name: str, help: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=_PANEL, **more)


def _shared(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


_URL: Final = _shared(
    "url",
    Annotated[str, _option("--url", "Of the ingress.", envvar="PERDURE_URL", metavar="URL")],
    "http://127.0.0.1:8080",
)
_ADMIN_URL: Final = _shared(
    "admin_url",
    Annotated[
        str,
        _option(
            "--admin-url", "Of the admin interface.", envvar="PERDURE_ADMIN_URL", metavar="URL"
        ),
    ],
    "http://127.0.0.1:9070",
)
_TOKEN_FILE: Final = _shared(
    "token_file",
    Annotated[
        Path | None,
        _option(
            "--token-file",
            "Has the token for the ingress; else PERDURE_TOKEN is it.",
            envvar="PERDURE_TOKEN_FILE",
            metavar="FILE",
        ),
    ],
    None,
)
_ADMIN_TOKEN_FILE: Final = _shared(
    "admin_token_file",
    Annotated[
        Path | None,
        _option(
            "--admin-token-file",
            "Has the token for the admin interface; else PERDURE_ADMIN_TOKEN is it.",
            envvar="PERDURE_ADMIN_TOKEN_FILE",
            metavar="FILE",
        ),
    ],
    None,
)
_DATA: Final = _shared(
    "data",
    Annotated[
        Path | None,
        _option("--data", "Read this directory, which no engine has open.", metavar="DIR"),
    ],
    None,
)
_AS_JSON: Final = _shared("as_json", Json, False)
_OF_A_SERVER: Final = (_URL, _ADMIN_URL, _TOKEN_FILE, _ADMIN_TOKEN_FILE)


def command(
    app: typer.Typer, example: str, *, name: str | None = None, reads: bool = False
) -> Callable[[Command], Command]:
    """Add a coroutine function to *app*; the first line of its docstring is its help.

    Args:
      example: Shown below the help.
      reads: It works on a data directory as well.
    """

    def add(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [*([_DATA] if reads else []), *_OF_A_SERVER, _AS_JSON]

        def run(**given: Any) -> None:
            out = Output(given.pop("as_json"))
            where = Where(out=out, **{each.name: given.pop(each.name) for each in shared[:-1]})
            asyncio.run(function(where, **given))

        parameters = [*own, *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__doc__ = function.__doc__
        register(app, example, name or function.__name__)(run)
        return function

    return add


def register(
    app: typer.Typer, example: str, name: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a plain function to *app*, which has its options itself."""
    return app.command(name, epilog=f"Example: {example}")


def group(app: typer.Typer, name: str, help: str) -> typer.Typer:
    """A group of commands, ``perdure NAME …``."""
    made = typer.Typer(help=help, no_args_is_help=True)
    app.add_typer(made, name=name)
    return made
