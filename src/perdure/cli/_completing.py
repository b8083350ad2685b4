"""``promise …`` and ``awakeable …``: giving invocations what they wait for."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from perdure.cli._commands import command, group
from perdure.cli._output import one_line, table, to_json
from perdure.cli._values import json_of, keyed_of, promise_of
from perdure.cli._where import Where

Promise = Annotated[str, typer.Argument(metavar="PROMISE", help="Workflow/key/promise.")]
Awakeable = Annotated[str, typer.Argument(metavar="ID", help="Of the awakeable.")]
Value = Annotated[str, typer.Argument(metavar="[VALUE]", help="JSON; @FILE, or - for stdin.")]
Reason = Annotated[str, typer.Argument(metavar="REASON", help="Why, for who waits.")]
Code = Annotated[int, typer.Option("--code", help="An HTTP status, 400 to 599.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    promises = group(app, "promise", "List and complete the promises of a workflow.")
    awakeables = group(app, "awakeable", "Complete awakeables.")

    @command(promises, "perdure promise ls Order/o-1", reads=True)
    async def ls(
        where: Where,
        workflow: Annotated[str, typer.Argument(metavar="WORKFLOW/KEY", help="Whose promises.")],
    ) -> None:
        """List the promises of a workflow's key: completed, or waited for."""
        name, key = keyed_of(workflow, "Workflow")
        async with where.reader() as reader:
            found = await reader.promises(name, key)
        where.out.result(
            {"promises": found},
            lambda: table(
                ("NAME", "STATUS", "VALUE OR REASON", "WAITERS"),
                [
                    (
                        each.name,
                        each.status,
                        to_json(each.value)
                        if each.status == "resolved"
                        else ""
                        if each.failure is None
                        else each.failure.message,
                        " ".join(each.waiters),
                    )
                    for each in found
                ],
            ),
        )

    @command(promises, "perdure promise resolve Order/o-1/place '\"the door\"'", name="resolve")
    async def resolve_promise(where: Where, promise: Promise, value: Value = "null") -> None:
        """Complete a promise with a value."""
        target, given = promise_of(promise), json_of(value)
        async with where.client(ingress=True) as client:
            await client.resolve(target.handler, given, key=target.key or "")
        _done(where, promise, "resolved")

    @command(promises, "perdure promise reject Order/o-1/place 'sold out'", name="reject")
    async def reject_promise(
        where: Where, promise: Promise, reason: Reason, code: Code = 500
    ) -> None:
        """Fail who waits for a promise."""
        target = promise_of(promise)
        async with where.client(ingress=True) as client:
            await client.reject(target.handler, reason, key=target.key or "", code=code)
        _done(where, promise, "rejected")

    @command(awakeables, "perdure awakeable resolve sign_… '{\"paid\": true}'", name="resolve")
    async def resolve_awakeable(
        where: Where, awakeable_id: Awakeable, value: Value = "null"
    ) -> None:
        """Complete an awakeable with a value; the first completion stands."""
        given = json_of(value)
        async with where.client(ingress=True) as client:
            await client.resolve_awakeable(awakeable_id, given)
        _done(where, awakeable_id, "resolved")

    @command(awakeables, "perdure awakeable reject sign_… 'card refused'", name="reject")
    async def reject_awakeable(
        where: Where, awakeable_id: Awakeable, reason: Reason, code: Code = 500
    ) -> None:
        """Fail who waits for an awakeable; the first completion stands."""
        async with where.client(ingress=True) as client:
            await client.reject_awakeable(awakeable_id, reason, code)
        _done(where, awakeable_id, "rejected")


def _done(where: Where, what: str, status: str) -> None:
    where.out.result({"id": what, "status": status}, lambda: Text(f"{one_line(what)} is {status}"))
