"""What a Restate server is asked at its ingress, where perdure's has something of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from perdure._client._asking import Asked, Body, path_of
from perdure._client._replies import check
from perdure._client._requests import result_of, send
from perdure._promises import Target
from perdure.errors import NotSupportedOnRestate

if TYPE_CHECKING:
    from perdure._client._wire import Wire


class RestateIngress:
    """The ingress of a Restate server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def submit(self, asked: Asked, headers: dict[str, bytes]) -> Any:  # Any: of any type
        """The result of a workflow's run, started or found.

        These are two requests: a result that is not kept is gone in between.
        """
        sent = await send(self._wire, asked, headers, {}, again=True)
        return await result_of(self._wire, sent.id, "attach", asked.serde)

    async def signal(self, invocation_id: str, name: str, body: Body) -> None:
        """Refuse it: only handlers can send signals.

        Raises:
          NotSupportedOnRestate: Always.
        """
        raise not_supported(
            "signal",
            "takes no signals from outside; let the handler wait for an awakeable, and complete "
            "that with resolve_awakeable",
        )

    async def complete(
        self, verb: Literal["resolve", "reject"], target: Target, body: Body, query: dict[str, str]
    ) -> None:
        """Refuse it: only handlers can complete promises.

        Raises:
          NotSupportedOnRestate: Always.
        """
        how = "resolve(value)" if verb == "resolve" else "reject(reason)"
        raise not_supported(
            verb,
            f"completes no promise from outside; call a shared handler of {target.service} that "
            f"does: await ctx.promise({target.name!r}, …).{how}",
        )

    async def reject_awakeable(self, awakeable_id: str, body: Body, query: dict[str, str]) -> None:
        """Fail who waits for an awakeable.

        Raises:
          NotSupportedOnRestate: It has another code than 500.
        """
        if query:
            raise not_supported(
                "reject_awakeable", "gives every rejection the code 500; leave out code="
            )
        path = path_of("restate", "awakeables", awakeable_id, "reject")
        check(await self._wire.ask("POST", path, body=body, again=True))


def not_supported(verb: str, why: str) -> NotSupportedOnRestate:
    """The refusal of a verb, or of an argument of it; *why* goes on with what one does instead."""
    return NotSupportedOnRestate(f"{verb}: a Restate server {why}")
