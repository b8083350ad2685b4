"""The ASGI app that a Restate server drives."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import restate

from perdure._binding import Services, bind, bind_to, bound, register
from perdure._bound import Bound
from perdure._runtime._threads import StepThreads
from perdure.restate._declaring import declare
from perdure.restate._invocation import Invocation
from perdure.restate._steps import BridgeRunner, make_runner
from perdure.service import (
    HandlerDefinition,
    ServiceDefinition,
    reference_of,
)

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


def app(
    services: Iterable[Any], *, identity_keys: Sequence[str] = (), step_threads: int = 32
) -> ASGIApp:
    """The services as an ASGI app that a Restate server drives; for hypercorn, over HTTP/2.

    Args:
      services: Instances, as ``Engine`` takes them.
      identity_keys: Public keys of the Restate whose requests are answered, ``publickeyv1_…``;
        none: those of everybody who reaches the app.
      step_threads: Threads for steps that are not async.

    Raises:
      DefinitionError: One is no service, or shows what Restate does not have.
    """
    registry = register(services)
    served = _Served(registry, StepThreads(step_threads))
    definitions = [definition for versions in registry.values() for definition, _ in versions]
    made: ASGIApp = restate.app(
        declare(definitions, served.handler), identity_keys=list(identity_keys) or None
    )
    return made


class _Served:
    """The services of one app, and the threads of their steps."""

    def __init__(self, registry: Services, threads: StepThreads) -> None:
        self._registry = registry
        self._instances = {
            (name, definition.version): instance
            for name, versions in registry.items()
            for definition, instance in versions
        }
        self._threads = threads
        self._runners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, BridgeRunner] = (
            weakref.WeakKeyDictionary()
        )

    def handler(
        self, service: ServiceDefinition, definition: HandlerDefinition
    ) -> Callable[[Any, bytes], Awaitable[bytes]]:
        """What the SDK is to run for a handler."""
        instance = self._instances[service.name, service.version]

        async def handle(context: Any, body: bytes) -> bytes:
            invocation = Invocation(context, definition, instance, self._bind, self._runner())
            return await invocation.run(body)

        return handle

    def _runner(self) -> BridgeRunner:
        loop = asyncio.get_running_loop()
        runner = self._runners.get(loop)
        if runner is None:
            runner = self._runners[loop] = make_runner(self._threads)
        return runner

    def _bind(self, handler: Any, arg: Any, key: str | None) -> Bound:
        """What a handler's call means; a class need not be served by this app, a text has to."""
        reference = reference_of(handler)
        if reference is None or reference.definition.service in self._registry:
            return bound(*bind(self._registry, handler, arg, key))
        definition = reference.definition
        return bound(definition, *bind_to(definition, reference.service.kind, arg, key))
