"""Doubles of handlers: they take the place of the handler in its service, for who calls it.

Theory of operation. A double is a handler of its own, with the types and options of the one it
stands for. It runs as any handler does, so arguments, results and failures go the way of real ones,
and it needs no journal: it returns or raises in its first activation. A service that the harness
does not have is registered with nothing but its doubles.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import perdure.context as contexts
from perdure._absent import ABSENT
from perdure._binding import known_names
from perdure.errors import InvalidInput, NotFound
from perdure.service import (
    HandlerDefinition,
    Service,
    ServiceDefinition,
    ServiceKind,
    Versions,
    VirtualObject,
    Workflow,
    definition_of,
    handler,
    reference_of,
    resolve,
)
from perdure.testing._behaviours import Double, Fail, Hang, Recorded, Return
from perdure.testing._faults import DoubleError

R = TypeVar("R")

_BASES: dict[ServiceKind, tuple[type, type]] = {
    ServiceKind.SERVICE: (Service, contexts.Context),
    ServiceKind.OBJECT: (VirtualObject, contexts.ObjectContext),
    ServiceKind.WORKFLOW: (Workflow, contexts.WorkflowSharedContext),
}


class CallDouble(Double[R]):
    """Stands for one handler, whoever calls it or sends to it."""

    def __init__(self, title: str) -> None:
        super().__init__(f"handler {title}")
        self.target = title
        self._records: list[Recorded] = []

    @property
    def records(self) -> list[Recorded]:
        """Each time the handler was called or sent to, in order, since the double was made."""
        return self._records


class CallDoubles:
    """Owner of the doubles of handlers.

    Args:
      deliberate: Gets each error that a double was told to raise.
      now: The time of the test.
    """

    def __init__(
        self, deliberate: Callable[[BaseException], None], now: Callable[[], datetime]
    ) -> None:
        self._doubles: dict[tuple[str, str], CallDouble[Any]] = {}
        self._stood_in: dict[str, ServiceDefinition] = {}  # for services the harness does not have
        self._deliberate = deliberate
        self._now = now

    def double(
        self, services: dict[str, Versions], target: Any, kind: ServiceKind | str
    ) -> tuple[CallDouble[Any], bool]:
        """The one double of a handler, and whether it was made now; *services* may get it."""
        service, name = resolve(target)
        found = self._doubles.get((service, name))
        if found is not None:
            return found, False
        double: CallDouble[Any] = CallDouble(f"{service}.{name}")
        if service not in services or service in self._stood_in:
            reference = reference_of(target)
            if reference is not None:
                self._stood_in[service] = reference.service
            elif name not in getattr(self._stood_in.get(service), "handlers", ()):
                self._stood_in[service] = self._made_up(service, name, ServiceKind(kind))
        elif all(name not in definition.handlers for definition, _ in services[service]):
            known = {each for definition, _ in services[service] for each in definition.handlers}
            raise NotFound(
                f"service {service!r} has no handler {name!r}; it has: {known_names(name, known)}"
            )
        self._doubles[service, name] = double
        self.install(services)
        return double, True

    def install(self, services: dict[str, Versions]) -> None:
        """Put all doubles in the places of the handlers they stand for."""
        for service, definition in self._stood_in.items():
            if service not in services or services[service][0][0].cls is definition.cls:
                definition.resolve_types()
                services[service] = ((self._only_doubles(definition), _blank(definition.cls)),)
        for (service, name), double in self._doubles.items():
            services[service] = tuple(
                (self._doubled(definition, name, double), instance)
                for definition, instance in services[service]
            )

    def serve(self, services: dict[str, Versions]) -> None:
        """Move to other *services*; what they have needs no stand-in any more."""
        for service in services:
            self._stood_in.pop(service, None)
        self.install(services)

    def complaints(self) -> list[str]:
        """What is to be said of doubles that nobody called."""
        return [
            f"nobody called {double.target}, which has a double"
            for double in self._doubles.values()
            if double.is_missed()
        ]

    def _doubled(
        self, definition: ServiceDefinition, name: str, double: CallDouble[Any]
    ) -> ServiceDefinition:
        real = definition.handlers.get(name)
        if real is None or isinstance(real.function, _Doubled):
            return definition
        function = _Doubled(real, double, self._deliberate, self._now)
        handlers = {**definition.handlers, name: dataclasses.replace(real, function=function)}
        return dataclasses.replace(definition, handlers=handlers)

    def _only_doubles(self, definition: ServiceDefinition) -> ServiceDefinition:
        """*definition*, none of whose handlers can run."""
        handlers = {
            name: dataclasses.replace(real, function=_refusal(real))
            for name, real in definition.handlers.items()
        }
        return dataclasses.replace(definition, handlers=handlers)

    def _made_up(self, service: str, name: str, kind: ServiceKind) -> ServiceDefinition:
        """A service of this name, of which nothing but handlers' names is known."""
        base, context = _BASES[kind]
        names = {each for of, each in (*self._doubles, (service, name)) if of == service}

        def fill(body: dict[str, Any]) -> None:
            body["__module__"] = __name__
            for each in sorted(names | ({"run"} if kind is ServiceKind.WORKFLOW else set())):
                of = contexts.WorkflowContext if each == "run" and base is Workflow else context
                body[each] = _untyped(each, of)

        return definition_of(types.new_class(service, (base,), {"name": service}, fill))


