"""The services of an engine, and which stored invocations belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure._binding import bind
from perdure._calling import Bound
from perdure._runtime._layout import Record
from perdure.retry import RetryPolicy
from perdure.service import HandlerDefinition, HandlerKind, ServiceDefinition


class Registry:
    """What is registered: definitions and the users' instances, by name of the service."""

    def __init__(
        self, services: Mapping[str, tuple[ServiceDefinition, Any]], default_retry: RetryPolicy
    ) -> None:
        self._services = services
        self._default_retry = default_retry

    def service(self, name: str) -> tuple[ServiceDefinition, Any]:
        """Definition and instance of a registered service."""
        return self._services[name]

    def handler(self, record: Record) -> HandlerDefinition:
        return self._services[record.service][0].handlers[record.handler]

    def find(self, record: Record) -> tuple[HandlerDefinition | None, Any]:
        """Its handler and the instance of its service; None for what is not here."""
        service = self._services.get(record.service)
        if service is None:
            return None, None
        return service[0].handlers.get(record.handler), service[1]

    def newest(self, service: str, handler: str) -> HandlerDefinition:
        """The handler that new invocations begin on."""
        return self._services[service][0].handlers[handler]

    def version(self, service: str, handler: str) -> int:
        """The version of the service that new invocations of *handler* begin on."""
        return self._services[service][0].version

    def bind(self, handler: Any, arg: Any, key: str | None) -> Bound:
        """What a handler's call means; see :class:`Bound`."""
        definition, key, payload = bind(self._services, handler, arg, key)
        return Bound(
            definition.service,
            definition.name,
            key,
            payload,
            definition.kind is HandlerKind.RUN,
            definition.kind is HandlerKind.EXCLUSIVE,
            definition.argument_serde,
            definition.result_serde,
        )

    def why_blocked(self, record: Record) -> str:
        """Why an invocation can not run here; an empty text if it can."""
        name = record.service
        if name not in self._services:
            return f"service {name!r} is not registered here"
        service = self._services[name][0]
        if record.handler not in service.handlers:
            return f"service {name!r} has no handler {record.handler!r} here"
        if record.version != service.version:
            return (
                f"version {record.version} of service {name!r} is not registered here, but "
                f"{service.version}"
            )
        return ""

    def is_registered(self, record: Record) -> bool:
        return not self.why_blocked(record)

    def policy_of(self, record: Record | None) -> RetryPolicy:
        """The retry policy of an invocation: its handler's, its service's or the engine's."""
        if record is None:
            return self._default_retry
        service = self._services[record.service][0]
        return service.handlers[record.handler].retry or service.retry or self._default_retry
