"""What is served, as the admin shows it: Restate's fields where it has them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from perdure._annotations import describe_type
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


def described_service(versions: Versions) -> dict[str, Any]:
    """A service: its highest version, and which others are served beside it."""
    definition = versions[0][0]
    return {
        "name": definition.name,
        "ty": _SERVICE_TYPES[definition.kind],
        "revision": definition.version,
        "versions": [each.version for each, _ in versions],
        "public": not definition.private,
        "documentation": definition.description,
        "handlers": described_handlers(versions),
        "idempotency_retention": _duration(definition.idempotency_retention),
        "workflow_completion_retention": _duration(definition.retention),
        "journal_retention": _duration(definition.journal_retention),
    }


def described_handlers(versions: Versions) -> list[dict[str, Any]]:
    """The handlers of a service, each of the highest version that has it."""
    newest: dict[str, HandlerDefinition] = {}
    for definition, _ in versions:
        for name, handler in definition.handlers.items():
            newest.setdefault(name, handler)
    return [_handler(each) for each in newest.values()]


def _handler(handler: HandlerDefinition) -> dict[str, Any]:
    return {
        "name": handler.name,
        "ty": _HANDLER_TYPES[handler.kind],
        "public": not handler.private,
        "documentation": handler.description,
        "input_description": describe_type(handler.argument) if handler.takes_argument else "none",
        "output_description": describe_type(handler.result),
        "revision": handler.version,
    }


def _duration(duration: timedelta | None) -> float | None:
    """Seconds; None: the engine's default."""
    return None if duration is None else duration.total_seconds()
