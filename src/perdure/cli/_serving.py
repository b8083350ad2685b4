"""``serve``: an engine with its ingress and its admin interface."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perdure._loading import load_services
from perdure.cli._commands import register
from perdure.cli._failures import failure_of, usage
from perdure.cli._output import plain

if TYPE_CHECKING:
    from perdure.engine import Engine
    from perdure.http._limits import Limits
    from perdure.http._server import Server
    from perdure.http._tokens import Tokens

DEFAULT_DATA = Path("perdure-data")


class DurabilityChoice(enum.StrEnum):
    """``Engine(durability=…)``."""

    FSYNC = "fsync"
    OS = "os"
    MEMORY = "memory"


class GuardChoice(enum.StrEnum):
    """``Engine(guard=…)``."""

    OFF = "off"
    WARN = "warn"
    RAISE = "raise"


class LogFormatChoice(enum.StrEnum):
    """How the log on stderr is written."""

    TEXT = "text"
    JSON = "json"


Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE[:SERVICES]", help="Where a list of services is; :services by default."
    ),
]
Host = Annotated[
    str, typer.Option("--host", help="Where the ingress, or under --restate the handlers, listen.")
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65_535,
        help="0: any that is free.",
        show_default="8080; with --restate 9080",
    ),
]
AdminHost = Annotated[str, typer.Option("--admin-host", help="Where the admin listens.")]
AdminPort = Annotated[
    int, typer.Option("--admin-port", min=0, max=65_535, help="0: any that is free.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="Tokens for the ingress, one a line.", metavar="FILE"),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option("--admin-token-file", help="Tokens for the admin, one a line.", metavar="FILE"),
]
Guard = Annotated[
    GuardChoice, typer.Option("--guard", help="Look for what handlers do that can not be replayed.")
]
GivenLimits = Annotated[
    list[str] | None,
    typer.Option("--limit", help="Of requests: body_bytes=1000000, say.", metavar="NAME=NUMBER"),
]
Restate = Annotated[
    bool,
    typer.Option("--restate", help="Serve the handlers to a Restate server, which keeps the rest."),
]
IdentityKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--identity-key",
        help="With --restate: only requests signed with this key; repeatable.",
        envvar="PERDURE_RESTATE_IDENTITY_KEY",
        metavar="KEY",
    ),
]

_OF_AN_ENGINE: Final = frozenset(
    {"data", "admin_host", "admin_port", "token_file", "admin_token_file", "limit"}
    | {"durability", "guard"}
)
"""Parameters of ``serve`` that nothing is meant by under ``--restate``."""


def add_to(app: typer.Typer) -> None:
    """Add the command to *app*."""

    def serve(
        context: typer.Context,
        target: Target,
        data: Annotated[
            Path, typer.Option("--data", help="The data directory; made if need be.", metavar="DIR")
        ] = DEFAULT_DATA,
        host: Host = "127.0.0.1",
        port: Port = None,
        admin_host: AdminHost = "127.0.0.1",
        admin_port: AdminPort = 9070,
        token_file: TokenFile = None,
        admin_token_file: AdminTokenFile = None,
        limit: GivenLimits = None,
        durability: Annotated[
            DurabilityChoice, typer.Option("--durability", help="What survives a crash.")
        ] = DurabilityChoice.FSYNC,
        guard: Guard = GuardChoice.OFF,
        log_format: Annotated[
            LogFormatChoice, typer.Option("--log-format", help="Of the log on stderr.")
        ] = LogFormatChoice.TEXT,
        access_log: Annotated[bool, typer.Option("--access-log", help="Log each request.")] = False,
        reload: Annotated[
            bool, typer.Option("--reload", help="Start anew when a .py file here changes.")
        ] = False,
        restate: Restate = False,
        identity_key: IdentityKeys = None,
    ) -> None:
        """Serve the services of a module until Ctrl-C or SIGTERM."""
        _check_that_they_go_together(context, restate)
        if reload:
            from perdure.cli._reloading import serve_and_reload

            arguments = [each for each in sys.argv[1:] if each != "--reload"]
            raise typer.Exit(serve_and_reload(arguments, Path.cwd()))
        with _told_of_failures(log_format) as told:
            if restate:
                from perdure.cli._serving_restate import DEFAULT_PORT, serve_restate

                serve_restate(
                    load_services(target),
                    host=host,
                    port=DEFAULT_PORT if port is None else port,
                    identity_keys=identity_key or (),
                    access_log=access_log,
                    told=told,
                )
                return
            options = {
                "host": host,
                "port": 8080 if port is None else port,
                "admin_host": admin_host,
                "admin_port": admin_port,
                "tokens": _tokens(token_file, "PERDURE_TOKEN"),
                "admin_tokens": _tokens(admin_token_file, "PERDURE_ADMIN_TOKEN"),
                "limits": _limits(limit or []),
                "access_log": access_log,
            }
            from perdure.engine import Engine

            services = load_services(target)
            engine = Engine(data, services, durability=durability.value, guard=guard.value)
            _serve(engine, data, options, told=told)

    register(app, "perdure serve shop:services --data ./data", "serve")(serve)


def _check_that_they_go_together(context: typer.Context, restate: bool) -> None:
    """Refuse what was given on the command line and has no meaning beside the rest of it."""
    options = {each.name: each.opts[0] for each in context.command.params}
    given = [
        name
        for name in options
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if restate and (idle := [options[name] for name in given if name in _OF_AN_ENGINE]):
        raise usage(
            f"{', '.join(idle)}: not with --restate",
            "data, requests and operators are Restate's there, and are configured there",
        )
    if not restate and "identity_key" in given:
        raise usage("--identity-key: only with --restate", "tokens are for all else: --token-file")


@contextlib.contextmanager
def _told_of_failures(log_format: LogFormatChoice) -> Iterator[bool]:
    """Log what happens, as JSON also why it ends; whether people are told on stdout."""
    from perdure.http._logs import log_to_stderr

    log_to_stderr(log_format.value)
    try:
        yield log_format is LogFormatChoice.TEXT
    except Exception as error:
        failure = failure_of(error)
        if failure is None or log_format is LogFormatChoice.TEXT:
            raise
        logging.getLogger("perdure").critical("%s", failure.message)
        raise typer.Exit(failure.exit_code) from error


def _serve(engine: Engine, data: Path, options: dict[str, Any], *, told: bool) -> None:
    """Serve until a signal comes; *told*: people are told where."""
    from perdure.http._listening import CanNotServe
    from perdure.http._server import run_to_the_end

    started = functools.partial(_tell, engine, data=data, options=options) if told else None
    try:
        run_to_the_end(engine, started=started, **options)
    except CanNotServe as error:
        raise usage(str(error)) from error


def _tell(engine: Engine, server: Server, data: Path, options: dict[str, Any]) -> None:
    """Tell people that the server is there, and where."""
    from perdure.http._listening import address_of

    durability = engine._durability
    where = "in memory: nothing is kept" if durability == "memory" else os.path.abspath(data)
    told = (
        f"perdure serves {', '.join(sorted(engine._services))}",
        f"  ingress     http://{address_of(options['host'], server.port)}",
        f"  admin       http://{address_of(options['admin_host'], server.admin_port)}",
        f"  data        {where}",
        f"  durability  {durability}",
        "Ctrl-C stops it; what was accepted goes on at the next start.",
    )
    print(*map(plain, told), sep="\n", flush=True)


def _tokens(file: Path | None, variable: str) -> Tokens | None:
    from perdure.http._tokens import Tokens

    try:
        return Tokens.from_environment(variable) if file is None else Tokens.from_file(file)
    except OSError as error:
        raise usage(f"can not read the tokens in {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise usage(str(error)) from error


def _limits(given: list[str]) -> Limits:
    from perdure.http._limits import Limits

    kinds = {
        each.name: float if each.type == "float" else int for each in dataclasses.fields(Limits)
    }
    values: dict[str, Any] = {}
    for each in given:
        name, _, number = each.partition("=")
        name = name.replace("-", "_")
        if name not in kinds:
            raise usage(
                f"--limit {each}: there is no limit {name!r}", f"there are {', '.join(kinds)}"
            )
        try:
            values[name] = kinds[name](number)
        except ValueError:
            raise usage(f"--limit {each}: {number!r} is no number") from None
    try:
        return Limits(**values)
    except ValueError as error:
        raise usage(f"--limit: {error}") from error
