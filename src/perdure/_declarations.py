"""Names declared once, on the class: its promises, its state, the signals it takes.

Theory of operation. ``promise``, ``state`` and ``signal`` make a declaration that knows its type,
and its name once it stands in a class. When a service class is defined, ``bind_declarations`` makes
a copy of each that belongs to that class, inherited ones included, and reading the attribute gives
the copy: two workflows that inherit one promise have it each under their own service, as they have
handlers. A context and an engine take such a declaration in the place of a name and a type.
"""

from __future__ import annotations

import copy
import sys
from typing import Any, ClassVar, Final, Generic, Never, NoReturn, Self, TypeVar, cast, overload

from perdure._limits import check_name
from perdure._place import Place
from perdure.errors import InvalidInput
from perdure.serde import UNTYPED, Serde, serde_for

__all__ = [
    "Declaration",
    "PromiseDeclaration",
    "SignalDeclaration",
    "StateDeclaration",
    "StateWithDefault",
    "bind_declarations",
    "check_use",
    "name_and_serde",
    "promise",
    "signal",
    "state",
]

# Any, in this module: types are whatever can annotate a parameter, and values are of any of them.

T = TypeVar("T")
K = TypeVar("K", bound="Declaration[Any]")

DECLARATIONS: Final = "__perdure_declarations__"
"""Attribute of a service class that holds its declarations by attribute, inherited ones too."""


class Declaration(Generic[T]):
    """A name with a type, declared on a class.

    Attributes:
      attribute: Where it stands in the class; empty until it does.
      name: What the store and the journal call it: the name given, else the attribute.
      owner: The class it was read from, or None while it stands in none.
      service: Name of that class as a service; None if it is none that can be served.
    """

    WHAT: ClassVar[str]
    BASES: ClassVar[dict[str, str]]  # kinds of service that have it, and the class of each

    def __init__(self, annotation: Any, name: str | None, place: Place) -> None:
        self.attribute = ""
        self.name = "" if name is None else name
        self.owner: type | None = None
        self.service: str | None = None
        self._annotation = annotation
        self._is_named = name is not None
        self._place = place
        self._serde: Serde[T] | None = None
        if name is not None:
            self._check_name("name")
        if isinstance(annotation, str):
            raise place.error(
                f"perdure.{self.WHAT}({annotation!r}): this is a text, not a type; declare the "
                "type above the class and give the type itself"
            )

    def __set_name__(self, owner: type, name: str) -> None:
        if self.attribute:
            return  # A second place: refused when the class is a service, of no meaning elsewhere.
        self.attribute = name
        self.owner = owner
        if not self._is_named:
            self.name = name

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self:
        cls = type(instance) if owner is None else owner
        bound = vars(cls).get(DECLARATIONS)
        return self if bound is None else cast(Self, bound.get(self.attribute, self))

    def __set__(self, instance: object, value: Never) -> NoReturn:
        raise InvalidInput(
            f"{self!r} is a declaration, and is not assigned to; state is written with "
            "ctx.set(declaration, value), promises are resolved"
        )

    def __repr__(self) -> str:
        owner = "no class" if self.owner is None else self.owner.__name__
        return f"<{self.WHAT} {self.name!r} of {owner}>"

    @property
    def serde(self) -> Serde[T]:
        """The serde of its type.

        Raises:
          DefinitionError: The type can not be resolved, or its values can not be stored.
        """
        return self.resolve() if self._serde is None else self._serde

    def resolve(self) -> Serde[T]:
        """Resolve the type; errors are those of ``serde``."""
        try:
            self._serde = self._resolve()
        except (NameError, AttributeError) as error:
            raise self._place.error(
                f"{self._title}: its type can not be resolved: {error}; declare or import what "
                "it uses at module level, not under TYPE_CHECKING only"
            ) from error
        return self._serde

    def try_to_resolve(self) -> None:
        """Resolve the type if every name it uses is there.

        Raises:
          DefinitionError: They are there, and its values, or its default, can not be stored.
        """
        try:
            self._serde = self._resolve()
        except (NameError, AttributeError):
            self._serde = None

    def bind(self, attribute: str, cls: type, service: str, kind: str, abstract: bool) -> Self:
        """This declaration as one of *cls*, in which it stands as *attribute*.

        Raises:
          DefinitionError: It can not stand there.
        """
        bound = copy.copy(self)
        bound.owner = cls
        bound.service = None if abstract else service
        if self.attribute != attribute:
            raise self._place.error(
                f"{bound._title} stands in {cls.__name__} as {attribute!r} too; a declaration has "
                f"one name: call perdure.{self.WHAT}(…) for each"
            )
        if kind not in self.BASES:
            raise self._place.error(
                f"{bound._title}: a class of kind '{kind}' has no {self.WHAT}; declare it on a "
                f"{' or a '.join(self.BASES.values())}"
            )
        bound._check_name(f"name of {bound._title}")
        return bound

    def _resolve(self) -> Serde[T]:
        try:
            return serde_for(self._annotation)
        except InvalidInput as error:
            if isinstance(error.__cause__, (NameError, AttributeError)):
                raise error.__cause__ from None
            raise self._place.error(
                f"{self._title}: {error}; use a type msgspec or pydantic knows"
            ) from error

    @property
    def _title(self) -> str:
        owner = "" if self.owner is None else f"{self.owner.__name__}."
        return f"{self.WHAT} {owner}{self.attribute or self.name}"

    def _check_name(self, title: str) -> None:
        try:
            check_name(self.name, title)
        except InvalidInput as error:
            raise self._place.error(f"perdure.{self.WHAT}: {error}") from error


