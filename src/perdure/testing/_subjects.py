"""What a test gives to be run: a workflow or a handler, as a class, an instance or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from perdure._binding import bind_public, register
from perdure.retry import RetryPolicy
from perdure.service import HandlerReference, ServiceKind, Workflow, definition_of, reference_of
from perdure.testing._trial import Script, Subject

Services: TypeAlias = "Iterable[Any] | Callable[[Any], Iterable[Any]]"


def no_world() -> None:
    """Nothing stands outside."""


def refuse_async(check: Callable[[Any, Any], object] | None) -> None:
    """A coroutine that nobody awaits would let everything pass."""
    if inspect.iscoroutinefunction(check):
        raise TypeError("check is a plain function: nothing runs any more that it could await")


def subject_of(
    workflow: Any,
    arg: Any,
    *,
    key: str,
    services: Services,
    world: Callable[[], Any],
    script: Script | None,
    retry: RetryPolicy,
    always_replay: bool,
    perturb: bool,
) -> Subject:
    """What is to be run.

    Args:
      workflow: A class of Workflow, an instance, a handler of any service, or a function that makes
        an instance; class and function are called with nothing, or with the world of one trial.
      services: Further ones; a function is given the world of one trial.

    Raises:
      InvalidInput: *arg* or *key* is not what the handler takes.
      NotFound: No service has the handler.
      TypeError: It is none of these.
    """
    if not callable(services):
        services = tuple(services)  # each trial needs them
    reference = reference_of(workflow)
    if reference is not None:
        handler, make_first = reference, None
        if not callable(services) and not any(
            isinstance(each, reference.service.cls) for each in services
        ):
            make_first = _maker(reference.service.cls)
    else:
        make_first = _maker(workflow)
        handler = _main_of(_probe(make_first, world))

    def make(outside: Any) -> Sequence[Any]:
        first = [] if make_first is None else [make_first(outside)]
        return [*first, *(services(outside) if callable(services) else services)]

    handler_key = None if handler.service.kind is ServiceKind.SERVICE else key
    # Else its refusal were the result of each trial, and all would be well.
    bind_public(register(make(world())), handler, arg, handler_key)
    return Subject(
        handler=handler,
        arg=arg,
        key=handler_key,
        make=make,
        world=world,
        script=script,
        retry=retry,
        always_replay=always_replay,
        perturb=perturb,
    )


def _maker(workflow: Any) -> Callable[[Any], Any]:
    """Makes the service, given the world of a trial."""
    if not callable(workflow):
        return lambda _: workflow
    signature = inspect.signature(workflow)
    try:
        signature.bind()
    except TypeError:
        pass
    else:
        return lambda _: workflow()
    try:
        signature.bind(None)
    except TypeError as missing:
        name = workflow.__name__
        raise TypeError(
            f"{name} can not be made of the world alone ({missing}): give a function that makes "
            f"it, lambda world: {name}(…)"
        ) from missing
    made: Callable[[Any], Any] = workflow
    return made


def _probe(make: Callable[[Any], Any], world: Callable[[], Any]) -> Any:
    return make(world())


def _main_of(instance: Any) -> HandlerReference:
    if not isinstance(instance, Workflow):
        raise TypeError(
            f"{instance!r} is no workflow; of other services name the handler: Counter.add"
        )
    return definition_of(type(instance)).references["run"]
