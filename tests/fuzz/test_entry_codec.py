"""The entry codec against the slow one, and against bytes of every kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import reference_codec as reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure._journal import crc32c, crc32c_portable, decode_entries, encode_entries
from perdure.errors import StoreCorrupt


class Entry(NamedTuple):
    kind: int
    ref: int
    name: str
    payload: bytes | None
    time_ms: int
    site: int
    flags: int


def numbers(bits: int) -> st.SearchStrategy[int]:
    edges = [0, *(2**power + delta for power in range(0, bits, 7) for delta in (-1, 0, 1))]
    top = 2**bits - 1
    return st.sampled_from([edge for edge in edges if 0 <= edge <= top] + [top]) | st.integers(
        0, top
    )


entry_tuples = st.tuples(
    st.integers(1, 255),
    numbers(32),
    st.text(max_size=200),
    st.none() | st.binary(max_size=300),
    numbers(64),
    numbers(32),
    st.integers(0, 255),
)
entry_lists = st.lists(entry_tuples, max_size=20)
PLAIN: tuple[int, int, str, bytes | None, int, int, int] = (1, 0, "", None, 0, 0, 0)


@given(entry_lists)
@example([])
@example([PLAIN] * 300)
def test_entries_are_encoded_as_the_reference_does(entries: list[reference.Entry]) -> None:
    assert encode_entries(entries) == reference.encode(entries)


@given(entry_lists)
def test_decoding_gives_back_what_was_encoded(entries: list[reference.Entry]) -> None:
    chunk = encode_entries(entries)
    assert decode_entries(chunk) == entries
    made = decode_entries(chunk, Entry)
    assert made == entries
    assert all(type(entry) is Entry for entry in made)


def assert_agrees_with_the_reference(chunk: bytes) -> None:
    try:
        expected = reference.decode(chunk)
    except reference.Bad:
        with pytest.raises(StoreCorrupt):
            decode_entries(chunk)
        return
    decoded = decode_entries(chunk, Entry)
    assert decoded == expected
    assert encode_entries(decoded) == chunk


@given(st.binary(max_size=400))
@settings(max_examples=1000)
def test_any_bytes_are_entries_or_corrupt(chunk: bytes) -> None:
    assert_agrees_with_the_reference(chunk)
    assert_agrees_with_the_reference(b"\0" + chunk)
    assert_agrees_with_the_reference(b"\0\x01" + chunk)


@given(entry_lists.filter(bool), st.data())
@settings(max_examples=1000)
def test_a_mutated_chunk_is_entries_or_corrupt(
    entries: list[reference.Entry], data: st.DataObject
) -> None:
    chunk = bytearray(encode_entries(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(chunk) - 1))
        match data.draw(st.sampled_from(["flip", "set", "insert", "delete", "cut"])):
            case "flip":
                chunk[position] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                chunk[position] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
            case "insert":
                chunk.insert(position, data.draw(st.sampled_from([0, 0x80, 0xFF])))
            case "delete" if len(chunk) > 1:
                del chunk[position]
            case "cut" if position:
                del chunk[position:]
            case _:
                pass
    assert_agrees_with_the_reference(bytes(chunk))


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (b"", "middle of a field"),
        (b"\x01\x00", "payload codec"),
        (b"\0\x81\x00\x01\0\0", "longer than needed"),
        (b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more entries than"),
        (b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "too large"),
        (b"\0\x01\0\0\0", "kind 0"),
        (b"\0\x01\x01\0\x20", "does not know"),
        (b"\0\x01\x01\0\x01\0", "field that is empty"),
        (b"\0\x01\x01\0\x02\0", "field that is empty"),
        (b"\0\x01\x01\0\x02\x01\xff", "not UTF-8"),
        (b"\0\x01\x01\0\x02\x03\xed\xa0\x80", "not UTF-8"),
        (b"\0\x01\x01\0\x04\x05abc", "middle of a field"),
        (b"\0\x01\x01\0\x04\xff\xff\xff\xff\x7f", "too large"),
        (b"\0\x01\x01\0\x01\xff\xff\xff\xff\x1f", "too large"),
        (b"\0\x01\x01\0\0\0", "follow the last entry"),
    ],
)
def test_a_bad_chunk_says_what_is_wrong(chunk: bytes, why: str) -> None:
    with pytest.raises(StoreCorrupt, match=why):
        decode_entries(chunk)


def replaced(index: int, value: object) -> tuple[Any, ...]:
    return (*PLAIN[:index], value, *PLAIN[index + 1 :])


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (replaced(0, 0), ValueError),
        (replaced(0, 256), OverflowError),
        (replaced(0, -1), OverflowError),
        (replaced(0, "1"), TypeError),
        (replaced(1, 2**32), OverflowError),
        (replaced(1, None), TypeError),
        (replaced(1, 1.0), TypeError),
        (replaced(2, b"name"), TypeError),
        (replaced(2, None), TypeError),
        (replaced(2, "\ud800"), ValueError),
        (replaced(3, "text"), TypeError),
        (replaced(3, bytearray(b"x")), TypeError),
        (replaced(4, 2**64), OverflowError),
        (replaced(5, 2**32), OverflowError),
        (replaced(6, 256), OverflowError),
        (PLAIN[:6], TypeError),
        ((*PLAIN, 0), TypeError),
        (list(PLAIN), TypeError),
        (None, TypeError),
    ],
)
def test_a_value_that_does_not_fit_is_refused(entry: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_entries([PLAIN, entry])


def test_entries_may_be_any_iterable_of_tuples() -> None:
    assert encode_entries(iter([PLAIN, PLAIN])) == encode_entries((PLAIN, PLAIN))
    with pytest.raises(TypeError):
        encode_entries(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [int, list, "tuple", 7])
def test_entries_are_made_as_tuples_only(make: Any) -> None:
    with pytest.raises(TypeError, match="subclass of tuple"):
        decode_entries(b"\0\0", make)


def crc32c_by_bits(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_checksum_is_crc_32c_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"\0" * 32) == 0x8A9136AA
    assert crc32c(b"") == 0


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_both_checksum_routines_agree_with_the_definition(left: bytes, right: bytes) -> None:
    whole = crc32c_by_bits(left + right)
    assert crc32c(right, crc32c(left)) == whole
    assert crc32c_portable(right, crc32c_portable(left)) == whole
