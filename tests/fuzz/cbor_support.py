"""Bytes that are CBOR, or nearly: every head, honest and lying, and values of every type."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

from perdure.serde import UNTYPED

# ---- types ---------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Payment:
    amount: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Spot:
    at: float


class Place(msgspec.Struct):
    name: str
    at: tuple[float, float] | None = None


class Tagged(msgspec.Struct, tag="tagged", array_like=True):
    seen: set[int]


@attrs.define
class Parcel:
    weight: Decimal
    due: dt.date | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    limit: int
    when: dt.datetime


class Order(pydantic.BaseModel):
    number: int
    price: Decimal = Decimal(0)
    lines: list[Pair] = []
    id: UUID | None = None


class Tree(msgspec.Struct):
    branches: list[Tree] = []


integers = st.integers() | st.sampled_from([0, -1, 2**63, 2**64 - 1, -(2**64), 2**64, 10**400])
small = st.integers(-(2**63), 2**64 - 1)
texts = st.text(max_size=30)
zones = st.none() | st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(
    lambda offset: dt.timezone(dt.timedelta(seconds=round(offset.total_seconds())))
)
datetimes = st.datetimes(timezones=zones)
decimals = st.decimals(allow_nan=False)
maybe = st.none


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


pairs = st.builds(Pair, small, texts)
floats = st.floats(allow_nan=False)
trees = st.recursive(
    st.builds(Tree), lambda inner: st.builds(Tree, st.lists(inner, max_size=3)), max_leaves=8
)
leaves: st.SearchStrategy[Any] = st.one_of(
    *(st.none(), st.booleans(), integers, floats, texts, st.binary(max_size=30), datetimes),
    *(st.dates(), st.times(), st.timedeltas(), st.uuids(), decimals),
)
untyped = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (UNTYPED, untyped),
    (None, st.none()),
    (bool, st.booleans()),
    (int, integers),
    (float, floats),
    (str, texts),
    (bytes, st.binary(max_size=60)),
    (bytearray, st.binary(max_size=60).map(bytearray)),
    (dt.datetime, datetimes),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, decimals),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", "b", 1], st.sampled_from(["a", "b", 1])),
    (int | str | None, optional(small | texts)),
    (list[int], st.lists(small, max_size=5)),
    (tuple[int, ...], st.lists(small, max_size=5).map(tuple)),
    (tuple[int, str], st.tuples(small, texts)),
    (set[str], st.sets(texts, max_size=5)),
    (frozenset[int], st.frozensets(small, max_size=5)),
    (dict[str, list[float]], st.dictionaries(texts, st.lists(floats, max_size=3), max_size=4)),
    (dict[int, dt.date], st.dictionaries(small, st.dates(), max_size=4)),
    (Payment, st.builds(Payment, small, texts)),
    (Place, st.builds(Place, texts, optional(st.tuples(floats, floats)))),
    (Tagged, st.builds(Tagged, st.sets(small, max_size=4))),
    (Parcel, st.builds(Parcel, decimals, optional(st.dates()))),
    (Pair, pairs),
    (Options, st.fixed_dictionaries({}, optional={"limit": small, "when": datetimes})),
    (Tree, trees),
    (set[Spot], st.sets(st.builds(Spot, floats), max_size=3)),
    (dict[Spot, str], st.dictionaries(st.builds(Spot, floats), texts, max_size=3)),
    (list[Payment | None], st.lists(optional(st.builds(Payment, small, texts)), max_size=3)),
    (
        Order,
        st.builds(
            Order,
            number=small,
            price=decimals.filter(Decimal.is_finite),
            lines=st.lists(pairs, max_size=2),
            id=optional(st.uuids()),
        ),
    ),
]
TYPES = [annotation for annotation, _ in VALUES]

# ---- bytes ---------------------------------------------------------------------------------------

# Those of perdure; those that cbor2 knows and perdure does not; and some that nobody does.
TAGS = [
    *(0, 2, 3, 4, 37, 258, 1004, 1885696612, 1885696613, 1885696614, 1885696615),
    *(1, 5, 25, 28, 29, 30, 35, 36, 52, 54, 100, 256, 260, 261, 43000, 55799),
    *(6, 24, 999, 1885696616, 2**32, 2**64 - 1),
]
TEXTS = [
    *("2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00:01", "03:04", "1e999999999"),
    *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "NaN", "-0", "sNaN", "1" * 5000),
    *("name", "amount", "note", "at", "branches", "limit", "number", "price", "lines", "tagged"),
    *("(a+)+$", "Content-Type: text/plain\n\nx", "os.system", "__class__", "", "\0", "é" * 30),
]


def head(major: int, number: int, width: int | None = None) -> bytes:
    """The head of an item; *width* more bytes than needed are allowed by CBOR."""
    if width is None:
        width = next(each for each in (0, 1, 2, 4, 8) if number < (24 if not each else 256**each))
    if width == 0:
        return bytes([major << 5 | number])
    return bytes([major << 5 | 23 + (1, 2, 4, 8).index(width) + 1]) + number.to_bytes(width, "big")


lengths = st.sampled_from([2**16, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
numbers = st.integers(0, 2**64 - 1) | st.integers(0, 30) | lengths
scalars = st.one_of(
    st.builds(head, st.sampled_from([0, 1]), numbers),
    st.builds(head, st.sampled_from([0, 1]), st.integers(0, 255), st.sampled_from([1, 2, 4, 8])),
    st.sampled_from([bytes([7 << 5 | low]) for low in range(32)]),  # also break and reserved
    st.binary(min_size=2, max_size=2).map(b"\xf9".__add__),
    st.binary(min_size=8, max_size=8).map(b"\xfb".__add__),
    st.binary(min_size=1, max_size=1).map(b"\xf8".__add__),
)
strings = st.one_of(
    st.sampled_from(TEXTS).map(lambda text: head(3, len(text.encode())) + text.encode()),
    st.binary(max_size=20).map(lambda data: head(3, len(data)) + data),  # most are no UTF-8
    st.binary(max_size=20).map(lambda data: head(2, len(data)) + data),
    st.builds(lambda major, number: head(major, number) + b"abc", st.sampled_from([2, 3]), lengths),
    st.sampled_from([b"\x7f\x61a\x61b\xff", b"\x5f\x41a\xff", b"\x7f\x41a\xff", b"\x7f\xff"]),
)


def containers(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    several = st.lists(inner, max_size=4)
    return st.one_of(
        several.map(lambda items: head(4, len(items)) + b"".join(items)),
        several.map(lambda items: b"\x9f" + b"".join(items) + b"\xff"),
        several.map(lambda items: head(5, len(items) // 2) + b"".join(items)),
        several.map(lambda items: b"\xbf" + b"".join(items) + b"\xff"),
        st.builds(lambda key, a, b: b"\xa2" + key + a + key + b, strings, inner, inner),
        st.builds(lambda tag, item: head(6, tag) + item, st.sampled_from(TAGS), inner),
        st.builds(
            lambda major, n, item: head(major, n) + item, st.sampled_from([4, 5]), lengths, inner
        ),
        st.builds(
            lambda level, depth, item: level * depth + item,
            st.sampled_from([b"\x81", b"\xa1\x00", b"\x9f", b"\xd9\x01\x02\x81", b"\xc1", b"\xa1"]),
            st.sampled_from([100, 127, 128, 129, 399, 1000, 100_000]),
            inner,
        ),
    )


payloads = st.recursive(scalars | strings, containers, max_leaves=10)
