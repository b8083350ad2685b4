"""Values and failures on their way to Restate and back.

What crosses services is JSON by the declared types, as on our own ingress (``_bodies.py``). What
is private to a service, its state, promises and step results, is JSON where that is exact, so that
it can be read in Restate's tools, and else CBOR behind the tag of RFC 8949, section 3.4.6, with
which no JSON text begins.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from restate import TerminalError as SdkTerminalError

from perdure import _cbor
from perdure.errors import StoreCorrupt, TerminalError
from perdure.serde import decode_failure, encode_failure

KIND_KEY: Final = "perdure.kind"
"""Key of a failure's metadata that says which error of perdure it is."""

_CBOR_TAG: Final = b"\xd9\xd9\xf7"
_FAILURE_TAG: Final = b"\0"  # a failure where Restate has only values: neither JSON nor CBOR
_INT_BOUND: Final = 1 << 63


def private_bytes(payload: bytes) -> bytes:
    """The form of a *payload* that only this service reads."""
    value = _cbor.decode(payload, "payload")
    return msgspec.json.encode(value) if _is_exact(value) else _CBOR_TAG + payload


def private_payload(data: bytes, place: str) -> bytes:
    """The inverse of :func:`private_bytes`.

    Raises:
      StoreCorrupt: Something else wrote *data*.
    """
    if data.startswith(_CBOR_TAG):
        return data[len(_CBOR_TAG) :]
    try:
        return _cbor.encode(msgspec.json.decode(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreCorrupt(f"{place}: neither JSON nor CBOR: {error}") from error


def rejection_bytes(failure: bytes) -> bytes:
    """An encoded *failure* as the value of a promise."""
    return _FAILURE_TAG + failure


def completion_payload(data: bytes, place: str) -> tuple[bytes, bool]:
    """What a promise is completed with, and whether it was rejected."""
    if data.startswith(_FAILURE_TAG):
        return data[len(_FAILURE_TAG) :], True
    return private_payload(data, place), False


def _is_exact(value: Any) -> bool:
    """Whether JSON gives *value* back as it is."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_INT_BOUND <= value < _INT_BOUND)
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(_is_exact, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_exact, value.values()))
    return False


def to_sdk(failure: bytes) -> SdkTerminalError:
    """An encoded *failure* as the error that restate-sdk knows."""
    error = decode_failure(failure)
    metadata = dict(error.metadata)
    metadata[KIND_KEY] = type(error).__name__
    return SdkTerminalError(error.message, error.code, metadata)


def from_sdk(error: SdkTerminalError) -> bytes:
    """A failure that came from Restate, encoded."""
    return encode_failure(error_of(error.message, error.status_code, error.metadata))


def error_of(message: str, code: int, metadata: dict[str, str] | None) -> TerminalError:
    """The error of perdure that a failure of Restate's stands for."""
    others = dict(metadata or {})
    kind = others.pop(KIND_KEY, "") or _KIND_BY_TEXT.get((code, message), "TerminalError")
    failure = _cbor.encode([kind, message, code, others])
    return decode_failure(failure)


# What Restate says itself, of which perdure has errors of their own.
_KIND_BY_TEXT: Final = {
    (409, "cancelled"): "Cancelled",
    (409, "killed"): "Killed",
    (409, "the workflow method was already invoked"): "Conflict",
    (404, "not found"): "NotFound",
}
