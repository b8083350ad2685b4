"""The options that say which invocations are meant."""

from __future__ import annotations

from typing import Annotated

import typer

from perdure import InvocationFilter, Status
from perdure.cli._failures import usage
from perdure.cli._values import duration_of
from perdure.errors import InvalidInput


def _complete_status(incomplete: str) -> list[str]:
    return [each.value for each in Status if each.value.startswith(incomplete)]


ByService = Annotated[str | None, typer.Option("--service", help="Of this service.")]
ByHandler = Annotated[
    str | None, typer.Option("--handler", help="Of this handler: name, or Service.handler.")
]
ByKey = Annotated[str | None, typer.Option("--key", help="Of this workflow's or object's key.")]
ByStatus = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        help=f"With this status; may be repeated: {', '.join(Status)}.",
        autocompletion=_complete_status,
    ),
]
ByAge = Annotated[
    str | None,
    typer.Option("--older-than", help="Accepted at least so long ago: 90s, 2h, 1d."),
]


def filter_of(
    service: str | None,
    handler: str | None,
    key: str | None,
    status: list[str] | None,
    older_than: str | None,
) -> InvocationFilter | None:
    """The filter that the options make; None: none was given.

    Raises:
      CommandError: One of them can match nothing.
    """
    if (service, handler, key, status or None, older_than) == (None,) * 5:
        return None
    try:
        return InvocationFilter(
            service=service,
            handler=handler,
            key=key,
            status=[each for given in status for each in given.split(",")] if status else None,
            older_than=None if older_than is None else duration_of(older_than, "--older-than"),
        )
    except InvalidInput as error:
        raise usage(error.message.removeprefix("filter: ")) from error
