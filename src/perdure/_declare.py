"""From a class to its service definition: finds the handlers, checks them, names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any, Final

from perdure._declarations import bind_declarations
from perdure._definitions import (
    DEFINITION,
    HandlerDefinition,
    HandlerDescriptor,
    HandlerKind,
    HandlerReference,
    Options,
    ServiceDefinition,
    ServiceKind,
)
from perdure._limits import NAME_BYTES_MAX
from perdure._place import Place
from perdure._signatures import (
    HandlerTypes,
    Scope,
    place_of,
    plain_function,
    read_signature,
)

# Any, in this module: handlers are any callables, and options are checked before they are typed.

MARK: Final = "__perdure_handler__"
"""Attribute of a function marked ``@handler``: the options given."""

_GIVEN: Final = "__perdure_given__"
_KIND: Final = "__perdure_kind__"

_KINDS: Final[Mapping[ServiceKind, Mapping[str, HandlerKind]]] = {
    ServiceKind.SERVICE: {"Context": HandlerKind.SERVICE},
    ServiceKind.OBJECT: {
        "ObjectContext": HandlerKind.EXCLUSIVE,
        "ObjectSharedContext": HandlerKind.SHARED,
    },
    ServiceKind.WORKFLOW: {
        "WorkflowContext": HandlerKind.RUN,
        "WorkflowSharedContext": HandlerKind.WORKFLOW_SHARED,
    },
}

_VERSION_MAX: Final = 2**31 - 1


def declare(
    cls: type,
    frame: FrameType | None,
    given: Mapping[str, Any],
    *,
    version: int,
    abstract: bool,
) -> None:
    """Make the definition of *cls* and put descriptors in the place of its handlers.

    Raises:
      DefinitionError: The class is declared wrongly.
    """
    kinds = {vars(base)[_KIND] for base in cls.__mro__ if _KIND in vars(base)}
    if _KIND in vars(cls):
        return  # Service, VirtualObject and Workflow themselves.
    place = Place.of_frame(frame)
    if _GIVEN in vars(cls):
        # @dataclass(slots=True) makes the class again from its namespace, without keywords.
        place, given, version, abstract = vars(cls)[_GIVEN]
        setattr(cls, DEFINITION, None)
    setattr(cls, _GIVEN, (place, given, version, abstract))
    title = f"class {cls.__name__}"
    if len(kinds) != 1:
        names = " and ".join(sorted(kinds))
        raise place.error(f"{title} is {names} at once; derive it from one of the three bases")
    (kind,) = kinds
    options = _class_options(cls, given, kind, place, title)
    if type(version) is not int or not 1 <= version <= _VERSION_MAX:
        raise place.error(f"{title}: version= must be a whole number from 1, got {version!r}")
    name = _checked_name(options.name or cls.__name__, r"[\w.\-]+", place, title)

    declarations = bind_declarations(cls, service=name, kind=kind, abstract=abstract)
    scope = Scope(cls, frame)
    handlers = _handlers(name, version, cls, kind, options, scope)
    if kind is ServiceKind.WORKFLOW and not abstract and "run" not in handlers:
        raise place.error(
            f"{title} is a workflow without `run`; write "
            "`async def run(self, ctx: WorkflowContext, …)`, or abstract=True if it is a base"
        )
    definition = ServiceDefinition(
        name=name,
        kind=kind,
        version=version,
        handlers=handlers,
        abstract=abstract,
        cls=cls,
        file=place.file,
        line=place.line,
        description=_description(cls),
        declarations=declarations,
        references={each.attribute: HandlerReference(each, cls) for each in handlers.values()},
        scope=scope,
        **options.in_force(),
    )
    setattr(cls, DEFINITION, definition)
    # Each is tried, also after one that must wait, so that what is wrong with it shows here.
    waiting = [each for each in handlers.values() if not each.types.try_to_resolve()]
    if not waiting:
        scope.release()


def _class_options(
    cls: type, given: Mapping[str, Any], kind: ServiceKind, place: Place, title: str
) -> Options:
    options = Options.checked(given, place, title)
    if options.retention is not None and kind is not ServiceKind.WORKFLOW:
        raise place.error(
            f"{title}: retention= is for workflows; use idempotency_retention= or "
            "journal_retention="
        )
    for base in cls.__mro__[1:]:
        inherited = vars(base).get(DEFINITION)
        if isinstance(inherited, ServiceDefinition):
            return options.under(Options.of(inherited))
    return options


def _checked_name(name: object, pattern: str, place: Place, title: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        raise place.error(
            f"{title}: the name {name!r} is not usable in addresses; use letters, digits, _ and -"
        )
    size = len(name.encode())
    if size > NAME_BYTES_MAX:
        raise place.error(
            f"{title}: the name is {size} bytes in UTF-8; the limit is {NAME_BYTES_MAX}: give a "
            "shorter name="
        )
    return name


def _handlers(
    service: str, version: int, cls: type, kind: ServiceKind, options: Options, scope: Scope
) -> dict[str, HandlerDefinition]:
    """Return the definitions of all handlers of *cls* by their names, which must differ."""
    handlers: dict[str, HandlerDefinition] = {}
    for attribute, descriptor in _descriptors(cls, kind, scope).items():
        definition = _handler(service, version, cls, attribute, descriptor, kind, options)
        if definition.name in handlers:
            raise Place(definition.file, definition.line).error(
                f"handler {cls.__name__}.{attribute}: there is another handler named "
                f"{definition.name!r}; give one of them another name="
            )
        handlers[definition.name] = definition
    return handlers


def _descriptors(cls: type, kind: ServiceKind, scope: Scope) -> dict[str, HandlerDescriptor]:
    """Return the descriptors of all handlers, inherited ones first, making those not yet made."""
    attributes = dict.fromkeys(
        attribute
        for base in reversed(cls.__mro__)
        for attribute, value in vars(base).items()
        if _is_handler(attribute, value, kind)
    )
    found: dict[str, HandlerDescriptor] = {}
    for attribute in attributes:
        value = next(vars(base)[attribute] for base in cls.__mro__ if attribute in vars(base))
        if value is None:
            continue  # ``approve = None`` takes the handler away, as ``__hash__ = None`` does.
        if not isinstance(value, HandlerDescriptor):
            value = _make_descriptor(cls, attribute, value, kind, scope)
            setattr(cls, attribute, value)
        found[attribute] = value
    return found


def _is_handler(attribute: str, value: object, kind: ServiceKind) -> bool:
    if isinstance(value, (HandlerDescriptor, staticmethod, classmethod, property)):
        inner = getattr(value, "__func__", None) or getattr(value, "fget", None)
        return isinstance(value, HandlerDescriptor) or hasattr(inner, MARK)
    return callable(value) and (
        hasattr(value, MARK) or (attribute == "run" and kind is ServiceKind.WORKFLOW)
    )


def _make_descriptor(
    cls: type, attribute: str, value: Any, kind: ServiceKind, scope: Scope
) -> HandlerDescriptor:
    title = f"{cls.__name__}.{attribute}"
    inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    function = plain_function(inner) if callable(inner) else None
    if function is None or inner is not value:
        place = place_of(function) if function else vars(cls)[_GIVEN][0]
        raise place.error(
            f"handler {title} is a {type(value).__name__}, not a method; write "
            f"`async def {attribute}(self, ctx: …)`, or `{attribute} = None` to take an inherited "
            "handler away"
        )
    if attribute.startswith("_"):
        raise place_of(function).error(
            f"handler {title}: names with a leading underscore are reserved; for a handler that "
            "only handlers may call, use @handler(private=True)"
        )
    signature = read_signature(value, function, title, _wanted(attribute, kind), scope)
    types = HandlerTypes(function, signature, title, scope)
    return HandlerDescriptor(attribute, value, _given(cls, attribute), signature, types)


def _given(cls: type, attribute: str) -> Mapping[str, Any]:
    """Return the options of the nearest mark: an override need not be marked again."""
    for base in cls.__mro__:
        value = vars(base).get(attribute)
        if isinstance(value, HandlerDescriptor):
            return value.given
        if hasattr(value, MARK):
            given: Mapping[str, Any] = getattr(value, MARK)
            return given
    return {}


def _wanted(attribute: str, kind: ServiceKind) -> str:
    """Return the context types to choose from, the likelier first."""
    if kind is ServiceKind.WORKFLOW:
        return (
            "WorkflowContext"
            if attribute == "run"
            else "WorkflowSharedContext (a workflow's main "
            "handler is `run`, which alone takes WorkflowContext)"
        )
    if kind is ServiceKind.OBJECT:
        return "ObjectContext (exclusive) or ObjectSharedContext"
    return "Context"


def _handler(
    service: str,
    version: int,
    cls: type,
    attribute: str,
    descriptor: HandlerDescriptor,
    kind: ServiceKind,
    inherited: Options,
) -> HandlerDefinition:
    function = plain_function(descriptor.function)
    assert function is not None
    place = place_of(function)
    title = f"handler {cls.__name__}.{attribute}"
    signature = descriptor.signature
    handler_kind = _KINDS[kind].get(signature.context)
    if handler_kind is None or (handler_kind is HandlerKind.RUN) != (
        kind is ServiceKind.WORKFLOW and attribute == "run"
    ):
        raise place.error(
            f"{title} takes {signature.context}; a handler like this in a {kind.value} takes "
            f"{_wanted(attribute, kind)}"
        )
    own = Options.checked(descriptor.given, place, title)
    is_run = handler_kind is HandlerKind.RUN
    if is_run and own.name not in (None, "run"):
        raise place.error(f"{title}: the main handler is always named run; leave name= out")
    if own.retention is not None and not is_run:
        raise place.error(
            f"{title}: retention= is for Workflow.run; use idempotency_retention= or "
            "journal_retention="
        )
    if own.idempotency_retention is not None and is_run:
        raise place.error(
            f"{title}: run happens once per key and takes no idempotency key; use retention="
        )
    options = replace(
        own.under(inherited),
        metadata=own.metadata,
        **({"idempotency_retention": None} if is_run else {"retention": None}),
    )
    return HandlerDefinition(
        service=service,
        version=version,
        name=_checked_name(own.name or attribute, r"[\w\-]+", place, title),
        attribute=attribute,
        kind=handler_kind,
        function=descriptor.function,
        takes_argument=signature.argument is not None,
        argument_has_default=signature.argument_has_default,
        file=place.file,
        line=place.line,
        description=_description(descriptor.function),
        types=descriptor.types,
        **options.in_force(),
    )


def _description(documented: type | Callable[..., Any]) -> str:
    """Return the object's own docstring, not its base's."""
    doc = vars(documented).get("__doc__") if isinstance(documented, type) else documented.__doc__
    return doc.strip() if isinstance(doc, str) else ""
