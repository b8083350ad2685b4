"""What a handler's signature says: its context, its argument, its types.

Nothing here calls ``inspect.signature``: it would evaluate annotations, and a context imported
under ``TYPE_CHECKING`` only, or a type declared further down the module, is valid in one.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

from perdure import context as contexts
from perdure._place import Place
from perdure.errors import InvalidInput
from perdure.serde import UNTYPED, Serde, serde_for

# Any, in this module: annotations are any object, evaluated or not.

CONTEXTS: Final[Mapping[str, type]] = {
    kind.__name__: kind
    for kind in (
        contexts.Context,
        contexts.ObjectContext,
        contexts.ObjectSharedContext,
        contexts.WorkflowContext,
        contexts.WorkflowSharedContext,
    )
}


@dataclass(frozen=True, slots=True)
class Signature:
    """The part of a handler's signature that needs no types.

    Attributes:
      context: Name of the context class, a key of ``CONTEXTS``.
      argument: Name of the parameter after the context, or None.
      argument_has_default: The argument may be left out.
    """

    context: str
    argument: str | None
    argument_has_default: bool


class Scope:
    """The names that annotations of one class may use, beside its module's.

    The frame is kept, for types declared further down a function, until ``release``.
    """

    __slots__ = ("_cls", "_frame")

    def __init__(self, cls: type, frame: FrameType | None) -> None:
        self._cls = cls
        self._frame = frame

    def names(self, function: FunctionType) -> dict[str, Any]:
        names: dict[str, Any] = dict(self._frame.f_locals) if self._frame is not None else {}
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=False
        ):
            try:
                names[name] = cell.cell_contents
            except ValueError:  # Not assigned yet.
                continue
        names |= vars(self._cls)
        names[self._cls.__name__] = self._cls
        return names

    def release(self) -> None:
        self._frame = None


def defining_frame() -> FrameType | None:
    """Return the frame of the class statement that led to this call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_name in ("__init_subclass__", "__new__", "__call__")
        or frame.f_globals.get("__name__") in ("perdure.service", "perdure._signatures")
    ):
        frame = frame.f_back
    return frame


def plain_function(function: Callable[..., Any]) -> FunctionType | None:
    """Return the function below its ``functools.wraps`` decorators, if it is one."""
    below = inspect.unwrap(function)
    return below if isinstance(below, FunctionType) else None


def place_of(function: FunctionType) -> Place:
    return Place(function.__code__.co_filename, function.__code__.co_firstlineno)


def read_signature(
    handler: Callable[..., Any], function: FunctionType, title: str, wanted: str, scope: Scope
) -> Signature:
    """Check a handler and return its signature.

    Args:
      handler: The handler as the class has it, decorated perhaps.
      function: The function below.
      title: The handler's name for errors.
      wanted: The context classes to choose from, for errors.
      scope: The names its annotations may use.

    Raises:
      DefinitionError: It cannot be a handler.
    """
    place = place_of(function)
    code = function.__code__
    if code.co_flags & (inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR):
        raise place.error(f"handler {title} is a generator; write `async def` and return a value")
    if not (inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(function)):
        raise place.error(f"handler {title} is not async; write `async def {function.__name__}`")
    names = code.co_varnames[: code.co_argcount]
    _check_parameters(code, function, names, title, place, wanted)
    context = _context_of(function, names[1], title, wanted, scope)
    defaults = function.__defaults__ or ()
    return Signature(context, names[2] if len(names) == 3 else None, len(names) - len(defaults) < 3)


def _check_parameters(
    code: CodeType,
    function: FunctionType,
    names: tuple[str, ...],
    title: str,
    place: Place,
    wanted: str,
) -> None:
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        raise place.error(
            f"handler {title} takes *args or **kwargs; a handler takes the context and at most one "
            "argument: use a dataclass for several values"
        )
    keyword_only = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
    required = [name for name in keyword_only if name not in (function.__kwdefaults__ or {})]
    if required:
        raise place.error(
            f"handler {title} needs the keyword {required[0]!r}, which no caller can give; "
            "make it the argument after the context, or give it a default"
        )
    if len(names) < 2:
        raise place.error(
            f"handler {title} takes no context; write "
            f"`async def {function.__name__}(self, ctx: {wanted.split(' ', maxsplit=1)[0]}, …)`"
        )
    if len(names) > 3:
        raise place.error(
            f"handler {title} takes more than one argument after the context "
            f"({', '.join(names[2:])}); use a dataclass for several values"
        )


