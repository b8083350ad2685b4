"""Our services as those of restate-sdk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import restate
from restate.serde import BytesSerde

from perdure.service import HandlerDefinition, HandlerKind, ServiceDefinition, ServiceKind

MakeHandler = Callable[
    [ServiceDefinition, HandlerDefinition], Callable[[Any, bytes], Awaitable[bytes]]
]

_KINDS: dict[ServiceKind, Any] = {
    ServiceKind.SERVICE: restate.Service,
    ServiceKind.OBJECT: restate.VirtualObject,
    ServiceKind.WORKFLOW: restate.Workflow,
}


def declare(definitions: Sequence[ServiceDefinition], make_handler: MakeHandler) -> list[Any]:
    """The services of the SDK whose handlers are what *make_handler* makes."""
    declared = []
    for definition in definitions:
        service = _KINDS[definition.kind](definition.name)
        for handler in definition.handlers.values():
            _add(service, definition, handler, make_handler(definition, handler))
        declared.append(service)
    return declared


def _add(
    service: Any,
    definition: ServiceDefinition,
    handler: HandlerDefinition,
    run: Callable[[Any, bytes], Awaitable[bytes]],
) -> None:
    serdes = {"input_serde": BytesSerde(), "output_serde": BytesSerde()}

    async def handle(context: Any, body: bytes) -> bytes:
        return await run(context, body)

    handle.__name__ = handler.name
    if handler.kind is HandlerKind.RUN:
        service.main(**serdes)(handle)
    elif definition.kind is ServiceKind.OBJECT:
        kind = "exclusive" if handler.kind is HandlerKind.EXCLUSIVE else "shared"
        service.handler(handler.name, kind=kind, **serdes)(handle)
    else:
        service.handler(handler.name, **serdes)(handle)
