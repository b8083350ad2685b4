"""What is made of a server's replies: values, records, errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec

from perdure import errors
from perdure._client._asking import OCTETS
from perdure.errors import (
    AlreadyCompleted,
    Cancelled,
    Conflict,
    InvalidInput,
    Killed,
    NondeterminismError,
    NotFound,
    NotReady,
    PerdureError,
    StoreError,
    TerminalError,
    Unavailable,
)
from perdure.serde import UNTYPED, Serde

# Any, in this module: what a server may have written.

T = TypeVar("T")

ERROR_HEADER: Final = "x-perdure-error"
"""Of a refusal: the class of the error, which code and text alone do not tell."""

SOURCE_HEADER: Final = "x-restate-error-source"
"""Whether the ``ingress`` refused, or the ``invocation`` failed."""

KIND_KEY: Final = "perdure.kind"
"""In the metadata of a failure on Restate: the class of the error, as perdure's handlers there have
it. Others are told by code and text."""

_CLASSES: Final[dict[str, type[PerdureError]]] = {
    each.__name__: each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, (TerminalError, StoreError))
}

# What a server without the header says of an invocation or a key, which no user's code has said.
_TEXTS: Final[dict[tuple[int, str], type[TerminalError]]] = {
    (404, "not found"): NotFound,
    (409, "cancelled"): Cancelled,
    (409, "killed"): Killed,
    (409, "promise was already completed"): AlreadyCompleted,
    (409, "the workflow method was already invoked"): Conflict,
}
_REFUSALS: Final[dict[int, type[TerminalError]]] = {404: NotFound, 409: Conflict, 470: NotReady}
_INPUT: Final = frozenset({400, 405, 406, 411, 413, 414, 415, 422, 431})
_SIDES: Final = (
    *("index", "expected", "actual", "invocation_id", "expected_site", "actual_site", "diff"),
)
_ANSWERED_MAX: Final = 200
"""Characters of a foreign reply in the text of an error."""


class Response(Protocol):
    """The part of an HTTP response that is looked at."""

    @property
    def is_success(self) -> bool: ...
    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Any: ...
    @property
    def text(self) -> str: ...


def check(response: Response) -> None:
    """Raise the error that a reply is, if it is one."""
    if not response.is_success:
        raise error_of(response)


def error_of(response: Response) -> PerdureError:
    """The error that a refusal stands for."""
    status = response.status_code
    refusal = _Refusal.read(response)
    if refusal is None:
        shown = " ".join(response.text.split())[:_ANSWERED_MAX]
        if status in _INPUT:
            return InvalidInput(shown or f"the server answered {status}", status)
        return Unavailable(
            f"the server answered {status}, and not as perdure does: {shown!r}",
            maybe_accepted=status >= 500,
        )
    cls = _CLASSES.get(response.headers.get(ERROR_HEADER, ""))
    if cls is None:
        return _by_code_and_text(refusal, status)
    if issubclass(cls, TerminalError):
        return cls(refusal.message, refusal.code, refusal.metadata)
    return cls(refusal.message)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The JSON body of a refusal, of the ingress or of the admin interface."""

    message: str
    code: int
    from_invocation: bool
    metadata: dict[str, str]

    @classmethod
    def read(cls, response: Response) -> _Refusal | None:
        try:
            body = msgspec.json.decode(response.content)
        except ValueError:
            return None
        if not (isinstance(body, dict) and isinstance(body.get("message"), str)):
            return None
        code, metadata = body.get("code"), body.get("metadata")
        return cls(
            body["message"],
            code if type(code) is int else response.status_code,
            body.get("source") == "invocation",
            {str(name): str(text) for name, text in metadata.items()}
            if isinstance(metadata, dict)
            else {},
        )


def _by_code_and_text(refusal: _Refusal, status: int) -> PerdureError:
    code, message = refusal.code, refusal.message
    if refusal.from_invocation:
        return terminal_of(message, code, refusal.metadata)
    if status in (429, 503):
        return Unavailable(message, maybe_accepted=status == 503)
    if status >= 500:
        return Unavailable(f"the server failed: {message}", maybe_accepted=True)
    kind = InvalidInput if status in _INPUT else _REFUSALS.get(status, TerminalError)
    return kind(message, code, refusal.metadata)


def terminal_of(message: str, code: int, metadata: dict[str, str]) -> TerminalError:
    """The failure of an invocation: its class is in the metadata, else code and text tell."""
    others = dict(metadata)
    kind = others.pop(KIND_KEY, None)
    if kind is None:
        return _TEXTS.get((code, message), TerminalError)(message, code, others)
    return _terminal_class(kind)(message, code, others)


def _terminal_class(name: str) -> type[TerminalError]:
    cls = _CLASSES.get(name, TerminalError)
    return cls if issubclass(cls, TerminalError) else TerminalError


def value_of(response: Response, serde: Serde[T]) -> T:
    """The result in a reply.

    Raises:
      InvalidInput: It is not of the type of *serde*.
      PerdureError: The reply is an error.
    """
    check(response)
    content = response.content
    is_octets = response.headers.get("content-type", "").partition(";")[0].strip() == OCTETS
    if serde.annotation is bytes or (serde.annotation is UNTYPED and is_octets):
        return cast(T, content)
    return serde.from_json(content or b"null", "result")


def record_of(response: Response, kind: type[T]) -> T:
    """The record in a reply of the admin interface.

    Raises:
      PerdureError: The reply is an error.
      Unavailable: It is not what perdure answers.
    """
    check(response)
    try:
        return msgspec.json.decode(response.content, type=kind, dec_hook=_error_from)
    except (ValueError, TypeError) as error:
        raise Unavailable(
            f"the server's answer is not what perdure answers: {error}", maybe_accepted=True
        ) from error


def _error_from(kind: Any, plain: Any) -> Any:
    """A recorded error as its class, from its fields."""
    if kind is NondeterminismError and isinstance(plain, dict):
        return NondeterminismError(**{name: plain[name] for name in _SIDES if name in plain})
    if kind is TerminalError and isinstance(plain, dict) and isinstance(plain.get("message"), str):
        terminal = _terminal_class(str(plain.get("kind")))
        return terminal(plain["message"], plain.get("code"), plain.get("metadata"))
    raise TypeError(f"{plain!r:.100} is no {getattr(kind, '__name__', kind)}")
