"""Answers of the ingress: their statuses, headers and texts are those of Restate's."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import msgspec

from perdure._bodies import EMPTY, JSON, Body
from perdure.errors import AlreadyCompleted, PerdureError, StoreClosed, StoreError, TerminalError

logger = logging.getLogger("perdure.http")

Headers = list[tuple[bytes, bytes]]
Source = Literal["ingress", "invocation"]

RETRY_AFTER_S: Final = 1
"""What who is refused for a while is told to wait."""

# What perdure's own texts are on this wire; a user's pass as they are.
_TEXTS: Final = {
    "the invocation was cancelled": "cancelled",
    "the invocation was cancelled before it began": "cancelled",
    "the invocation was killed": "killed",
}


class Reply(NamedTuple):
    """An answer, whole."""

    status: int
    headers: Headers
    content: bytes = b""


class Overloaded(PerdureError):
    """More is uncommitted, or waits, than the engine takes on; nothing was accepted."""


def reply(status: int, body: Body = EMPTY, *headers: tuple[bytes, bytes]) -> Reply:
    """An answer with a body; it has a content type where it has content."""
    if body.content_type is None:
        return Reply(status, [*headers, (b"content-length", b"0")])
    return Reply(
        status,
        [
            *headers,
            (b"content-type", body.content_type),
            (b"content-length", b"%d" % len(body.content)),
        ],
        body.content,
    )


def json_body(value: Any) -> Body:
    return Body(msgspec.json.encode(value), JSON)


def id_header(invocation_id: str) -> tuple[bytes, bytes]:
    return b"x-restate-id", invocation_id.encode("ascii")


def expiry_header(completed_ms: int, retention_ms: int) -> tuple[bytes, bytes]:
    """When a result that is kept goes."""
    text = at_ms(completed_ms + retention_ms).isoformat(timespec="milliseconds")
    return b"idempotency-expires", text.encode("ascii")


def at_ms(time_ms: int) -> datetime:
    """The time of so many milliseconds since 1970, or the last that there is."""
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time_ms)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def nanoseconds(time_ms: int) -> str:
    """The same with nine decimals and a ``Z``."""
    return at_ms(time_ms).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def problem(
    status: int,
    message: str,
    source: Source = "ingress",
    *headers: tuple[bytes, bytes],
    metadata: dict[str, str] | None = None,
    kind: str | None = None,
) -> Reply:
    """An error; *kind*: name of the class of perdure's that it is."""
    content: dict[str, Any] = {"code": status, "message": message, "source": source}
    if metadata:
        content["metadata"] = metadata
    extra = [(b"x-restate-error-source", source.encode())]
    if kind is not None:
        extra.append((b"x-perdure-error", kind.encode("ascii")))
    return reply(status, json_body(content), *headers, *extra)


def failure(error: TerminalError, source: Source, *headers: tuple[bytes, bytes]) -> Reply:
    """The answer for a terminal error: its code is the status, where it can be one."""
    kind = type(error)
    return problem(
        status_of(error),
        _restate_text(error),
        source,
        *headers,
        metadata=error.metadata,
        kind=None if kind is TerminalError else kind.__name__,
    )


def _restate_text(error: TerminalError) -> str:
    if isinstance(error, AlreadyCompleted) and error.message.endswith(" was already completed"):
        return "promise was already completed"
    return _TEXTS.get(error.message, error.message)


def status_of(error: TerminalError) -> int:
    return error.code if 400 <= error.code <= 599 else 500


def unexpected(error: Exception) -> Reply:
    """The answer for what is not the client's doing: it says no more than a client may know."""
    after = (b"retry-after", b"%d" % RETRY_AFTER_S)
    if isinstance(error, Overloaded):
        return problem(429, str(error), "ingress", after)
    if isinstance(error, StoreError):
        # Of a closed engine the text says what becomes of what was accepted.
        text = str(error) if isinstance(error, StoreClosed) else "the store has failed"
        logger.warning("refused: %s", error)
        return problem(503, text, "ingress", after, kind=type(error).__name__)
    logger.error("a request failed", exc_info=error)
    return problem(500, "internal error", "ingress")
