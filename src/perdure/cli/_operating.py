"""``cancel``, ``kill``, ``pause``, ``resume``, ``purge``, ``restart``: of one, or by filter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from perdure import InvocationFilter
from perdure.cli._commands import command
from perdure.cli._failures import usage
from perdure.cli._filters import ByAge, ByHandler, ByKey, ByService, ByStatus, filter_of
from perdure.cli._output import one_line
from perdure.cli._values import id_of
from perdure.cli._where import Where

if TYPE_CHECKING:
    from perdure.client import Client

Id = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]", show_default=False, callback=id_of, help="Of one; without it, by filter."
    ),
]
All = Annotated[bool, typer.Option("--all", help="All that it can be done to.")]

# Any: a verb returns whether it did anything, nothing, a handle, or for how many it did.
Act = Callable[["Client", str | InvocationFilter], Awaitable[Any]]


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    _add(
        app,
        "cancel",
        "Ask invocations to end; they may clean up first.",
        "is cancelled",
        "had completed before",
        lambda client, which: client.cancel(which),
    )
    _add(
        app,
        "kill",
        "End invocations and what they have called, at once, without any clean-up.",
        "is killed",
        "had completed before",
        lambda client, which: client.kill(which),
    )
    _add(
        app,
        "pause",
        "Tell invocations nothing more until they are resumed.",
        "is paused",
        "had completed, or was paused before",
        lambda client, which: client.pause(which),
    )
    _add(
        app,
        "resume",
        "Have paused invocations go on, with a fresh count of attempts.",
        "goes on",
        "was not paused",
        lambda client, which: client.resume(which),
    )
    _add(
        app,
        "purge",
        "Remove what is kept of completed invocations.",
        "is purged",
        "",
        lambda client, which: client.purge(which),
    )
    _add_restart(app)


def _add(app: typer.Typer, verb: str, help: str, done: str, moot: str, act: Act) -> None:
    """A verb that takes an id or a filter; *moot*: said where there was nothing to do."""

    async def operate(
        where: Where,
        invocation_id: Id = None,
        service: ByService = None,
        handler: ByHandler = None,
        key: ByKey = None,
        status: ByStatus = None,
        older_than: ByAge = None,
        every: All = False,
    ) -> None:
        which = _which(
            verb, invocation_id, filter_of(service, handler, key, status, older_than), every
        )
        outcome = await _act(where, verb, which, act)
        if isinstance(which, str):
            _tell(where, which, done if outcome is not False else moot, outcome is not False)

    operate.__doc__ = help
    command(app, f"perdure {verb} inv_…", name=verb)(operate)


def _add_restart(app: typer.Typer) -> None:
    @command(app, "perdure restart inv_…")
    async def restart(
        where: Where,
        invocation_id: Id = None,
        from_entry: Annotated[
            int,
            typer.Option(
                "--from", min=0, help="Take over the journal before this entry; of one only."
            ),
        ] = 0,
        service: ByService = None,
        handler: ByHandler = None,
        key: ByKey = None,
        status: ByStatus = None,
        older_than: ByAge = None,
        every: All = False,
    ) -> None:
        """Begin completed invocations anew, with their arguments; print the new id."""
        which = _which(
            "restart", invocation_id, filter_of(service, handler, key, status, older_than), every
        )
        if from_entry and not isinstance(which, str):
            raise usage("--from is of one invocation: give its id")

        async def act(client: Client, which: str | InvocationFilter) -> Any:
            if isinstance(which, str):
                return (await client.restart(which, from_entry=from_entry)).id
            return await client.restart(which)

        outcome = await _act(where, "restart", which, act)
        if isinstance(which, str):
            where.out.result({"id": which, "new_id": outcome}, lambda: Text(one_line(outcome)))


def _which(
    verb: str, invocation_id: str | None, meant: InvocationFilter | None, every: bool
) -> str | InvocationFilter:
    given = [each for each in (invocation_id, meant, every or None) if each is not None]
    if len(given) != 1:
        hint = "give an id, or a filter such as --service, or --all"
        raise usage(f"{verb} what?" if not given else f"{verb}: too many ways to say what", hint)
    return invocation_id or meant or InvocationFilter()


async def _act(where: Where, verb: str, which: str | InvocationFilter, act: Act) -> Any:
    """Do it; for how many by a filter is told here."""
    async with where.client() as client:
        if isinstance(which, str):
            return await act(client, which)
        with where.out.busy(verb):
            count = await act(client, which)
    where.out.result({"count": count}, lambda: Text(f"{verb}: {count:,} invocations"))
    return count


def _tell(where: Where, invocation_id: str, text: str, done: bool) -> None:
    where.out.result(
        {"id": invocation_id, "done": done}, lambda: Text(f"{one_line(invocation_id)} {text}")
    )
