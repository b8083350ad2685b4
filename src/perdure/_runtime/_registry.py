"""The services of an engine, and which stored invocations belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure._binding import bind, bound, newest
from perdure._bound import Bound
from perdure._runtime._layout import Record
from perdure.retry import RetryPolicy
from perdure.service import HandlerDefinition, HandlerKind, Versions


class Registry:
    """What is registered: definitions and the users' instances, by name and version.

    An invocation belongs to the version it began with, and to no other.
    """

    def __init__(self, services: Mapping[str, Versions], default_retry: RetryPolicy) -> None:
        self._services = services
        self._by_version = {
            (name, definition.version): (definition, instance)
            for name, versions in services.items()
            for definition, instance in versions
        }
        self._default_retry = default_retry

    def handler(self, record: Record) -> HandlerDefinition:
        """The handler of a registered invocation."""
        return self.handler_and_instance(record)[0]

    def handler_and_instance(self, record: Record) -> tuple[HandlerDefinition, Any]:
        """The handler of a registered invocation, and what it is a method of."""
        service, instance = self._by_version[record.service, record.version]
        return service.handlers[record.handler], instance

    def begins_here(self, service: str, handler: str) -> bool:
        """Whether a version of the service that has the handler is registered."""
        return newest(self._services.get(service, ()), handler) is not None

    def newest(self, service: str, handler: str) -> HandlerDefinition:
        """The handler that new invocations begin on."""
        found = newest(self._services[service], handler)
        assert found is not None, "whoever asks has bound the call"
        return found

    def bind(self, handler: Any, arg: Any, key: str | None) -> Bound:
        """What a handler's call means; see :class:`Bound`."""
        return bound(*bind(self._services, handler, arg, key))

    def why_blocked(self, record: Record) -> str:
        """Why an invocation can not run here; an empty text if it can."""
        name = record.service
        found = self._by_version.get((name, record.version))
        if found is not None:
            if record.handler in found[0].handlers:
                return ""
            versions = f"version {record.version} of " if len(self._services[name]) > 1 else ""
            return f"{versions}service {name!r} has no handler {record.handler!r} here"
        if name not in self._services:
            return f"service {name!r} is not registered here"
        others = " and ".join(str(service.version) for service, _ in reversed(self._services[name]))
        return f"version {record.version} of service {name!r} is not registered here, but {others}"

    def takes_turns(self, invocation_id: bytes, record: Record) -> bool:
        """Whether an invocation of a registered service runs only while it has its key."""
        return self.handler(record).kind is HandlerKind.EXCLUSIVE

    def is_registered(self, record: Record) -> bool:
        return not self.why_blocked(record)

    def policy_of(self, record: Record | None) -> RetryPolicy:
        """The retry policy of an invocation: its handler's, its service's or the engine's."""
        if record is None:
            return self._default_retry
        service, _ = self._by_version[record.service, record.version]
        return service.handlers[record.handler].retry or service.retry or self._default_retry