class PromiseDeclaration(Declaration[T]):
    """A promise of a workflow, declared on its class; its values are of type T."""

    WHAT = "promise"
    BASES: ClassVar = {"workflow": "Workflow"}


class StateDeclaration(Declaration[T]):
    """A named value of a key, declared on the class of a workflow or an object; None until set."""

    WHAT = "state"
    BASES: ClassVar = {"workflow": "Workflow", "object": "VirtualObject"}

    def decode(self, payload: bytes | None) -> T | None:
        """What is stored, or None where nothing is."""
        return None if payload is None else self.serde.decode(payload, f"state {self.name!r}")


class StateWithDefault(StateDeclaration[T]):
    """A named value of a key that is its default until it is set."""

    def __init__(self, annotation: Any, name: str | None, place: Place, default: Any) -> None:
        super().__init__(annotation, name, place)
        self._default = default
        self._default_payload = b""  # as long as the type waits

    def decode(self, payload: bytes | None) -> T:
        """What is stored, or the default; each time another object, for it may be changed."""
        serde = self.serde  # resolves the default, too
        if payload is None:
            payload = self._default_payload
        return serde.decode(payload, f"state {self.name!r}")

    def _resolve(self) -> Serde[T]:
        serde = super()._resolve()
        try:
            self._default_payload = serde.encode(self._default, f"default of {self._title}")
        except InvalidInput as error:
            raise self._place.error(str(error)) from error
        return serde


class SignalDeclaration(Declaration[T]):
    """A signal that the handlers of a class wait for; its values are of type T."""

    WHAT = "signal"
    BASES: ClassVar = {
        "workflow": "Workflow",
        "object": "VirtualObject",
        "service": "Service",
    }


# -- declaring ------------------------------------------------------------------------------------


@overload
def promise(type: type[T], *, name: str | None = None) -> PromiseDeclaration[T]: ...
@overload
def promise(type: Any, *, name: str | None = None) -> PromiseDeclaration[Any]: ...
def promise(type: Any, *, name: str | None = None) -> PromiseDeclaration[Any]:
    """Declare a promise of a workflow, in the body of its class: ``approval = promise(Decision)``.

    Args:
      type: Of its value.
      name: What the store calls it, 1 to 96 bytes of UTF-8; default: the attribute's.

    Raises:
      DefinitionError: *type* or *name* can not be one; all else shows when the class is defined.
    """
    return PromiseDeclaration(type, name, Place.of_frame(sys._getframe(1)))


