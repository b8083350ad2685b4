"""What service classes declare, as data: definitions, references and the options in force."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from types import MethodType
from typing import Any, Final, TypeAlias

from perdure._declarations import Declaration
from perdure._place import Place
from perdure._signatures import HandlerTypes, Scope, Signature
from perdure.errors import DefinitionError
from perdure.retry import RetryPolicy
from perdure.serde import Serde

# Any, in this module: handlers are any callables, and take and return any storable values.

DEFINITION: Final = "__perdure_service__"
"""Attribute of a service class that holds its definition."""


class HandlerKind(enum.Enum):
    """What a handler may do, and beside which others it runs."""

    SERVICE = "service"
    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    RUN = "run"
    WORKFLOW_SHARED = "workflow-shared"


class ServiceKind(enum.StrEnum):
    """The three sorts of service."""

    SERVICE = "service"
    OBJECT = "object"
    WORKFLOW = "workflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What handlers and service classes alike can be told; None is "as the one above"."""

    name: str | None = None
    retry: RetryPolicy | None = None
    private: bool | None = None
    retention: timedelta | None = None
    journal_retention: timedelta | None = None
    idempotency_retention: timedelta | None = None
    inactivity_timeout: timedelta | None = None
    abort_timeout: timedelta | None = None
    metadata: dict[str, str] | None = None

    @classmethod
    def checked(cls, given: Mapping[str, Any], place: Place, title: str) -> Options:
        """Return the options given, durations as timedelta.

        Raises:
          DefinitionError: One does not exist or has a value that makes no sense.
        """
        names = [each.name for each in fields(cls)]
        for name, value in given.items():
            if name not in names:
                raise place.error(f"{title}: there is no option {name!r}; there are {names}")
            if name == "retry" and not isinstance(value, (RetryPolicy, type(None))):
                raise place.error(f"{title}: retry= must be a RetryPolicy, got {value!r}")
            if name == "private" and not isinstance(value, (bool, type(None))):
                raise place.error(f"{title}: private= must be True or False, got {value!r}")
        durations = {
            name: _duration(value, name, place, title)
            for name, value in given.items()
            if name.endswith(("retention", "timeout"))
        }
        metadata = _metadata(given.get("metadata"), place, title)
        return cls(**{**given, **durations, "metadata": metadata})

    def under(self, other: Options) -> Options:
        """Return these options, with those that are None taken from *other*; the name stays."""
        merged = {
            each.name: getattr(other if getattr(self, each.name) is None else self, each.name)
            for each in fields(self)
        }
        return Options(**{**merged, "name": self.name})

    def in_force(self) -> dict[str, Any]:
        """The fields that definitions have of them, by name."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        del given["name"]
        return {**given, "private": bool(self.private), "metadata": self.metadata or {}}

    @classmethod
    def of(cls, definition: ServiceDefinition) -> Options:
        """The options that a definition has, without the name."""
        names = [each.name for each in fields(cls) if each.name != "name"]
        return cls(**{name: getattr(definition, name) for name in names})


def _duration(value: object, name: str, place: Place, title: str) -> timedelta | None:
    duration = value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError, ValueError):  # Refused below.
            duration = timedelta(seconds=value)
    if duration is None or (isinstance(duration, timedelta) and duration >= timedelta(0)):
        return duration
    raise place.error(f"{title}: {name}= must be a timedelta or seconds, 0 or more, got {value!r}")


def _metadata(value: object, place: Place, title: str) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) for item in value.items() for text in item
    ):
        raise place.error(
            f"{title}: metadata= must be a mapping of texts to texts, got {value!r:.200}"
        )
    return dict(value)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HandlerDefinition:
    """One handler of one service class.

    The options are those in force: the handler's own, else its class's, else None. ``metadata`` is
    only the handler's own.

    Attributes:
      service: Name of the service; ``version`` is its class's.
      name: Name of the handler; ``attribute`` is the method's, usually the same.
      function: The plain function: call it with (instance, context) or (instance, context, arg).
      takes_argument: There is a parameter after the context.
      argument_has_default: It may be left out.
      description: The docstring, or an empty text.
    """

    service: str
    version: int
    name: str
    attribute: str
    kind: HandlerKind
    function: Callable[..., Any]
    takes_argument: bool
    argument_has_default: bool
    retry: RetryPolicy | None
    private: bool
    retention: timedelta | None
    journal_retention: timedelta | None
    idempotency_retention: timedelta | None
    inactivity_timeout: timedelta | None
    abort_timeout: timedelta | None
    metadata: dict[str, str]
    file: str
    line: int
    description: str
    types: HandlerTypes = field(repr=False)

    @property
    def argument_serde(self) -> Serde[Any]:
        return self.types.serdes()[0]

    @property
    def result_serde(self) -> Serde[Any]:
        return self.types.serdes()[1]

    @property
    def argument(self) -> Any:
        """Type of the argument; ``UNTYPED`` without annotation or argument."""
        return self.argument_serde.annotation

    @property
    def result(self) -> Any:
        """Type of the result; ``UNTYPED`` without annotation."""
        return self.result_serde.annotation


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ServiceDefinition:
    """What a service class declares. ``handlers`` is by handler name, bases' handlers first,
    ``references`` and ``declarations`` by attribute.
    """

    name: str
    kind: ServiceKind
    version: int
    handlers: dict[str, HandlerDefinition]
    retry: RetryPolicy | None
    private: bool
    retention: timedelta | None
    journal_retention: timedelta | None
    idempotency_retention: timedelta | None
    inactivity_timeout: timedelta | None
    abort_timeout: timedelta | None
    metadata: dict[str, str]
    abstract: bool
    cls: type
    file: str
    line: int
    description: str
    declarations: dict[str, Declaration[Any]] = field(repr=False)
    references: dict[str, HandlerReference] = field(repr=False)
    scope: Scope = field(repr=False)

    def resolve_types(self) -> None:
        """Resolve the types of every handler and declaration.

        Raises:
          DefinitionError: One cannot be resolved or stored; names its file and line.
        """
        for definition in self.handlers.values():
            definition.types.serdes()
        for declaration in self.declarations.values():
            declaration.resolve()
        self.scope.release()


Versions: TypeAlias = tuple[tuple[ServiceDefinition, Any], ...]
"""The versions of one service, the highest first: what is declared, and the user's instance."""


