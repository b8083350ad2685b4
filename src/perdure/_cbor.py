"""Plain values <-> CBOR bytes, without types.

Theory of operation. Encoding is canonical: one value has one encoding in every process, because
replay compares bytes. So sets are written in the order of their encoded elements (their own order
depends on PYTHONHASHSEED), dicts in insertion order; every other rule is fixed here and not left
to cbor2, which differs between releases. A container that holds nothing but scalars goes to cbor2's
C code whole; two ``issuperset(map(type, ...))`` calls find that out without a Python loop. All else
is written piece by piece by the encoder of its class, which is made once per class.

Standard tags: 0 aware datetime · 2, 3 large integers · 4 Decimal · 37 UUID · 258 set · 1004 date.
Tags of ours, for what CBOR has no tag for, all carrying text or integers:

    1885696612  datetime in ISO format: naive, or with an offset that has seconds
    1885696613  time in ISO format
    1885696614  timedelta: [days, seconds, microseconds]
    1885696615  Decimal as text: NaN, infinity, negative zero

No other tag is accepted when decoding (shared references, regular expressions, addresses, ...).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import cbor2
import msgspec
from cbor2 import dumps, loads

from perdure._flat import SCALARS, encode_flat
from perdure._limits import NESTING_MAX
from perdure.errors import StoreCorrupt

_LEAVES: Final = SCALARS | {
    *(dt.datetime, dt.date, dt.time, dt.timedelta),
    *(uuid.UUID, decimal.Decimal),
}

_SUPPORTED: Final = (
    "None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, datetime, "
    "date, time, timedelta, UUID, Decimal, Enum, dataclasses, msgspec.Struct, attrs classes, "
    "NamedTuple, TypedDict and pydantic models"
)

_ARRAY: Final = 4
_MAP: Final = 5
_TAG: Final = 6

_TAG_DATETIME: Final = 1885696612
_TAG_TIME: Final = 1885696613
_TAG_TIMEDELTA: Final = 1885696614
_TAG_DECIMAL: Final = 1885696615

_Encoder = Callable[[Any, int], bytes]  # Any: each encoder takes values of its own class.


class Unstorable(Exception):
    """A value has no plain form. ``path`` names the part, outermost step first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        steps = self.path if len(self.path) <= 12 else [*self.path[:6], "…"]
        return f"{self.reason} - at `${''.join(steps)}`" if steps else self.reason


def encode(value: object) -> bytes:
    """Encode a value; any refusal is :class:`Unstorable`."""
    payload = encode_flat(value)
    if payload is not None:
        return payload
    try:
        return _encode(value, 0)
    except UnicodeEncodeError as error:
        shown = ascii(error.object)
        raise Unstorable(
            f"cannot store the text {shown if len(shown) <= 60 else shown[:60] + '…'}: "
            "it holds a lone surrogate, which UTF-8 cannot express"
        ) from error
    except RecursionError as error:
        raise Unstorable(_TOO_DEEP) from error


def decode(payload: bytes, place: object) -> Any:
    """Decode a payload to builtins, datetime, date, time, timedelta, UUID and Decimal.

    Raises:
      StoreCorrupt: The bytes are not CBOR, or are CBOR that perdure never writes.
    """
    try:
        size = len(payload)
        if len(payload.translate(None, _SUSPECT_BYTES)) == size:
            return loads(payload)
        if len(payload.translate(None, _TAG_BYTES)) == size:
            value = loads(payload)
        else:
            value = loads(payload, tag_hook=_decode_tag, **_LOADS_OPTIONS)
        kind = type(value)
        if kind not in _LEAVES:
            _require_plain(value, kind, NESTING_MAX)
    # cbor2 raises what a tag's own decoder raised, in some releases: every failure is the bytes'.
    except Exception as error:
        raise StoreCorrupt(f"{place}: the stored bytes are not a value: {error}") from error
    return value


