"""Which handler a call means, and its arguments checked against what that handler takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from perdure._absent import ABSENT
from perdure._bound import Bound
from perdure._limits import check_key
from perdure.errors import DefinitionError, InvalidInput, NotFound
from perdure.serde import Serde, serde_for
from perdure.service import (
    HandlerDefinition,
    HandlerKind,
    ServiceDefinition,
    ServiceKind,
    Versions,
    definition_of,
    resolve,
    service_name,
)

Services = Mapping[str, Versions]
"""The versions of each service, by its name."""


def register(services: Iterable[Any]) -> dict[str, Versions]:
    """The services of an engine by name, the highest version first, their types resolved.

    Raises:
      DefinitionError: One is no instance of a service, or two that have one name also have one
        version, or are of different kinds.
    """
    registry: dict[str, list[tuple[ServiceDefinition, Any]]] = {}
    if not isinstance(services, Iterable):
        raise DefinitionError(f"services must be a list of instances, not {services!r}")
    for service in services:
        if isinstance(service, type):
            raise DefinitionError(
                f"Engine takes instances: pass {service.__name__}() instead of the class"
            )
        definition = definition_of(service)
        definition.resolve_types()
        versions = registry.setdefault(definition.name, [])
        for other, _ in versions:
            _check_beside(definition, other)
        versions.append((definition, service))
    return {
        name: tuple(sorted(versions, key=lambda each: each[0].version, reverse=True))
        for name, versions in registry.items()
    }


def _check_beside(definition: ServiceDefinition, other: ServiceDefinition) -> None:
    """Refuse what can not be another version of *other*, whose name it has."""
    if definition.kind is not other.kind:
        raise DefinitionError(
            f"{definition.file}:{definition.line}: service {definition.name!r} is declared as "
            f"{definition.kind.value} here and as {other.kind.value} at {other.file}:{other.line}; "
            "all versions are of one kind: give this one another name="
        )
    if definition.version == other.version:
        raise DefinitionError(
            f"two services are called {definition.name!r} and have version {other.version}, at "
            f"{other.file}:{other.line} and {definition.file}:{definition.line}; give one a name, "
            'class Other(Workflow, name="…"), or another version=, if it is a later release'
        )


def bind(
    services: Services, handler: Any, arg: Any, key: str | None
) -> tuple[HandlerDefinition, str, bytes | None]:
    """The handler meant, its key ('' for services) and its argument, checked and encoded.

    It is of the highest version that has a handler of that name.
    """
    of, name = resolve(handler)
    versions = registered_versions(services, of)
    definition = newest(versions, name)
    if definition is None:
        known = known_names(name, {each for version, _ in versions for each in version.handlers})
        raise NotFound(f"service {of!r} has no handler {name!r}; it has: {known}")
    return definition, *bind_to(definition, versions[0][0].kind, arg, key)


def bind_to(
    definition: HandlerDefinition, kind: ServiceKind, arg: Any, key: str | None
) -> tuple[str, bytes | None]:
    """Key and argument of a handler that is found; *kind*: its service's."""
    target = f"{definition.service}.{definition.name}"
    if kind is ServiceKind.SERVICE:
        if key is not None:
            raise InvalidInput(f"{target} is a service's handler and takes no key")
        key = ""
    elif key is None:
        raise InvalidInput(f"{target} needs key=: a {kind.value} is one per key")
    elif not isinstance(key, str):
        raise InvalidInput(f"{target}: the key must be a str, not {type(key).__name__}")
    check_key(key, f"key of {target}")
    return key, _encode_argument(definition, arg, target)


def bound(definition: HandlerDefinition, key: str, payload: bytes | None) -> Bound:
    """The handler that is found, as a context takes it."""
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


def bind_key(services: Services, service: Any, key: Any) -> tuple[ServiceDefinition, str]:
    """The keyed service meant, given as its class or by name, and its key, checked.

    Raises:
      InvalidInput: It is no service, or has no keys; *key* is none.
      NotFound: It is not registered here.
    """
    definition = registered_service(services, service_name(service))
    if definition.kind is ServiceKind.SERVICE:
        raise InvalidInput(f"{definition.name} is a service without keys, and has no state")
    check_key(key, f"key of {definition.name}")
    return definition, key


def registered_service(services: Services, name: str) -> ServiceDefinition:
    """The highest version of the service of that name; errors as of the next function."""
    return registered_versions(services, name)[0][0]


def registered_versions(services: Services, name: str) -> Versions:
    """The versions of the service of that name, the highest first.

    Raises:
      NotFound: There is none here.
    """
    registered = services.get(name)
    if registered is None:
        known = known_names(name, services)
        raise NotFound(f"service {name!r} is not registered here; there are: {known}")
    return registered


def newest(versions: Versions, handler: str) -> HandlerDefinition | None:
    """The handler of the highest version that has one of that name."""
    for service, _ in versions:
        if handler in service.handlers:
            return service.handlers[handler]
    return None


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
