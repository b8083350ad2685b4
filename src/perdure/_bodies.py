"""Bodies of requests as arguments of handlers, and results as bodies of answers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from perdure._absent import ABSENT
from perdure.errors import InvalidInput
from perdure.serde import Serde
from perdure.service import HandlerDefinition

JSON: Final = b"application/json"
RAW: Final = b"application/octet-stream"
_REFUSED: Final = "input validation error: "


class Body(NamedTuple):
    """Attributes:
    content_type: None: there is none, and no body.
    """

    content: bytes
    content_type: bytes | None


EMPTY: Final = Body(b"", None)


def argument_of(definition: HandlerDefinition, body: bytes, content_type: bytes | None) -> Any:
    """The argument that a handler is given; ABSENT: it is left out.

    A handler that takes ``bytes`` is given the body as it is.

    Raises:
      InvalidInput: The body does not fit the handler; of a field that does not, with its path.
    """
    if not definition.takes_argument:
        if body:
            shown = "None" if content_type is None else f'Some("{content_type.decode("latin-1")}")'
            raise InvalidInput(
                f"{_REFUSED}Expected body and content-type to be empty, but wasn't with "
                f"content-type '{shown}'"
            )
        return ABSENT
    if not body and definition.argument_has_default:
        return ABSENT
    return value_of(
        definition.argument_serde,
        body,
        content_type,
        f"argument of {definition.service}.{definition.name}",
    )


def value_of(serde: Serde[Any], body: bytes, content_type: bytes | None, place: str) -> Any:
    """The value that a body stands for, of the type of *serde*.

    Raises:
      InvalidInput: It does not fit.
    """
    if serde.annotation is bytes:
        return body
    if not body:
        if serde.annotation is None or serde.annotation is type(None):
            return None
        raise InvalidInput(f"{_REFUSED}Empty body not allowed")
    if content_type != JSON:
        check_json(content_type)
    return serde.from_json(body, place)


def check_json(content_type: bytes | None) -> None:
    """Refuse a body that does not say that it is JSON."""
    if content_type is None:
        raise InvalidInput(f"{_REFUSED}Empty content-type")
    if content_type.partition(b";")[0].strip().lower() != JSON:
        raise InvalidInput(
            f"{_REFUSED}Content-type '{content_type.decode('latin-1')}' does not match "
            f"'{JSON.decode()}'"
        )


def body_of(value: Any, serde: Serde[Any]) -> Body:
    """The body that a result is answered as: of ``bytes`` as they are, of ``-> None`` none.

    Raises:
      InvalidInput: It has no JSON form.
    """
    annotation = serde.annotation
    if annotation is bytes:
        return Body(value, RAW) if value else EMPTY
    if annotation is None or annotation is type(None):
        return EMPTY
    return Body(serde.to_json(value, "result"), JSON)