# A payload without the bytes that begin a tag, undefined or a simple value has none of them: only
# payloads with such bytes, be it inside a text, pay for the checks.
_TAG_BYTES: Final = bytes(range(0xC0, 0xDC))
_SUSPECT_BYTES: Final = _TAG_BYTES + bytes((*range(0xE0, 0xF4), 0xF7, 0xF8))

_TOO_DEEP: Final = (
    f"cannot store a value nested deeper than {NESTING_MAX} levels; does it contain itself?"
)


def _encode(value: object, depth: int) -> bytes:
    kind = type(value)
    if kind in SCALARS:
        return dumps(value)
    if depth >= NESTING_MAX:
        raise Unstorable(_TOO_DEEP)
    encoder = _encoders.get(kind)
    if encoder is None:
        encoder = _encoders[kind] = _encoder_for(kind)
    return encoder(value, depth + 1)


def _head(major: int, number: int) -> bytes:
    """Return the head of a CBOR item (RFC 8949 §3) in its shortest form."""
    first = major << 5
    if number < 24:
        return bytes((first | number,))
    if number < 0x100:
        return bytes((first | 24, number))
    if number < 0x10000:
        return bytes((first | 25,)) + number.to_bytes(2, "big")
    if number < 0x100000000:
        return bytes((first | 26,)) + number.to_bytes(4, "big")
    return bytes((first | 27,)) + number.to_bytes(8, "big")


_HEAD_DATETIME: Final = _head(_TAG, _TAG_DATETIME)
_HEAD_TIME: Final = _head(_TAG, _TAG_TIME)
_HEAD_TIMEDELTA: Final = _head(_TAG, _TAG_TIMEDELTA)
_HEAD_DECIMAL: Final = _head(_TAG, _TAG_DECIMAL)
_HEAD_INSTANT: Final = _head(_TAG, 0)
_HEAD_SET: Final = _head(_TAG, 258)
_HEAD_DATE: Final = _head(_TAG, 1004)
_HEAD_UUID: Final = _head(_TAG, 37)


def _encode_dict(value: Mapping[Any, Any], depth: int) -> bytes:
    if SCALARS.issuperset(map(type, value.values())) and SCALARS.issuperset(map(type, value)):
        return dumps(value)
    keys: set[bytes] = set()
    parts = [_head(_MAP, len(value))]
    for key, item in value.items():
        try:
            encoded_key = _encode(key, depth)
            parts += encoded_key, _encode(item, depth)
        except Unstorable as error:
            error.path.insert(0, f".{key:.40}" if isinstance(key, str) else f"[{key!r:.40}]")
            raise
        keys.add(encoded_key)
    if len(keys) != len(value):
        raise Unstorable("cannot store a dict two keys of which have one plain form")
    return b"".join(parts)


def _encode_array(value: Iterable[Any], depth: int) -> bytes:
    items = value if type(value) in (list, tuple) else list(value)
    assert isinstance(items, (list, tuple))
    if SCALARS.issuperset(map(type, items)):
        return dumps(items)
    return _head(_ARRAY, len(items)) + b"".join(_encode_items(items, depth))


def _encode_items(items: Iterable[Any], depth: int) -> list[bytes]:
    parts = []
    for index, item in enumerate(items):
        try:
            parts.append(_encode(item, depth))
        except Unstorable as error:
            error.path.insert(0, f"[{index}]")
            raise
    return parts


def _encode_set(value: Iterable[Any], depth: int) -> bytes:
    # Elements that differ may have one plain form (an Enum member and its value): one remains.
    parts = sorted({_encode(item, depth) for item in value})
    return _HEAD_SET + _head(_ARRAY, len(parts)) + b"".join(parts)


def _encode_datetime(value: dt.datetime, _depth: int) -> bytes:
    offset = value.utcoffset()
    text = dt.datetime.isoformat(value)
    if offset is None or offset % dt.timedelta(minutes=1):
        return _HEAD_DATETIME + dumps(text)
    return _HEAD_INSTANT + dumps(text if offset else text[:-6] + "Z")


