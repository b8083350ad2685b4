"""What servers of both kinds are asked alike, and which kind one is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from perdure._client._asking import Asked, path_of, text_id
from perdure._client._replies import record_of, value_of
from perdure._handles import Accepted
from perdure.errors import Unavailable
from perdure.serde import Serde

if TYPE_CHECKING:
    from perdure._client._wire import Wire

R = TypeVar("R")


class Sent(msgspec.Struct):
    """The reply to a send."""

    id: str = msgspec.field(name="invocationId")
    status: Accepted


async def send(
    wire: Wire, asked: Asked, headers: dict[str, bytes], query: dict[str, str], *, again: bool
) -> Sent:
    """Begin an invocation at an ingress, or find it."""
    response = await wire.ask(
        "POST", f"{asked.path}/send", query=query, body=asked.body, headers=headers, again=again
    )
    return record_of(response, Sent)


async def result_of(
    wire: Wire, invocation_id: str, verb: Literal["attach", "output"], serde: Serde[R]
) -> R:
    """What an invocation has returned; ``attach`` waits for it."""
    path = path_of("restate", "invocation", text_id(invocation_id), verb)
    return value_of(await wire.ask("GET", path, waits=verb == "attach"), serde)


async def is_perdure(wire: Wire, path: str, sign: str) -> bool:
    """Whether the server is perdure's, else Restate's, by what it answers at *path*.

    Args:
      sign: The field that both answer with; perdure says who it is beside it.

    Raises:
      PerdureError: It did not answer with success.
      Unavailable: There was no answer, or it is neither.
    """
    # Any: what a server may have written.
    said: dict[str, Any] = record_of(await wire.ask("GET", path), dict)
    if sign not in said:
        raise Unavailable(
            f"the server is neither perdure's nor Restate's: {path} has no {sign!r}",
            maybe_accepted=False,
        )
    return said.get("server") == "perdure"
