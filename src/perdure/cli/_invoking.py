"""``call``, ``send``, ``attach``: beginning invocations, and their results."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from perdure._absent import ABSENT
from perdure.cli._commands import command
from perdure.cli._output import facts
from perdure.cli._values import Id, duration_of, headers_of, json_of, read_bytes, target_of
from perdure.cli._where import Where

# Any, in this module: what handlers take and return.

Handler = Annotated[
    str, typer.Argument(metavar="HANDLER", help="Service/handler, or Service/key/handler.")
]
Argument = Annotated[
    str | None,
    typer.Argument(
        metavar="[ARGUMENT]", show_default=False, help="JSON; @FILE, or - for stdin, that has it."
    ),
]
Key = Annotated[str | None, typer.Option("--key", help="In the place of one in HANDLER.")]
Once = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="A second call with it gets the result of the first."),
]
Headers = Annotated[
    list[str] | None, typer.Option("--header", help="'name: value', for the handler; repeatable.")
]
Raw = Annotated[
    bool, typer.Option("--raw", help="The argument is bytes for a bytes handler, not JSON.")
]


def _argument(given: str | None, raw: bool) -> Any:
    if given is None:
        return ABSENT
    return read_bytes(given) if raw else json_of(given)


@contextlib.contextmanager
def _told_that_it_goes_on(where: Where) -> Iterator[None]:
    """Ctrl-C ends the waiting only, which people should know."""
    try:
        yield
    except asyncio.CancelledError:
        where.out.note("stopped waiting; the invocation goes on")
        raise


def add_to(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    _add_call(app)
    _add_send(app)
    _add_attach(app)


def _add_call(app: typer.Typer) -> None:
    @command(app, 'perdure call Order/o-1/run \'{"item": "a book"}\'')
    async def call(
        where: Where,
        handler: Handler,
        argument: Argument = None,
        key: Key = None,
        idempotency_key: Once = None,
        header: Headers = None,
        raw: Raw = False,
    ) -> None:
        """Invoke a handler, wait for its result and print it."""
        target = target_of(handler, key)
        value, headers = _argument(argument, raw), headers_of(header or [])
        async with where.client(ingress=True) as client:
            with _told_that_it_goes_on(where):
                result = await client.call(
                    target.handler,
                    value,
                    key=target.key,
                    idempotency_key=idempotency_key,
                    headers=headers,
                )
        where.out.value(result)


def _add_send(app: typer.Typer) -> None:
    @command(app, 'perdure send Order/o-1/run \'{"item": "a book"}\' --delay 10m')
    async def send(
        where: Where,
        handler: Handler,
        argument: Argument = None,
        key: Key = None,
        delay: Annotated[
            str | None, typer.Option("--delay", help="Begin after this long: 90s, 2h, 1d.")
        ] = None,
        idempotency_key: Once = None,
        header: Headers = None,
        raw: Raw = False,
    ) -> None:
        """Invoke a handler and print the invocation's id, once that is durable."""
        target = target_of(handler, key)
        value, headers = _argument(argument, raw), headers_of(header or [])
        wait = None if delay is None else duration_of(delay, "--delay")
        async with where.client(ingress=True) as client:
            sent = await client.send(
                target.handler,
                value,
                key=target.key,
                delay=wait,
                idempotency_key=idempotency_key,
                headers=headers,
            )
        where.out.result(
            {"id": sent.id, "accepted": sent.accepted.value},
            lambda: facts([("id", sent.id), ("accepted", sent.accepted.value)]),
        )


def _add_attach(app: typer.Typer) -> None:
    @command(app, "perdure attach inv_…", reads=True)
    async def attach(
        where: Where,
        invocation_id: Id,
        now: Annotated[
            bool, typer.Option("--now", help="Do not wait: fail if there is no result yet.")
        ] = False,
    ) -> None:
        """Wait for the result of an invocation and print it."""
        if now or where.data is not None:  # in a directory that is only read, nothing goes on
            async with where.reader(ingress=True) as reader:
                result = await reader.output(invocation_id)
        else:
            async with where.client(ingress=True) as client:
                with _told_that_it_goes_on(where):
                    result = await client.attach(invocation_id)
        where.out.value(result)
