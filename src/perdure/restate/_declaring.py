"""Our services as the SDK's: what Restate discovers of them, and what it can not be told.

Theory of operation. Each handler becomes a function of context and bytes, for we encode, with the
options of Restate that mean the same. A handler is given only those that differ from its class's,
so that an operator who changes those of a service on the server changes them for its handlers. What
nothing is said of has the server's defaults, which are ours: 500 ms, doubled up to a minute, 70
attempts, then pause; a day for results. What a class says and Restate can not do is refused here,
so that it shows when the app is made and not when a server comes to ask.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypedDict

import restate
from restate.handler import TypeHint
from restate.serde import BytesSerde

from perdure._limits import DELAY_DAYS_MAX
from perdure._place import Place
from perdure._schemas import schema_of
from perdure.retry import RetryPolicy
from perdure.serde import Serde
from perdure.service import HandlerDefinition, HandlerKind, ServiceDefinition, ServiceKind

# Any, in this module: contexts are the SDK's and are handed on; values are of any type.

Handle: TypeAlias = Callable[[Any, bytes], Awaitable[bytes]]
"""Runs an attempt: the SDK's context and the argument as it came; the result as it goes."""

MakeHandler: TypeAlias = Callable[[ServiceDefinition, HandlerDefinition], Handle]
RestateService: TypeAlias = restate.Service | restate.VirtualObject | restate.Workflow

_CLASSES: Final[Mapping[ServiceKind, type[RestateService]]] = {
    ServiceKind.SERVICE: restate.Service,
    ServiceKind.OBJECT: restate.VirtualObject,
    ServiceKind.WORKFLOW: restate.Workflow,
}
_SERVICE_NAME: Final = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*")
_HANDLER_NAME: Final = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*")
_RESERVED: Final = re.compile(r"restate.*|openapi", re.IGNORECASE)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LONGEST: Final = timedelta(days=DELAY_DAYS_MAX)
"""A server that is told of a duration of a quarter of a million years panics."""
_ATTEMPTS_MAX: Final = 2**53 - 1
"""As good as no limit, for which there is no word: without a number the server has its own."""
_JSON: Final = "application/json"


class _Options(TypedDict):
    """What services and handlers of the SDK's alike can be told; None is "as the one above"."""

    metadata: dict[str, str] | None
    inactivity_timeout: timedelta | None
    abort_timeout: timedelta | None
    journal_retention: timedelta | None
    ingress_private: bool | None
    invocation_retry_policy: restate.InvocationRetryPolicy | None


class _Wire(TypedDict):
    """How argument and result of a handler go over the wire."""

    accept: str
    content_type: str
    input_serde: BytesSerde
    output_serde: BytesSerde


def declare(
    definitions: Sequence[ServiceDefinition], make_handler: MakeHandler
) -> list[RestateService]:
    """The definitions as services of the SDK, each handler run by what *make_handler* returns.

    Raises:
      DefinitionError: A class shows what Restate lacks; the text has its place and a remedy.
    """
    _check_versions(definitions)
    return [_service(each, make_handler) for each in definitions]


# -- refusals -------------------------------------------------------------------------------------


def _check_versions(definitions: Sequence[ServiceDefinition]) -> None:
    """Refuse two versions of one service: of Restate's, a deployment has one."""
    seen: dict[str, ServiceDefinition] = {}
    for each in definitions:
        other = seen.setdefault(each.name, each)
        if other is not each:
            raise _place(each).error(
                f"{_title(each)}: version {each.version} of service {each.name!r}, whose version "
                f"{other.version} is at {other.file}:{other.line}; on Restate an app has one "
                "version of a service: serve each by an app of its own and register both, the "
                "newest last"
            )


def _check_service_name(definition: ServiceDefinition) -> None:
    name = definition.name
    if not _SERVICE_NAME.fullmatch(name):
        raise _place(definition).error(
            f"{_title(definition)}: Restate takes no service named {name!r}, but ASCII letters, "
            "digits, '.', '_' and '-' after a letter, or after '_' and a letter or digit; give "
            "another name="
        )
    if _RESERVED.fullmatch(name):
        raise _place(definition).error(
            f"{_title(definition)}: Restate keeps service names that begin with 'restate', and "
            f"'openapi', for itself, and this is {name!r}; give another name="
        )


def _check_handler_name(definition: HandlerDefinition) -> None:
    if not _HANDLER_NAME.fullmatch(definition.name):
        raise _place(definition).error(
            f"{_title(definition)}: Restate takes no handler named {definition.name!r}, but ASCII "
            "letters, digits and '_' after a letter, or after '_' and a letter or digit; give "
            "another name="
        )


def _place(definition: ServiceDefinition | HandlerDefinition) -> Place:
    return Place(definition.file, definition.line)


def _title(definition: ServiceDefinition | HandlerDefinition) -> str:
    if isinstance(definition, ServiceDefinition):
        return f"class {definition.cls.__name__}"
    return f"handler {definition.service}.{definition.name}"


# -- services and handlers ------------------------------------------------------------------------


