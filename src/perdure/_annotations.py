"""What types are to the serde: what they hold, what converts them, how errors name them."""

from __future__ import annotations

import typing
from typing import Any, Final, cast

import msgspec

# Any, in this module: annotations are any object, and pydantic may not be installed.

PYDANTIC_MARK: Final = "__pydantic_validator__"


def holds_pydantic(annotation: Any) -> bool:
    """Tell whether a type is, or is made of, a pydantic class."""
    return hasattr(annotation, PYDANTIC_MARK) or any(
        holds_pydantic(part) for part in typing.get_args(annotation)
    )


def describe_type(annotation: Any) -> str:
    """Return a type as a reader would write it."""
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)


def unsupported(annotation: Any, reason: str) -> str:
    return (
        f"values of type `{describe_type(annotation)}` cannot be stored: {reason} is not supported"
        if reason.startswith("`")
        else f"values of type `{describe_type(annotation)}` cannot be stored: {reason}"
    )


class TypeFacts:
    """What a type holds, found by walking msgspec's description of it once."""

    _NATIVE: Final = frozenset(
        {
            *("DateTimeType", "DateType", "TimeType", "TimeDeltaType", "UUIDType"),
            *("DecimalType", "BytesType", "ByteArrayType", "AnyType", "CustomType"),
        }
    )

    def __init__(self, info: object) -> None:
        self.native = False
        self.strangers: list[type] = []
        self._seen: set[int] = set()
        self._walk(info)

    def _walk(self, node: object) -> None:
        if isinstance(node, (tuple, list)):
            for item in node:
                self._walk(item)
            return
        if not isinstance(node, msgspec.Struct) or id(node) in self._seen:
            return
        self._seen.add(id(node))
        name = type(node).__name__
        self.native = self.native or name in self._NATIVE
        stranger = getattr(node, "cls", None) if name == "CustomType" else None
        if stranger is not None and not hasattr(stranger, PYDANTIC_MARK):
            self.strangers.append(stranger)
        for field in type(node).__struct_fields__:
            if field not in ("default", "default_factory", "cls"):
                self._walk(getattr(node, field))


def is_record(kind: Any) -> bool:
    """Tell classes with fields of their own: dataclass, Struct, attrs, pydantic."""
    marks = ("__struct_fields__", "__dataclass_fields__", "__attrs_attrs__", PYDANTIC_MARK)
    return any(hasattr(kind, mark) for mark in marks)


def from_plain_hook(kind: Any, value: Any) -> Any:
    """Convert inside a msgspec type what msgspec does not know: pydantic models."""
    if not hasattr(kind, PYDANTIC_MARK):
        raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    try:
        return kind.model_validate(value)
    except ValueError as error:
        raise ValueError(reason_of(error)) from error


def to_json_hook(value: Any) -> Any:
    if hasattr(type(value), PYDANTIC_MARK):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"a `{type(value).__name__}` has no JSON form")


def reason_of(error: Exception) -> str:
    """Return an error's text in one line, with the path of the bad field where it is known."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not hasattr(error, "errors"):
        text = str(error)
        return text if text.startswith("JSON") else text[:1].lower() + text[1:]
    details = cast(Any, error).errors()  # A pydantic ValidationError.
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in details[0]["loc"]]
    problem: str = details[0]["msg"]
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return problem[:1].lower() + problem[1:] + f" - at `${''.join(steps)}`" + more


def mismatch(place: object, error: Exception, annotation: Any) -> str:
    reason = reason_of(error)
    declared = "" if " - at `$" in reason else f" (declared as `{describe_type(annotation)}`)"
    return f"{place}: {reason}{declared}"