def _context_of(
    function: FunctionType, parameter: str, title: str, wanted: str, scope: Scope
) -> str:
    place = place_of(function)
    annotation = raw_annotations(function).get(parameter, UNTYPED)
    if annotation is UNTYPED:
        raise place.error(
            f"handler {title}: its context parameter {parameter!r} has no annotation, which "
            f"decides the handler's kind; annotate it with {wanted}"
        )
    try:
        annotation = evaluate(function, annotation, scope)
    except Exception:
        # Imported for the type checker only: the last identifier tells, whatever the module.
        text = getattr(annotation, "__forward_arg__", annotation)
        name = str(text).strip("'\" ").rpartition(".")[2]
        if name in CONTEXTS:
            return name
    if isinstance(annotation, type) and CONTEXTS.get(annotation.__name__) is annotation:
        return annotation.__name__
    shown = annotation.__name__ if isinstance(annotation, type) else str(annotation).strip("'")
    raise place.error(
        f"handler {title}: {shown!r} of parameter {parameter!r} is no context type; "
        f"annotate it with {wanted}"
    )


def raw_annotations(function: FunctionType) -> Mapping[str, Any]:
    """Return annotations as written: text and forward references are not evaluated."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return function.__annotations__


def evaluate(function: FunctionType, annotation: Any, scope: Scope) -> Any:
    """Evaluate an annotation of *function*.

    Raises:
      Exception: Whatever evaluation raises; ``NameError`` when a name is not there (yet).
    """

    def holder() -> None: ...

    holder.__annotations__ = {"value": annotation}
    hints = typing.get_type_hints(
        holder,
        globalns=function.__globals__,
        localns=scope.names(function),
        include_extras=True,
    )
    return hints["value"]


class HandlerTypes:
    """The types of a handler's argument and result, resolved when they can be.

    Tried when the class is defined, then when the Engine is made or at first use, whichever is
    first: a type declared further down the module is there by then.
    """

    __slots__ = ("_function", "_resolved", "_scope", "_signature", "_title")

    def __init__(
        self, function: FunctionType, signature: Signature, title: str, scope: Scope
    ) -> None:
        self._function = function
        self._signature = signature
        self._title = title
        self._scope = scope
        self._resolved: tuple[Serde[Any], Serde[Any]] | None = None

    def try_to_resolve(self) -> bool:
        """Resolve the types if every name they use is there.

        Raises:
          DefinitionError: They are there, and are no types that can be stored.
        """
        if self._resolved is not None:
            return True
        parameter = self._signature.argument
        try:
            argument = self._serde(parameter, f"argument {parameter!r}")
            self._resolved = argument, self._serde("return", "result")
        except (NameError, AttributeError):
            return False
        return True

    def serdes(self) -> tuple[Serde[Any], Serde[Any]]:
        """Return the serde of the argument and of the result.

        Raises:
          DefinitionError: A type cannot be resolved, or its values cannot be stored.
        """
        if self._resolved is None:
            try:
                resolved = self.try_to_resolve()
                if not resolved:
                    self._serde(self._signature.argument, "argument")
                    self._serde("return", "result")
            except (NameError, AttributeError) as error:
                raise place_of(self._function).error(
                    f"handler {self._title}: a type in its signature cannot be resolved: {error}; "
                    "declare or import it at module level, not under TYPE_CHECKING only"
                ) from error
        assert self._resolved is not None
        return self._resolved

    def _serde(self, name: str | None, what: str) -> Serde[Any]:
        annotation = UNTYPED if name is None else raw_annotations(self._function).get(name, UNTYPED)
        if annotation is UNTYPED:
            return serde_for(UNTYPED)
        place = place_of(self._function)
        try:
            resolved = evaluate(self._function, annotation, self._scope)
        except (NameError, AttributeError):
            raise
        except Exception as error:
            raise place.error(
                f"handler {self._title}: the annotation {annotation!r} of its {what} is no type: "
                f"{error}"
            ) from error
        try:
            return serde_for(UNTYPED if isinstance(resolved, typing.TypeVar) else resolved)
        except InvalidInput as error:
            if isinstance(error.__cause__, (NameError, AttributeError)):
                raise error.__cause__ from None
            raise place.error(
                f"handler {self._title}: {what}: {error}; use a type msgspec or pydantic knows"
            ) from error