def _untyped(name: str, context: type) -> Any:
    async def anything(self: Any, ctx: Any, arg: Any = None) -> Any:
        """Stands in the place of a handler that is known by name only."""

    anything.__annotations__ = {"ctx": context, "arg": Any, "return": Any}
    anything.__name__ = name
    return handler(anything)


def _blank(cls: type) -> Any:
    """An instance whose ``__init__`` has not run: only its class is ever asked for."""
    return cls.__new__(cls)


def _refusal(real: HandlerDefinition) -> Callable[..., Awaitable[Any]]:
    async def refuse(*_: Any) -> Any:
        target = f"{real.service}.{real.name}"
        raise DoubleError(
            f"{target} was called, and has no double, as other handlers of {real.service} have: "
            f"h.call_to({target}).returns(…), or give the harness the service itself"
        )

    return refuse


class _Doubled:
    """What is called in the place of a handler's function."""

    def __init__(
        self,
        real: HandlerDefinition,
        double: CallDouble[Any],
        deliberate: Callable[[BaseException], None],
        now: Callable[[], datetime],
    ) -> None:
        self._real = real
        self._double = double
        self._deliberate = deliberate
        self._now = now

    async def __call__(self, instance: Any, ctx: Any, arg: Any = ABSENT) -> Any:
        args = () if arg is ABSENT else (arg,)
        # Only what awaits goes on in a replay: the real handler, and one that hangs.
        action = None
        if not ctx._machine.replaying:
            self._double.records.append(self._recorded(ctx, args))
            action = self._double.next_action()
        elif self._double.lasts():
            action = Hang()
        if isinstance(action, Fail):
            error = action.make()
            self._deliberate(error)
            raise error
        if isinstance(action, Hang):
            return await ctx.awakeable()
        if not isinstance(action, Return):
            return await self._real.function(instance, ctx, *args)
        value = await action.make(args, {})
        try:
            self._real.result_serde.encode(value, f"result of {self._double.target}")
        except InvalidInput as refusal:
            raise DoubleError(
                f"the double of {self._double.target} returns what it can not: {refusal}"
            ) from refusal
        return value

    def _recorded(self, ctx: Any, args: tuple[Any, ...]) -> Recorded:
        real = self._real
        return Recorded(
            self._double.target,
            args,
            {},
            ctx.request.attempt,
            self._now(),
            real.service,
            real.name,
            ctx._key,
            ctx.invocation_id,
        )