@overload
def state(type: type[T], *, default: T, name: str | None = None) -> StateWithDefault[T]: ...
@overload
def state(type: type[T], *, name: str | None = None) -> StateDeclaration[T]: ...
@overload
def state(type: Any, *, default: Any, name: str | None = None) -> StateWithDefault[Any]: ...
@overload
def state(type: Any, *, name: str | None = None) -> StateDeclaration[Any]: ...
def state(type: Any, *, default: Any = ..., name: str | None = None) -> StateDeclaration[Any]:
    """Declare state of a workflow or an object, in the body of its class.

    Args:
      type: Of its value.
      default: What it is where it is not set, of *type*; left out: None.
      name: What the store calls it, 1 to 96 bytes of UTF-8; default: the attribute's.

    Raises:
      DefinitionError: As for :func:`promise`.
    """
    place = Place.of_frame(sys._getframe(1))
    if default is ...:
        return StateDeclaration(type, name, place)
    return StateWithDefault(type, name, place, default)


@overload
def signal(type: type[T], *, name: str | None = None) -> SignalDeclaration[T]: ...
@overload
def signal(type: Any, *, name: str | None = None) -> SignalDeclaration[Any]: ...
def signal(type: Any, *, name: str | None = None) -> SignalDeclaration[Any]:
    """Declare a signal that handlers of a class wait for, in the body of the class.

    Arguments and errors are those of :func:`promise`.
    """
    return SignalDeclaration(type, name, Place.of_frame(sys._getframe(1)))


def bind_declarations(
    cls: type, *, service: str, kind: str, abstract: bool
) -> dict[str, Declaration[Any]]:
    """The declarations of *cls* by attribute, inherited ones first; reading gives them from now on.

    Raises:
      DefinitionError: One can not stand in a service of this *kind*, or two have one name.
    """
    attributes = dict.fromkeys(
        attribute
        for base in reversed(cls.__mro__)
        for attribute, value in vars(base).items()
        if isinstance(value, Declaration)
    )
    bound: dict[str, Declaration[Any]] = {}
    named: dict[tuple[str, str], Declaration[Any]] = {}
    for attribute in attributes:
        declared = next(vars(base)[attribute] for base in cls.__mro__ if attribute in vars(base))
        if not isinstance(declared, Declaration):
            continue  # A subclass has put something else in its place.
        each = declared.bind(attribute, cls, service, kind, abstract)
        other = named.setdefault((each.WHAT, each.name), each)
        if other is not each:
            raise each._place.error(
                f"{each._title}: {other._title} has the name {each.name!r} too; give one of them "
                "another name="
            )
        bound[attribute] = each
    setattr(cls, DECLARATIONS, bound)
    for each in bound.values():
        each.try_to_resolve()
    return bound


# -- using ----------------------------------------------------------------------------------------


def name_and_serde(
    what: str | Declaration[Any],
    type: Any,
    kind: type[Declaration[Any]],
    service: type,
) -> tuple[str, Serde[Any]]:
    """Name and serde of what a handler of *service* asks for, by declaration or by name and *type*.

    Args:
      what: A declaration of the class *kind*, or a name, which is not checked here.
      type: For a name; ``UNTYPED`` where none was given.

    Raises:
      InvalidInput: The declaration is another class's or of another kind, or comes with a type.
    """
    if not isinstance(what, Declaration):
        return what, serde_for(type)
    check_use(what, kind, service)
    if type is not UNTYPED:
        raise InvalidInput(f"{what!r} has a type of its own; leave the other one out")
    return what.name, what.serde


def check_use(what: Declaration[Any], kind: type[K], service: type) -> K:
    """*what*; refused if it is no *kind*, or if handlers of *service* do not have it."""
    if not isinstance(what, kind):
        raise InvalidInput(f"{what!r} is a {what.WHAT}; a {kind.WHAT} is needed here")
    if what.owner is None:
        raise InvalidInput(
            f"this {what.WHAT} was not declared in the body of a class, which gives it its name"
        )
    if not issubclass(service, what.owner):
        raise InvalidInput(
            f"{what!r} is none of {service.__name__}'s; a handler uses what its own class declares"
        )
    return what
