"""What a test gives to be run: a workflow or a handler, as a class, an instance or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from perdure.retry import RetryPolicy
from perdure.service import HandlerReference, ServiceKind, Workflow, definition_of, reference_of
from perdure.testing._trial import Script, Subject

Services: TypeAlias = "Iterable[Any] | Callable[[Any], Iterable[Any]]"


def no_world() -> None:
    """Nothing stands outside."""


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
        an instance: of nothing, or of the world of one trial.
      services: Further ones; a function is given the world of one trial.

    Raises:
      TypeError: It is none of these.
    """
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

    is_keyed = handler.service.kind is not ServiceKind.SERVICE
    return Subject(
        handler=handler,
        arg=arg,
        key=key if is_keyed else None,
        make=make,
        world=world,
        script=script,
        retry=retry,
        always_replay=always_replay,
        perturb=perturb,
    )


def _maker(workflow: Any) -> Callable[[Any], Any]:
    """Makes the service, given the world of a trial."""
    if isinstance(workflow, type):
        try:
            inspect.signature(workflow).bind()
        except TypeError as missing:
            raise TypeError(
                f"{workflow.__name__} can not be made without arguments ({missing}): give a "
                f"function that makes it, lambda: {workflow.__name__}(…)"
            ) from missing
        return lambda _: workflow()
    if callable(workflow):
        if inspect.signature(workflow).parameters:
            made: Callable[[Any], Any] = workflow
            return made
        return lambda _: workflow()
    return lambda _: workflow


def _probe(make: Callable[[Any], Any], world: Callable[[], Any]) -> Any:
    return make(world())


def _main_of(instance: Any) -> HandlerReference:
    if not isinstance(instance, Workflow):
        raise TypeError(
            f"{instance!r} is no workflow; of other services name the handler: Counter.add"
        )
    return definition_of(type(instance)).references["run"]
