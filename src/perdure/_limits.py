"""The limits of names, keys and payloads, and the checks that hold them.

Text limits are counted in UTF-8 bytes: LMDB keys are at most 511 bytes, and a row's key is made of
several of these parts, length-prefixed. Every check returns the encoded bytes, so that a caller
encodes once, or raises :class:`InvalidInput` with the place, the limit and the actual size.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from perdure.errors import InvalidInput

KEY_BYTES_MAX: Final = 256
"""Key of a virtual object or a workflow."""

NAME_BYTES_MAX: Final = 96
"""Name of a service, handler, step, promise, signal or state entry."""

IDEMPOTENCY_KEY_BYTES_MAX: Final = 255

HEADER_BYTES_MAX: Final = 64 * 1024
"""Name or value of one header of a call."""

PAYLOAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""One encoded value: an argument, a result, a state entry."""

NESTING_MAX: Final = 128
"""Containers inside containers in one value. cbor2 6 ends the process (a stack overflow) when it
encodes some ten thousand levels, and reads 400 back; the limit stays well below both."""

DELAY_DAYS_MAX: Final = 36_500
"""Of timers and sends: a hundred years."""

FAILURE_MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Message of a recorded failure; a longer one is cut, never refused."""


def check_key(key: str, place: object) -> bytes:
    """Encode the key of an object or workflow; the empty key is a key."""
    return _check(key, place, KEY_BYTES_MAX, empty=True)


def check_name(name: str, place: object) -> bytes:
    """Encode a name; it must not be empty."""
    return _check(name, place, NAME_BYTES_MAX, empty=False)


def check_idempotency_key(key: str, place: object = "idempotency key") -> bytes:
    """Encode an idempotency key; it must not be empty."""
    return _check(key, place, IDEMPOTENCY_KEY_BYTES_MAX, empty=False)


def check_headers(headers: Any) -> dict[str, str]:  # Any: what a caller gave.
    """Copy the headers of a call; None is none."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise InvalidInput(f"headers: expected a mapping of `str`, got `{type(headers).__name__}`")
    for name, value in headers.items():
        if name and _is_short_ascii(name) and _is_short_ascii(value):  # nearly every one
            continue
        _check(name, "name in headers", HEADER_BYTES_MAX, empty=False)
        _check(value, f"headers[{name!r}]", HEADER_BYTES_MAX, empty=True)
    return dict(headers)


def _is_short_ascii(text: object) -> bool:
    return type(text) is str and text.isascii() and len(text) <= HEADER_BYTES_MAX


def check_payload_size(size: int, place: object) -> None:
    """Refuse an encoded value of *size* bytes when that is over the limit."""
    if size > PAYLOAD_BYTES_MAX:
        raise InvalidInput(
            f"{place} is {size:,} bytes when encoded; the limit is {PAYLOAD_BYTES_MAX:,} bytes: "
            "keep large data elsewhere and pass a reference to it"
        )


def _check(text: str, place: object, limit: int, *, empty: bool) -> bytes:
    if not isinstance(text, str):
        raise InvalidInput(f"{place}: expected `str`, got `{type(text).__name__}`")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{place} {ascii(text)[:60]} holds a lone surrogate at index {error.start}, "
            "which UTF-8 cannot express"
        ) from error
    if len(encoded) > limit:
        raise InvalidInput(
            f"{place} {text[:30]!r}… is {len(encoded)} bytes in UTF-8; the limit is {limit}"
        )
    if not encoded and not empty:
        raise InvalidInput(f"{place} is empty; give it at least one character")
    return encoded


def seconds_of(value: timedelta | float, place: str) -> float:
    """A delay or a timeout in seconds, checked."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise InvalidInput(f"{place}: expected seconds or a timedelta, got {value!r}")
    if not 0 <= seconds <= DELAY_DAYS_MAX * 86_400:
        raise InvalidInput(f"{place}: {value!r} is not between 0 and {DELAY_DAYS_MAX:,} days")
    return seconds
