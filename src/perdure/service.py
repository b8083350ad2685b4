"""Declaring services: ``Service``, ``VirtualObject``, ``Workflow`` and ``handler``.

Theory of operation. Type checkers see plain classes with plain methods. At run time
``__init_subclass__`` puts a descriptor in the place of each handler: read from an instance it is
a bound method, so handlers can be called in unit tests and by ``super()``; read from the class it
is a :class:`HandlerReference`, which knows the class it was read from, so an inherited handler has
one target in each subclass. ``_declare.py`` does the work, ``_signatures.py`` reads the functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MethodType
from typing import Any, ClassVar, TypeVar, overload

from perdure._declare import MARK, declare
from perdure._definitions import (
    DEFINITION,
    HandlerDefinition,
    HandlerKind,
    HandlerReference,
    ServiceDefinition,
    ServiceKind,
    Versions,
    definition_of,
)
from perdure._place import Place
from perdure._signatures import defining_frame, plain_function
from perdure.errors import DefinitionError, InvalidInput
from perdure.retry import RetryPolicy

__all__ = [
    "HandlerDefinition",
    "HandlerKind",
    "HandlerReference",
    "Service",
    "ServiceDefinition",
    "ServiceKind",
    "Versions",
    "VirtualObject",
    "Workflow",
    "definition_of",
    "handler",
    "reference_of",
    "resolve",
    "service_name",
]

# Any, in this module: handlers are any callables, and take and return any storable values.

F = TypeVar("F", bound=Callable[..., Any])


class _Declared:
    """Turns each subclass into a service definition."""

    __perdure_kind__: ClassVar[ServiceKind]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        retry: RetryPolicy | None = None,
        retention: timedelta | float | None = None,
        journal_retention: timedelta | float | None = None,
        idempotency_retention: timedelta | float | None = None,
        inactivity_timeout: timedelta | float | None = None,
        abort_timeout: timedelta | float | None = None,
        metadata: Mapping[str, str] | None = None,
        private: bool | None = None,
        abstract: bool = False,
        **others: Any,
    ) -> None:
        frame = defining_frame()
        try:
            super().__init_subclass__(**others)
        except TypeError as error:
            if not others:
                raise
            raise Place.of_frame(frame).error(
                f"class {cls.__name__}: there is no class keyword {min(others)!r}; there are "
                "name, version, abstract, retry, private, retention, journal_retention, "
                "idempotency_retention, inactivity_timeout, abort_timeout and metadata"
            ) from error
        given = {
            "name": name,
            "retry": retry,
            "private": private,
            "retention": retention,
            "journal_retention": journal_retention,
            "idempotency_retention": idempotency_retention,
            "inactivity_timeout": inactivity_timeout,
            "abort_timeout": abort_timeout,
            "metadata": metadata,
        }
        declare(cls, frame, given, version=version, abstract=abstract)


class Service(_Declared):
    """Stateless handlers. Subclass it; handlers take a ``Context``.

    Class keywords of all three bases: ``name`` (default: the class's), ``version`` (from 1),
    ``retry``, ``private``, ``journal_retention``, ``idempotency_retention``, for workflows
    ``retention``, ``metadata``, and for Restate ``inactivity_timeout`` and ``abort_timeout``.
    Durations are ``timedelta`` or seconds. Subclasses inherit them, except ``name`` and
    ``version``. ``abstract=True`` is a base for other classes: it need not have ``run`` and cannot
    be served.

    One engine serves several versions of a name side by side. An invocation stays on the version it
    began with; a new one begins on the highest that has its handler.

    ``retention``: how long result, state and promises of a key stay readable after ``run`` has
    completed, a day by default; then they are removed together, and the key is free.
    ``journal_retention``: how long the journal of a completed invocation stays, a day by default
    for ``run``, else not at all; where there is a key to be freed, never longer than the rest.
    ``idempotency_retention``: how long the result for an idempotency key stays, a day by default.
    ``metadata``: texts for whoever looks at the listing of services, such as who owns this one.
    ``inactivity_timeout``, ``abort_timeout``: on Restate, how long an attempt may wait before it is
    suspended, and how long it may take to obey before it is aborted. An engine in the process
    suspends without waiting and ignores both.
    """

    __perdure_kind__ = ServiceKind.SERVICE


class VirtualObject(_Declared):
    """Keyed handlers with state, exclusive and shared ones.

    Exclusive handlers (``ObjectContext``) of one key run one at a time, in the order of their
    arrival. Shared ones (``ObjectSharedContext``) run beside them and read the latest state.
    """

    __perdure_kind__ = ServiceKind.OBJECT


class Workflow(_Declared):
    """Keyed: ``run`` at most once per key, and shared handlers before, beside and after it."""

    __perdure_kind__ = ServiceKind.WORKFLOW


@overload
def handler(function: F, /) -> F: ...
@overload
def handler(
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    private: bool | None = None,
    retention: timedelta | float | None = None,
    journal_retention: timedelta | float | None = None,
    idempotency_retention: timedelta | float | None = None,
    inactivity_timeout: timedelta | float | None = None,
    abort_timeout: timedelta | float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Callable[[F], F]: ...
def handler(function: Any = None, /, **options: Any) -> Any:
    """Mark a method as a handler, with options of its own where given.

    Args:
      name: Name for callers; default: the method's.
      retry: Policy for failed attempts; default: the class's, then the engine's.
      private: For handlers that only handlers may call.
      retention: On ``Workflow.run``: how long state, promises and result stay readable after it
        has completed; 0: they go as it completes.
      journal_retention: How long the journal of a completed invocation is kept.
      idempotency_retention: How long the result for an idempotency key is kept.
      inactivity_timeout: On Restate: how long an attempt may wait before it is suspended.
      abort_timeout: On Restate: how long it may take to obey before it is aborted.
      metadata: Texts about the handler, shown where services are listed; no default.

    Raises:
      DefinitionError: This is no function. All else is checked when the class is defined.
    """
    caller = sys._getframe(1)
    place = Place(caller.f_code.co_filename, caller.f_lineno)

    def mark(method: F) -> F:
        if isinstance(method, (staticmethod, classmethod)) or plain_function(method) is None:
            raise place.error(
                f"@handler marks methods, not {method!r}; write it directly above `async def`"
            )
        setattr(method, MARK, options)
        return method

    return mark if function is None else mark(function)


def reference_of(target: object) -> HandlerReference | None:
    """Return the handler that a method reference or bound method stands for, else None."""
    if isinstance(target, HandlerReference):
        return target
    if isinstance(target, MethodType):
        definition = vars(type(target.__self__)).get(DEFINITION)
        if isinstance(definition, ServiceDefinition):
            return definition.references.get(target.__name__)
    return None


def resolve(handler: Callable[..., Any] | HandlerReference | str) -> tuple[str, str]:
    """Return (service name, handler name) of what a caller gave as handler.

    Args:
      handler: ``DocumentApproval.approve``, a bound method of a service, or the text
        ``"DocumentApproval.approve"``.

    Raises:
      InvalidInput: It is none of these, or its class is abstract.
    """
    if isinstance(handler, str):
        service, dot, name = handler.rpartition(".")
        if not (service and dot and name):
            raise InvalidInput(f'{handler!r} names no handler; write "Service.handler"')
        return service, name
    reference = reference_of(handler)
    if reference is None:
        raise InvalidInput(
            f"{handler!r} is not a handler; give Class.method, the method marked @perdure.handler, "
            'or the text "Service.handler"'
        )
    if reference.service.abstract:
        raise InvalidInput(f"{reference!r} is a handler of an abstract class; name a subclass's")
    return reference.definition.service, reference.definition.name


def service_name(service: object) -> str:
    """The name of a service given as its class or by name.

    Raises:
      InvalidInput: It is neither.
    """
    if isinstance(service, str) and service:
        return service
    if isinstance(service, type):
        try:
            return definition_of(service).name
        except DefinitionError as error:
            raise InvalidInput(str(error)) from error
    raise InvalidInput(f"a service is given as its class or by name, not as {service!r:.100}")
