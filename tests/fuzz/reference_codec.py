"""The entry codec once more: slow, plain, written from the format's description alone.

A chunk is 0x00, a count, entries. An entry is kind, flags, presence, then the fields whose presence
bit is set: ref (1), name (2), payload (4), time (8), site (16). Numbers are LEB128 of the least
length; name and payload are a length and bytes. 0 and '' are absent; an empty payload is present.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Entry: TypeAlias = tuple[int, int, str, bytes | None, int, int, int]
LENGTH_MAX = 1 << 30


class Bad(Exception):
    """These bytes are no chunk."""


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(entries: Sequence[Entry]) -> bytes:
    out = bytearray(b"\0" + varint(len(entries)))
    for kind, ref, name, payload, time_ms, site, flags in entries:
        fields: list[bytes | None] = [
            varint(ref) if ref else None,
            varint(len(name.encode())) + name.encode() if name else None,
            varint(len(payload)) + payload if payload is not None else None,
            varint(time_ms) if time_ms else None,
            varint(site) if site else None,
        ]
        presence = sum(1 << bit for bit, field in enumerate(fields) if field is not None)
        out += bytes([kind, flags, presence]) + b"".join(field for field in fields if field)
    return bytes(out)


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0

    def take(self, count: int) -> bytes:
        if self.pos + count > len(self.data):
            raise Bad
        self.pos += count
        return self.data[self.pos - count : self.pos]

    def varint(self, most: int) -> int:
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise Bad
        if value > most or (byte == 0 and shift):
            raise Bad
        return value

    def nonzero(self, most: int) -> int:
        value = self.varint(most)
        if value == 0:
            raise Bad
        return value


def decode(chunk: bytes) -> list[Entry]:
    cursor = Cursor(chunk)
    if cursor.take(1) != b"\0":
        raise Bad
    count = cursor.varint(2**64 - 1)
    if count > len(chunk):
        raise Bad
    entries: list[Entry] = []
    for _ in range(count):
        kind, flags, presence = cursor.take(3)
        if kind == 0 or presence > 31:
            raise Bad
        ref = cursor.nonzero(2**32 - 1) if presence & 1 else 0
        name = ""
        if presence & 2:
            try:
                name = cursor.take(cursor.varint(LENGTH_MAX)).decode()
            except UnicodeDecodeError:
                raise Bad from None
            if not name:
                raise Bad
        payload = cursor.take(cursor.varint(LENGTH_MAX)) if presence & 4 else None
        time_ms = cursor.nonzero(2**64 - 1) if presence & 8 else 0
        site = cursor.nonzero(2**32 - 1) if presence & 16 else 0
        entries.append((kind, ref, name, payload, time_ms, site, flags))
    if cursor.pos != len(chunk):
        raise Bad
    return entries