def _encode_timedelta(value: dt.timedelta, _depth: int) -> bytes:
    return _HEAD_TIMEDELTA + dumps([value.days, value.seconds, value.microseconds])


def _encode_decimal(value: decimal.Decimal, _depth: int) -> bytes:
    if not value.is_finite() or (value.is_signed() and not value):
        return _HEAD_DECIMAL + dumps(str(value))
    return dumps(decimal.Decimal(value))


_encoders: dict[type, _Encoder] = {
    dict: _encode_dict,
    list: _encode_array,
    tuple: _encode_array,
    set: _encode_set,
    frozenset: _encode_set,
}

# In this order, because of subclasses: a StrEnum is an Enum first, a datetime is also a date.
_FAMILIES: Final[tuple[tuple[type, _Encoder], ...]] = (
    (enum.Enum, lambda value, depth: _encode(value.value, depth)),
    (dt.datetime, _encode_datetime),
    (dt.date, lambda value, _: _HEAD_DATE + dumps(dt.date.isoformat(value))),
    (dt.time, lambda value, _: _HEAD_TIME + dumps(dt.time.isoformat(value))),
    (dt.timedelta, _encode_timedelta),
    (uuid.UUID, lambda value, _: _HEAD_UUID + dumps(value.bytes)),
    (decimal.Decimal, _encode_decimal),
    (str, lambda value, _: dumps(str.__str__(value))),
    (bytes, lambda value, _: dumps(bytes.__getitem__(value, slice(None)))),
    (bytearray, lambda value, _: dumps(bytes(value))),
    (int, lambda value, _: dumps(int.__int__(value))),
    (float, lambda value, _: dumps(float.__float__(value))),
    (Mapping, lambda value, depth: _encode_dict(dict(value), depth)),
    (list, _encode_array),
    (tuple, _encode_array),
    (set, _encode_set),
    (frozenset, _encode_set),
)


def _encoder_for(kind: type) -> _Encoder:
    for family, encoder in _FAMILIES:
        if issubclass(kind, family):
            return encoder
    if issubclass(kind, msgspec.Struct):
        return _struct_encoder(kind)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return _fields_encoder([(name, name) for name in names], {})
    if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        return _fields_encoder([(field.name, field.name) for field in attributes], {})
    if hasattr(kind, "model_fields") and hasattr(kind, "model_validate"):
        return _pydantic_encoder(kind)
    if _is_text_to_pydantic(kind):
        return lambda value, _: dumps(str(value))
    raise Unstorable(f"cannot store a {_described(kind)}; supported are {_SUPPORTED}")


def _described(kind: type) -> str:
    module = kind.__module__
    name = kind.__qualname__
    return f"`{name}`" if module in ("builtins", "__main__") else f"`{module}.{name}`"


def _fields_encoder(fields: list[tuple[str, str]], constants: dict[str, Any]) -> _Encoder:
    """Return the encoder of a record class: *fields* are (attribute, name in the map)."""

    def encode_fields(value: object, depth: int) -> bytes:
        plain = dict(constants)
        for attribute, name in fields:
            item = getattr(value, attribute, msgspec.UNSET)
            if item is not msgspec.UNSET:
                plain[name] = item
        return _encode_dict(plain, depth)

    return encode_fields


def _struct_encoder(kind: type[msgspec.Struct]) -> _Encoder:
    attributes = kind.__struct_fields__
    config = kind.__struct_config__
    tag = [] if config.tag is None else [config.tag]
    if config.array_like:
        return lambda value, depth: _encode_array(
            [*tag, *(getattr(value, attribute) for attribute in attributes)], depth
        )
    constants = {config.tag_field: config.tag} if config.tag_field and tag else {}
    names = kind.__struct_encode_fields__
    return _fields_encoder(list(zip(attributes, names, strict=True)), constants)


