"""Typed values <-> CBOR bytes (journal, state, results) and JSON (HTTP).

Theory of operation. ``_cbor.py`` turns values into canonical bytes and bytes into plain builtins;
this module adds the types. Encoding checks the value against its type, by the conversion that
decoding will do: what was encoded can be decoded. The check is of structure, as everywhere in
msgspec: a dict with the right fields passes for a dataclass, an instance of another record class
does not. Types msgspec does not know, but pydantic does, go through a ``TypeAdapter``; pydantic is
imported only by programs that have imported it themselves.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import uuid
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from perdure import _cbor, errors
from perdure._annotations import (
    PYDANTIC_MARK,
    TypeFacts,
    describe_type,
    from_plain_hook,
    holds_pydantic,
    is_record,
    mismatch,
    reason_of,
    to_json_hook,
    unsupported,
)
from perdure._cbor import Unstorable
from perdure._flat import SCALARS, encode_flat
from perdure._limits import FAILURE_MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, check_payload_size
from perdure.errors import InvalidInput, StoreCorrupt, TerminalError

T = TypeVar("T")


class _Untyped:
    def __repr__(self) -> str:
        return "UNTYPED"


UNTYPED: Final[Any] = _Untyped()  # Any: stands where an annotation stands.
"""In place of a type: plain builtins, datetime, date, time, timedelta, UUID and Decimal."""

_convert: Final = msgspec.convert

# Types CBOR carries as they are: named to msgspec, it does not take a str for a date, say.
_NATIVE_TYPES: Final = (
    *(bytes, bytearray, dt.datetime, dt.date, dt.time, dt.timedelta),
    *(uuid.UUID, decimal.Decimal),
)


class Serde(Generic[T]):
    """Encodes and decodes the values of one type.

    *place* says in each error whose value it is: ``"result of step 'charge card'"``.
    """

    __slots__ = ("annotation",)

    def __init__(self, annotation: Any) -> None:  # Any: whatever can annotate a parameter.
        self.annotation = annotation

    def encode(self, value: T, place: object) -> bytes:
        """Encode a value canonically: equal values give equal bytes in every process.

        Raises:
          InvalidInput: The value is not of the type, cannot be stored, or is over 32 MiB encoded.
        """
        try:
            payload = _cbor.encode(value)
        except Unstorable as error:
            raise InvalidInput(f"{place}: {error}") from error
        if len(payload) > PAYLOAD_BYTES_MAX:
            check_payload_size(len(payload), place)
        return payload

    def decode(self, payload: bytes, place: object) -> T:
        """Decode a payload.

        Raises:
          StoreCorrupt: The bytes are none that perdure writes.
          InvalidInput: They are well-formed and do not convert to the type.
        """
        return cast(T, _cbor.decode(payload, place))

    def from_json(self, text: bytes | str, place: object) -> T:
        """Decode JSON to a value, checked against the type; dates and UUIDs are JSON strings.

        Raises:
          InvalidInput: The text is not JSON or does not fit the type; names the bad field's path.
        """
        try:
            return self._from_json(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInput(f"{place}: {reason_of(error)}") from error

    def to_json(self, value: T, place: object) -> bytes:
        """Encode a value as JSON.

        Raises:
          InvalidInput: The value has no JSON form.
        """
        try:
            return msgspec.json.encode(value, enc_hook=to_json_hook, order="deterministic")
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidInput(f"{place}: {reason_of(error)}") from error

    def describe(self) -> str:
        """Return the type as a reader would write it."""
        return describe_type(self.annotation)

    def _from_json(self, text: bytes | str) -> T:
        return cast(T, msgspec.json.decode(text))

    def __repr__(self) -> str:
        return f"<Serde of {self.describe()}>"


class _ScalarSerde(Serde[T]):
    """An exact bool, int, float, str or bytes: checked by its class alone."""

    __slots__ = ("_kind",)

    def __init__(self, annotation: Any) -> None:  # Any: see Serde.
        super().__init__(annotation)
        self._kind: type = type(None) if annotation is None else annotation

    def encode(self, value: T, place: object) -> bytes:
        payload = _encode(value, place)
        if type(value) is not self._kind:
            _checked(value if type(value) in SCALARS else self._plain(payload), self._kind, place)
        return payload

    def decode(self, payload: bytes, place: object) -> T:
        value = _cbor.decode(payload, place)
        if type(value) is self._kind:
            return cast(T, value)
        return cast(T, _checked(value, self._kind, place))

    def _from_json(self, text: bytes | str) -> T:
        return cast(T, msgspec.json.decode(text, type=self._kind))

    @staticmethod
    def _plain(payload: bytes) -> object:
        return _cbor.decode(payload, "value")


class _MsgspecSerde(Serde[T]):
    """Any type msgspec converts."""

    __slots__ = ("_box", "_native_types", "_record")

    def __init__(self, annotation: Any, native_types: tuple[type, ...] | None) -> None:
        super().__init__(annotation)
        self._native_types = native_types
        # msgspec looks into a type like dict[str, int] at every conversion, into a Struct once: as
        # the one field of a Struct a small dict converts in 0.2 us instead of 1.7.
        self._box = msgspec.defstruct("Box", [("value", annotation)], array_like=True)
        # The class whose instances alone are meant, when the type is one record class.
        self._record = (
            annotation if isinstance(annotation, type) and is_record(annotation) else None
        )

    def encode(self, value: T, place: object) -> bytes:
        record = self._record
        if record is not None and not isinstance(value, record) and is_record(type(value)):
            raise InvalidInput(
                f"{place}: expected `{self.describe()}`, got `{type(value).__name__}`"
            )
        payload = encode_flat(value)
        if payload is not None:  # Converts as it is; all else, from what decoding will see.
            if len(payload) > PAYLOAD_BYTES_MAX:
                check_payload_size(len(payload), place)
            self._convert(value, place)
            return payload
        payload = _encode(value, place)
        self._convert(value if type(value) in SCALARS else _cbor.decode(payload, place), place)
        return payload

    def decode(self, payload: bytes, place: object) -> T:
        return self._convert(_cbor.decode(payload, place), place)

    def _converted(self, value: object, annotation: Any) -> Any:
        if self._native_types is None:
            return _convert(value, annotation, dec_hook=from_plain_hook)
        return _convert(
            value, annotation, builtin_types=self._native_types, dec_hook=from_plain_hook
        )

    def _convert(self, value: object, place: object) -> T:
        try:
            return cast(T, self._converted((value,), self._box).value)
        except (ValueError, TypeError, RecursionError):
            pass
        try:  # Again without the box, whose place would be in the path of the bad field.
            return cast(T, self._converted(value, self.annotation))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInput(mismatch(place, error, self.annotation)) from error

    def _from_json(self, text: bytes | str) -> T:
        return cast(T, msgspec.json.decode(text, type=self.annotation, dec_hook=from_plain_hook))


class _PydanticSerde(Serde[T]):
    """A pydantic model, or a type msgspec refuses that has one inside."""

    __slots__ = ("_adapter",)

    def __init__(self, annotation: Any, adapter: Any) -> None:  # Any: a pydantic TypeAdapter.
        super().__init__(annotation)
        self._adapter = adapter

    def encode(self, value: T, place: object) -> bytes:
        if (
            isinstance(self.annotation, type)
            and not isinstance(value, self.annotation)
            and is_record(type(value))
        ):
            raise InvalidInput(
                f"{place}: expected `{self.describe()}`, got `{type(value).__name__}`"
            )
        payload = _encode(value, place)
        self.decode(payload, place)
        return payload

    def decode(self, payload: bytes, place: object) -> T:
        value = _cbor.decode(payload, place)
        try:
            return cast(T, self._adapter.validate_python(value))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInput(mismatch(place, error, self.annotation)) from error

    def to_json(self, value: T, place: object) -> bytes:
        try:
            return cast(bytes, self._adapter.dump_json(value, by_alias=True))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInput(f"{place}: {reason_of(error)}") from error

    def _from_json(self, text: bytes | str) -> T:
        return cast(T, self._adapter.validate_json(text))


_SCALAR_TYPES: Final = frozenset({None, type(None), bool, int, float, str, bytes})
_UNTYPED_SERDE: Final[Serde[Any]] = Serde(UNTYPED)
_CACHE_MAX: Final = 4096
_cache: dict[Any, Serde[Any]] = {}


def serde_for(annotation: Any) -> Serde[Any]:  # Any: whatever can annotate a parameter.
    """Return the serde of a type; the same object for the same hashable annotation.

    Raises:
      InvalidInput: Values of the type cannot be stored, or the type cannot be resolved (then the
        cause is a ``NameError`` or ``AttributeError``).
    """
    try:
        return _cache[annotation]
    except KeyError:
        pass
    except TypeError:  # Unhashable, as Annotated[int, []] is.
        return _make_serde(annotation)
    serde = _make_serde(annotation)
    if len(_cache) >= _CACHE_MAX:  # Types made in a loop must not fill the memory.
        _cache.clear()
    _cache[annotation] = serde
    return serde


def _make_serde(annotation: Any) -> Serde[Any]:
    if annotation is UNTYPED or annotation is Any or annotation is object:
        return _UNTYPED_SERDE
    if annotation is None or (isinstance(annotation, type) and annotation in _SCALAR_TYPES):
        return _ScalarSerde(annotation)
    if hasattr(annotation, PYDANTIC_MARK):
        return _pydantic_serde(annotation)
    from msgspec import inspect  # Not needed by a program without types.

    try:
        facts = TypeFacts(inspect.type_info(annotation))
    except (NameError, AttributeError) as error:
        raise InvalidInput(f"type `{describe_type(annotation)}`: {error}") from error
    except Exception as error:  # msgspec documents none; what it refuses, pydantic may know.
        if holds_pydantic(annotation):
            return _pydantic_serde(annotation)
        raise InvalidInput(unsupported(annotation, str(error))) from error
    if facts.strangers:
        raise InvalidInput(unsupported(annotation, f"`{facts.strangers[0].__qualname__}`"))
    return _MsgspecSerde(annotation, _NATIVE_TYPES if facts.native else None)


def _pydantic_serde(annotation: Any) -> Serde[Any]:
    from pydantic import TypeAdapter

    try:
        return _PydanticSerde(annotation, TypeAdapter(annotation))
    except NameError as error:
        raise InvalidInput(f"type `{describe_type(annotation)}`: {error}") from error
    except Exception as error:  # pydantic has several, without a common base.
        raise InvalidInput(unsupported(annotation, str(error))) from error


def _encode(value: object, place: object) -> bytes:
    try:
        payload = _cbor.encode(value)
    except Unstorable as error:
        raise InvalidInput(f"{place}: {error}") from error
    if len(payload) > PAYLOAD_BYTES_MAX:
        check_payload_size(len(payload), place)
    return payload


def _checked(value: object, kind: type, place: object) -> object:
    try:
        return _convert(value, kind, builtin_types=_NATIVE_TYPES)
    except (ValueError, TypeError) as error:
        raise InvalidInput(mismatch(place, error, kind)) from error


# -- failures -------------------------------------------------------------------------------------

_FAILURES: Final[dict[str, type[TerminalError]]] = {
    kind.__name__: kind
    for kind in (
        *(TerminalError, errors.InvalidInput, errors.PromiseNameError, errors.NotFound),
        *(errors.AlreadyCompleted, errors.Conflict, errors.Cancelled, errors.Killed),
        *(errors.NotReady, errors.NondeterministicOperationError, errors.NotSupportedOnRestate),
    )
}


def encode_failure(error: BaseException) -> bytes:
    """Encode a failure as CBOR ``[kind, message, code, metadata]``.

    Never fails: the message is cut at 64 KiB, lone surrogates are escaped. A subclass that is not
    perdure's own is recorded as ``TerminalError``; so is an exception that is no ``TerminalError``,
    with its class before its text and code 500. ``asyncio.CancelledError`` is ``Cancelled``.
    """
    if isinstance(error, TerminalError):
        kind = type(error).__name__ if type(error) in _FAILURES.values() else "TerminalError"
        # The attributes are missing where a subclass of a user's did not call its base.
        message = getattr(error, "message", type(error).__name__)
        code = getattr(error, "code", None)
        metadata = getattr(error, "metadata", None)
        return _cbor.encode(
            [
                kind,
                _text(message),
                code if type(code) is int else int(TerminalError.default_code),
                {_text(key): _text(item) for key, item in metadata.items()}
                if isinstance(metadata, dict)
                else {},
            ]
        )
    if isinstance(error, asyncio.CancelledError):
        return _cbor.encode(
            ["Cancelled", _text(error) or "cancelled", errors.Cancelled.default_code, {}]
        )
    message = describe_failure(error)
    return _cbor.encode(["TerminalError", message, TerminalError.default_code, {}])


def decode_failure(payload: bytes) -> TerminalError:
    """Rebuild a failure; an unknown kind (a newer release's) is a plain ``TerminalError``.

    Raises:
      StoreCorrupt: The bytes are not what :func:`encode_failure` gives.
    """
    match _cbor.decode(payload, "failure"):
        case [str(kind), str(message), int(code), dict(metadata)]:
            return _FAILURES.get(kind, TerminalError)(message, code, metadata)
        case other:
            # Not its text: that of an integer of more than 4300 digits is refused by Python.
            kind = type(other).__name__
            raise StoreCorrupt(f"failure: the stored bytes are a `{kind}` that is no failure")


def describe_failure(error: BaseException) -> str:
    """Type and text of any exception: at most 64 KiB, lone surrogates escaped; never fails."""
    text = _text(error)
    name = type(error).__name__
    return _text(f"{name}: {text}" if text else name)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception as broken:
        text = f"(its text can not be shown: {type(broken).__name__})"
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= FAILURE_MESSAGE_BYTES_MAX:
        return encoded.decode()
    return encoded[:FAILURE_MESSAGE_BYTES_MAX].decode("utf-8", "ignore") + "…"