class HandlerReference:
    """What ``DocumentApproval.approve`` is: one handler of one class.

    Calling it calls the plain function: ``DocumentApproval.approve(instance, ctx, arg)``.
    """

    def __init__(self, definition: HandlerDefinition, cls: type) -> None:
        self.definition = definition
        self._cls = cls
        self.__name__ = definition.attribute
        self.__qualname__ = f"{cls.__qualname__}.{definition.attribute}"
        self.__module__ = cls.__module__
        self.__doc__ = definition.function.__doc__
        self.__wrapped__ = definition.function

    @property
    def service(self) -> ServiceDefinition:
        return definition_of(self._cls)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def __isabstractmethod__(self) -> bool:
        return getattr(self.definition.function, "__isabstractmethod__", False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.definition.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HandlerReference) and self.definition is other.definition

    def __hash__(self) -> int:
        return hash(self.definition)

    def __repr__(self) -> str:
        return f"{self.definition.service}.{self.definition.name}"


class HandlerDescriptor:
    """Stands in the class in the place of a handler's function."""

    def __init__(
        self,
        attribute: str,
        function: Callable[..., Any],
        given: Mapping[str, Any],
        signature: Signature,
        types: HandlerTypes,
    ) -> None:
        self.attribute = attribute
        self.function = function
        self.given = given
        self.signature = signature
        self.types = types
        self.__doc__ = function.__doc__

    @property
    def __isabstractmethod__(self) -> bool:
        return getattr(self.function, "__isabstractmethod__", False)

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is not None:
            return MethodType(self.function, instance)
        definition = vars(owner).get(DEFINITION)
        # None while the class is being made.
        return self.function if definition is None else definition.references[self.attribute]


def definition_of(service: object) -> ServiceDefinition:
    """Return what a service class, or an instance of one, declares.

    Raises:
      DefinitionError: It is not a service.
    """
    cls = service if isinstance(service, type) else type(service)
    definition = vars(cls).get(DEFINITION)
    if not isinstance(definition, ServiceDefinition):
        raise DefinitionError(
            f"{service!r} is not a service; subclass perdure.Service, VirtualObject or Workflow"
        )
    return definition