def _pydantic_encoder(kind: Any) -> _Encoder:  # Any: pydantic may not be installed.
    if getattr(kind, "__pydantic_root_model__", False):
        return lambda value, depth: _encode(value.root, depth)
    # By the name under which validation looks for the field, so that decoding finds it.
    fields = [(name, _validation_name(name, field)) for name, field in kind.model_fields.items()]
    encode_fields = _fields_encoder(fields, {})
    if kind.model_config.get("extra") != "allow":
        return encode_fields

    def encode_with_extra(value: Any, depth: int) -> bytes:
        plain = {alias: getattr(value, name) for name, alias in fields}
        return _encode_dict(plain | (value.model_extra or {}), depth)

    return encode_with_extra


def _validation_name(name: str, field: Any) -> str:  # Any: a pydantic FieldInfo.
    alias = field.validation_alias
    choices = getattr(alias, "choices", None) or [alias]
    return next((choice for choice in [*choices, field.alias] if isinstance(choice, str)), name)


def _is_text_to_pydantic(kind: type) -> bool:
    """Tell classes that a pydantic model holds, and validates from their text: URLs and paths."""
    modules = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if "pydantic_core" in modules or "pydantic" in modules:
        return any(base.__name__.endswith(("Url", "Dsn", "UrlBase")) for base in kind.__mro__)
    return bool(modules & {"pathlib", "ipaddress"})


def _decode_tag(*args: Any) -> object:
    """Decode a tag of ours; cbor2 5 calls with (decoder, tag), cbor2 6 with (tag, immutable)."""
    tag = args[0] if isinstance(args[0], cbor2.CBORTag) else args[1]
    number, content = tag.tag, tag.value
    if number == _TAG_DATETIME:
        return dt.datetime.fromisoformat(content)
    if number == _TAG_TIME:
        return dt.time.fromisoformat(content)
    if number == _TAG_TIMEDELTA:
        days, seconds, microseconds = content
        return dt.timedelta(days, seconds, microseconds)
    if number == _TAG_DECIMAL and isinstance(content, str):
        return decimal.Decimal(content)
    raise ValueError(f"tag {number} is none that perdure writes")


def _refuse_tag(*_args: object) -> object:
    raise ValueError("this tag is none that perdure writes")


# cbor2 6 can be told to refuse the tags it knows; with cbor2 5 they are decoded, and what is not
# plain is found by _require_plain.
_REFUSED_TAGS: Final = (
    *(1, 5, 25, 28, 29, 30, 35, 36, 52, 54, 100, 256, 260, 261),
    *(43000, 55799),
)
_LOADS_OPTIONS: Final[dict[str, Any]] = (
    {"semantic_decoders": dict.fromkeys(_REFUSED_TAGS, _refuse_tag)}
    if hasattr(cbor2, "frozendict")
    else {}
)


# What cbor2 makes of a map that is a key, or within one or a set: a frozen dataclass, when written.
_FROZEN_MAP: Final = getattr(cbor2, "frozendict", dict)


def _require_plain(value: Any, kind: type, depth: int) -> None:
    """Refuse what cbor2 decodes and perdure never writes: undefined, simple values."""
    if depth <= 0:
        raise ValueError(f"nested deeper than {NESTING_MAX} levels")
    if kind is dict or kind is _FROZEN_MAP:
        if not _LEAVES.issuperset(map(type, value)):
            for key in value:
                if type(key) not in _LEAVES:
                    _require_plain(key, type(key), depth - 1)
        items = value.values()
    elif kind is list or kind is tuple or kind is set or kind is frozenset:
        items = value
    else:
        raise ValueError(f"{kind.__name__} is none of the values perdure writes")
    if not _LEAVES.issuperset(map(type, items)):
        for item in items:
            if type(item) not in _LEAVES:
                _require_plain(item, type(item), depth - 1)
