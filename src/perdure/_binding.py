"""Which handler a call means, and its arguments checked against what that handler takes."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from typing import Any, Final

from perdure._limits import check_key
from perdure.errors import DefinitionError, InvalidInput, NotFound
from perdure.serde import Serde, serde_for
from perdure.service import (
    HandlerDefinition,
    ServiceDefinition,
    ServiceKind,
    definition_of,
    resolve,
)

Services = Mapping[str, tuple[ServiceDefinition, Any]]
"""Definition and the user's instance, by name of the service."""


class _Absent(enum.Enum):
    ABSENT = "absent"


ABSENT: Final = _Absent.ABSENT
"""An argument left out, which is not the same as None."""


def register(services: Iterable[Any]) -> dict[str, tuple[ServiceDefinition, Any]]:
    """The services of an engine by name, their types resolved.

    Raises:
      DefinitionError: One is no instance of a service, or two have one name.
    """
    registry: dict[str, tuple[ServiceDefinition, Any]] = {}
    if not isinstance(services, Iterable):
        raise DefinitionError(f"services must be a list of instances, not {services!r}")
    for service in services:
        if isinstance(service, type):
            raise DefinitionError(
                f"Engine takes instances: pass {service.__name__}() instead of the class"
            )
        definition = definition_of(service)
        definition.resolve_types()
        if definition.name in registry:
            raise DefinitionError(
                f"two services are called {definition.name!r}; give one a name: "
                'class Other(Workflow, name="…")'
            )
        registry[definition.name] = definition, service
    return registry


def bind(
    services: Services, handler: Any, arg: Any, key: str | None
) -> tuple[HandlerDefinition, str, bytes | None]:
    """The handler meant, its key ('' for services) and its argument, checked and encoded."""
    service_name, name = resolve(handler)
    registered = services.get(service_name)
    if registered is None:
        known = known_names(service_name, services)
        raise NotFound(f"service {service_name!r} is not registered here; there are: {known}")
    service = registered[0]
    definition = service.handlers.get(name)
    if definition is None:
        known = known_names(name, service.handlers)
        raise NotFound(f"service {service_name!r} has no handler {name!r}; it has: {known}")
    target = f"{service_name}.{name}"
    if service.kind is ServiceKind.SERVICE:
        if key is not None:
            raise InvalidInput(f"{target} is a service's handler and takes no key")
        key = ""
    elif key is None:
        raise InvalidInput(f"{target} needs key=: a {service.kind.value} is one per key")
    elif not isinstance(key, str):
        raise InvalidInput(f"{target}: the key must be a str, not {type(key).__name__}")
    check_key(key, f"key of {target}")
    return definition, key, _encode_argument(definition, arg, target)


def bind_public(
    services: Services, handler: Any, arg: Any, key: str | None
) -> tuple[HandlerDefinition, str, bytes | None]:
    """The same for who calls from outside."""
    definition, key, payload = bind(services, handler, arg, key)
    if definition.private:
        raise InvalidInput(
            f"{definition.service}.{definition.name} is private: only handlers may call it"
        )
    return definition, key, payload


def known_names(name: str, names: Iterable[str]) -> str:
    """The *names* there are, and which of them *name* may have been meant to be."""
    near = difflib.get_close_matches(name, names, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return (", ".join(sorted(names)) or "none") + meant


def _encode_argument(definition: HandlerDefinition, arg: Any, target: str) -> bytes | None:
    if not definition.takes_argument:
        if arg is not ABSENT:
            raise InvalidInput(f"{target} takes no argument, got {arg!r}")
        return None
    if arg is ABSENT:
        if definition.argument_has_default:
            return None
        raise InvalidInput(f"{target} needs an argument")
    return definition.argument_serde.encode(arg, f"argument of {target}")


def result_serde(definition: HandlerDefinition, returns: Any) -> Serde[Any]:
    return definition.result_serde if returns is None else serde_for(returns)
