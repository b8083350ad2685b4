"""Which promise a caller outside means, and its completion."""

from __future__ import annotations

from typing import Any, NamedTuple

from perdure._binding import Services, registered_service
from perdure._declarations import Declaration, PromiseDeclaration
from perdure._limits import check_key, check_name
from perdure._runtime._layout import key_group
from perdure._runtime._scheduler import Scheduler
from perdure.errors import InvalidInput
from perdure.futures import already_completed
from perdure.serde import UNTYPED, Serde, serde_for
from perdure.service import ServiceDefinition, ServiceKind


class Target(NamedTuple):
    """A promise of one key."""

    service: str
    key: str
    name: str
    serde: Serde[Any]  # Any: of whatever type it was declared with


def find_promise(services: Services, promise: Any, key: Any) -> Target:
    """The promise that a caller means by a declaration, or by the text ``"Workflow.promise"``.

    A text stands for the declaration of that name where the workflow has one; else its values are
    plain builtins.

    Raises:
      InvalidInput: It can name no promise, or no key.
      NotFound: No such service here.
    """
    if isinstance(promise, Declaration):
        service, name = _declared(promise)
        definition = _workflow(services, service)
    elif isinstance(promise, str):
        definition, name = _split(services, promise)
    else:
        raise InvalidInput(
            f"{promise!r} is no promise; give what perdure.promise declared, as Workflow.approval, "
            'or the text "Workflow.approval"'
        )
    target = f"promise {definition.name}.{name}"
    check_name(name, "promise name")
    if key is None:
        raise InvalidInput(f"{target} needs key=: a workflow is one per key")
    check_key(key, f"key of {target}")
    if isinstance(promise, PromiseDeclaration):
        return Target(definition.name, key, name, promise.serde)
    declared = [
        each.serde
        for each in definition.declarations.values()
        if isinstance(each, PromiseDeclaration) and each.name == name
    ]
    return Target(definition.name, key, name, declared[0] if declared else serde_for(UNTYPED))


async def complete(scheduler: Scheduler, target: Target, payload: bytes, *, failed: bool) -> None:
    """Complete a promise; returns, or refuses, once all that rests on has committed.

    Raises:
      AlreadyCompleted: It was resolved or rejected before.
    """
    await scheduler.room()
    group = key_group(target.service, target.key)
    completed = scheduler.interventions.complete_promise(group, target.name, payload, failed)
    await scheduler.answers.committed()
    if not completed:
        raise already_completed(target.name)


def _declared(promise: Declaration[Any]) -> tuple[str, str]:
    if not isinstance(promise, PromiseDeclaration):
        raise InvalidInput(f"{promise!r} is a {promise.WHAT}; a promise is needed here")
    if promise.service is None:
        raise InvalidInput(
            f"{promise!r} belongs to no workflow that runs; read it from one that is not abstract"
        )
    return promise.service, promise.name


def _split(services: Services, text: str) -> tuple[ServiceDefinition, str]:
    """Service and name of ``"Workflow.promise"``; both may have dots."""
    found = [name for name in services if text.startswith(f"{name}.") and len(text) > len(name) + 1]
    if len(found) > 1:
        raise InvalidInput(
            f"{text!r} may be a promise of {' or of '.join(sorted(found))}; declare it with "
            "perdure.promise and give the declaration"
        )
    if found:
        return _workflow(services, found[0]), text[len(found[0]) + 1 :]
    service, _, name = text.rpartition(".")
    if not (service and name):
        raise InvalidInput(f'{text!r} names no promise; write "Workflow.promise"')
    return _workflow(services, service), name


def _workflow(services: Services, name: str) -> ServiceDefinition:
    definition = registered_service(services, name)
    if definition.kind is not ServiceKind.WORKFLOW:
        raise InvalidInput(
            f"{name} is of kind '{definition.kind}' and has no promises; only workflows have"
        )
    return definition
