"""What is served, as the admin shows it: Restate's fields where it has them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec

from perdure._annotations import describe_type
from perdure._schemas import schema_of
from perdure.serde import Serde
from perdure.service import HandlerDefinition, HandlerKind, ServiceKind, Versions

_SERVICE_TYPES: Final = {
    ServiceKind.SERVICE: "Service",
    ServiceKind.OBJECT: "VirtualObject",
    ServiceKind.WORKFLOW: "Workflow",
}
_HANDLER_TYPES: Final = {
    HandlerKind.SERVICE: None,
    HandlerKind.EXCLUSIVE: "Exclusive",
    HandlerKind.SHARED: "Shared",
    HandlerKind.RUN: "Workflow",
    HandlerKind.WORKFLOW_SHARED: "Shared",
}


class Handler(msgspec.Struct):
    """A handler of the highest version of its service that has it.

    The schemas are null where there is no value, or where it is not JSON.
    """

    name: str
    ty: str | None
    public: bool
    documentation: str
    metadata: dict[str, str]
    input_description: str
    output_description: str
    input_json_schema: dict[str, Any] | None
    output_json_schema: dict[str, Any] | None
    revision: int


class Service(msgspec.Struct):
    """A service: its highest version, and which others are served beside it.

    Retentions are in seconds; null is the engine's default.
    """

    name: str
    ty: str
    revision: int
    versions: list[int]
    public: bool
    documentation: str
    metadata: dict[str, str]
    handlers: list[Handler]
    idempotency_retention: float | None
    workflow_completion_retention: float | None
    journal_retention: float | None


def newest_handlers(versions: Versions) -> list[HandlerDefinition]:
    """The handlers of a service, each of the highest version that has it."""
    newest: dict[str, HandlerDefinition] = {}
    for definition, _ in versions:
        for name, handler in definition.handlers.items():
            newest.setdefault(name, handler)
    return list(newest.values())


def described_service(versions: Versions) -> Service:
    definition = versions[0][0]
    return Service(
        name=definition.name,
        ty=_SERVICE_TYPES[definition.kind],
        revision=definition.version,
        versions=[each.version for each, _ in versions],
        public=not definition.private,
        documentation=definition.description,
        metadata=definition.metadata,
        handlers=[_handler(each) for each in newest_handlers(versions)],
        idempotency_retention=_seconds(definition.idempotency_retention),
        workflow_completion_retention=_seconds(definition.retention),
        journal_retention=_seconds(definition.journal_retention),
    )


def _handler(handler: HandlerDefinition) -> Handler:
    takes = handler.takes_argument
    return Handler(
        name=handler.name,
        ty=_HANDLER_TYPES[handler.kind],
        public=not handler.private,
        documentation=handler.description,
        metadata=handler.metadata,
        input_description=describe_type(handler.argument) if takes else "none",
        output_description=describe_type(handler.result),
        input_json_schema=_schema(handler.argument_serde, output=False) if takes else None,
        output_json_schema=_schema(handler.result_serde, output=True),
        revision=handler.version,
    )


def _schema(serde: Serde[Any], *, output: bool) -> dict[str, Any] | None:
    if serde.annotation in (bytes, None, type(None)):
        return None
    return schema_of(serde.annotation, output=output)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