def _service(definition: ServiceDefinition, make_handler: MakeHandler) -> RestateService:
    _check_service_name(definition)
    definition.resolve_types()
    handlers = definition.handlers.values()
    # The server refuses a private service that has a public handler.
    private = definition.private and all(each.private for each in handlers)
    service = _CLASSES[definition.kind](
        definition.name,
        description=_summary(definition.description),
        idempotency_retention=_duration(definition.idempotency_retention),
        **_options(definition, None, private=private),
    )
    for each in handlers:
        _check_handler_name(each)
        options = _options(each, definition, private=each.private and not private)
        _add(service, each, definition, options, make_handler(definition, each))
    return service


def _add(
    service: RestateService,
    handler: HandlerDefinition,
    definition: ServiceDefinition,
    options: _Options,
    handle: Handle,
) -> None:
    """Give the service a handler."""

    async def invoke(context: Any, content: bytes) -> bytes:
        return await handle(context, content)

    invoke.__doc__ = _summary(handler.description)
    name = handler.name
    wire = _wire(handler)
    idempotency = _duration(_own(handler, definition, "idempotency_retention"))
    if isinstance(service, restate.Workflow) and handler.kind is HandlerKind.RUN:
        retention = _duration(handler.retention)
        service.main(name, workflow_retention=retention, **wire, **options)(invoke)
    elif isinstance(service, restate.VirtualObject):
        service.handler(
            name,
            "exclusive" if handler.kind is HandlerKind.EXCLUSIVE else "shared",
            idempotency_retention=idempotency,
            **wire,
            **options,
        )(invoke)
    else:
        service.handler(name, idempotency_retention=idempotency, **wire, **options)(invoke)
    if handler.kind in (HandlerKind.SHARED, HandlerKind.WORKFLOW_SHARED):
        # It reads what is there then, and not what was when it began.
        service.handlers[name].enable_lazy_state = True
    # What the SDK has read off `invoke` is what goes over the wire; these are what it stands for.
    io = service.handlers[name].handler_io
    io.input_type = (
        _hint(handler.argument_serde, output=False)
        if handler.takes_argument
        else TypeHint(is_void=True)
    )
    io.output_type = _hint(handler.result_serde, output=True)


def _summary(description: str) -> str | None:
    return description.partition("\n")[0] or None


def _wire(handler: HandlerDefinition) -> _Wire:
    """As the ingress has it: bytes as they are, whatever they are called, else JSON."""
    return _Wire(
        accept="*/*" if handler.argument is bytes else _JSON,
        content_type="application/octet-stream" if handler.result is bytes else _JSON,
        input_serde=BytesSerde(),
        output_serde=BytesSerde(),
    )


def _hint(serde: Serde[Any], *, output: bool) -> TypeHint[Any]:
    """The place in which the SDK keeps a schema; bytes have none, and of None there is no body."""
    if serde.annotation is bytes:
        return TypeHint()
    if output and serde.annotation in (None, type(None)):
        return TypeHint(is_void=True)
    schema = schema_of(serde.annotation, output=output)
    return TypeHint(annotation=object, generate_json_schema=lambda: schema)


# -- options --------------------------------------------------------------------------------------


def _options(
    definition: ServiceDefinition | HandlerDefinition,
    above: ServiceDefinition | None,
    *,
    private: bool,
) -> _Options:
    """The options of a definition, without those that *above* has too."""
    return _Options(
        metadata=definition.metadata or None,
        inactivity_timeout=_duration(_own(definition, above, "inactivity_timeout")),
        abort_timeout=_duration(_own(definition, above, "abort_timeout")),
        journal_retention=_duration(_own(definition, above, "journal_retention")),
        ingress_private=private or None,
        invocation_retry_policy=_retry(definition, _own(definition, above, "retry")),
    )


def _own(
    definition: ServiceDefinition | HandlerDefinition, above: ServiceDefinition | None, name: str
) -> Any:
    """The option of that name; None where *above* has the same."""
    value = getattr(definition, name)
    return None if above is not None and value == getattr(above, name) else value


def _retry(
    definition: ServiceDefinition | HandlerDefinition, policy: RetryPolicy | None
) -> restate.InvocationRetryPolicy | None:
    if policy is None:
        return None
    if policy.max_duration is not None:
        raise _place(definition).error(
            f"{_title(definition)}: Restate counts attempts and not time, and retry= has "
            "max_duration; give max_attempts instead"
        )
    return restate.InvocationRetryPolicy(
        initial_interval=_duration(policy.initial),
        exponentiation_factor=policy.factor,
        max_interval=_duration(policy.max_interval),
        max_attempts=min(policy.max_attempts or _ATTEMPTS_MAX, _ATTEMPTS_MAX),
        on_max_attempts=policy.on_exhausted,
    )


def _duration(value: timedelta | float | None) -> timedelta | None:
    """A duration that the SDK cuts to *value* in whole milliseconds, rounded up.

    It has half a millisecond more: the SDK calculates with floats, to which some whole milliseconds
    are a little less, and to a zero it says nothing.
    """
    if value is None:
        return None
    assert isinstance(value, timedelta), value  # a definition has no other, a policy has none
    whole = -(min(value, _LONGEST) // -_MILLISECOND)
    return timedelta(milliseconds=whole, microseconds=500)
