"""Invocation ids: 16 bytes that sort by time of creation, and their text form.

Layout, big-endian: 48 bits milliseconds since 1970 · 16 bits counter · 64 bits random. Ids made by
one generator ascend strictly, also within a millisecond and when the clock is set back, so the
journals of invocations that run at the same time lie on neighbouring pages of the store. The random
part keeps ids of different generators apart and makes them unguessable if the source is.

The text form is ``inv_`` and 26 characters of lower-case base32 in the order-preserving alphabet
(base32hex, RFC 4648 §7): texts sort as the bytes do.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final, NewType

from perdure.errors import InvalidInput, StoreCorrupt

InvocationId = NewType("InvocationId", bytes)

ID_BYTES: Final = 16
ID_PREFIX: Final = "inv_"
ID_TEXT_LENGTH: Final = len(ID_PREFIX) + 26

_MS_MAX: Final = (1 << 48) - 1
_COUNTER_MAX: Final = (1 << 16) - 1
_RANDOM_BITS: Final = 64

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_PAIRS: Final = [first + second for first in _DIGITS for second in _DIGITS]


class InvocationIdGenerator:
    """Makes ids that ascend.

    Args:
      now_ms: Reads the wall clock, in milliseconds since 1970.
      random_bits: Returns that many random bits, as ``random.Random(seed).getrandbits`` does.

    Not safe for use from several threads at once.
    """

    __slots__ = ("_counter", "_last_ms", "_now_ms", "_random_bits")

    def __init__(self, now_ms: Callable[[], int], random_bits: Callable[[int], int]) -> None:
        self._now_ms = now_ms
        self._random_bits = random_bits
        self._last_ms = -1
        self._counter = 0

    def next(self) -> InvocationId:
        """Return an id greater than every id this generator has made."""
        now_ms = self._now_ms()
        if now_ms > self._last_ms:
            self._last_ms, self._counter = now_ms, 0
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:  # 65,536 ids in one millisecond: borrow from the next, which keeps them ascending.
            self._last_ms, self._counter = self._last_ms + 1, 0
        assert 0 <= self._last_ms <= _MS_MAX, self._last_ms
        number = (
            (self._last_ms << 80)
            | (self._counter << _RANDOM_BITS)
            | self._random_bits(_RANDOM_BITS)
        )
        return InvocationId(number.to_bytes(ID_BYTES, "big"))


def created_at_ms(invocation_id: InvocationId) -> int:
    """Return the time at which the id was made, in milliseconds since 1970."""
    return int.from_bytes(invocation_id[:6], "big")


def format_id(invocation_id: bytes) -> str:
    """Return the text form of 16 bytes.

    Raises:
      StoreCorrupt: They are not 16: the key of a row that is none of perdure's.
    """
    if len(invocation_id) != ID_BYTES:
        raise StoreCorrupt(f"key {invocation_id.hex()} is no id of an invocation")
    # 13 pairs of digits. base64 takes five times as long, and every answer over HTTP has an id.
    n, pair = int.from_bytes(invocation_id, "big") << 2, _PAIRS
    return (
        f"{ID_PREFIX}{pair[n >> 120]}{pair[n >> 110 & 1023]}{pair[n >> 100 & 1023]}"
        f"{pair[n >> 90 & 1023]}{pair[n >> 80 & 1023]}{pair[n >> 70 & 1023]}"
        f"{pair[n >> 60 & 1023]}{pair[n >> 50 & 1023]}{pair[n >> 40 & 1023]}"
        f"{pair[n >> 30 & 1023]}{pair[n >> 20 & 1023]}{pair[n >> 10 & 1023]}{pair[n & 1023]}"
    )


def parse_id(text: object) -> InvocationId:
    """Return the bytes of a text form.

    Raises:
      InvalidInput: It is no text, or the text is not what :func:`format_id` gives for any id.
    """
    if isinstance(text, str) and len(text) == ID_TEXT_LENGTH and text.startswith(ID_PREFIX):
        try:
            decoded = base64.b32hexdecode(text[len(ID_PREFIX) :].upper() + "======")
        except (binascii.Error, ValueError):
            decoded = b""
        # 26 characters hold 130 bits: only the text that comes back is the text of an id.
        if len(decoded) == ID_BYTES and format_id(decoded) == text:
            return InvocationId(decoded)
    shown = repr(text)
    shown = shown if len(shown) <= 80 else shown[:80] + "…"
    raise InvalidInput(
        f"{shown} is not an invocation id; ids look like "
        f"{ID_PREFIX}06d3pdls0000f7hnf6snuijs2k ({ID_PREFIX} and 26 characters 0-9, a-v)"
    )


AWAKEABLE_PREFIX: Final = "awk_"


def format_awakeable(invocation_id: bytes, index: int) -> str:
    """The id of the awakeable that the command at *index* of an invocation's journal made."""
    raw = invocation_id + index.to_bytes(4, "big")
    return AWAKEABLE_PREFIX + base64.b32hexencode(raw).decode("ascii").lower()


def parse_awakeable(text: object) -> tuple[InvocationId, int]:
    """The invocation and the journal index of an awakeable.

    Raises:
      InvalidInput: It is not what :func:`format_awakeable` gives for any awakeable.
    """
    if isinstance(text, str) and text.startswith(AWAKEABLE_PREFIX):
        try:
            raw = base64.b32hexdecode(text[len(AWAKEABLE_PREFIX) :].upper())
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == ID_BYTES + 4:
            invocation_id, index = raw[:ID_BYTES], int.from_bytes(raw[ID_BYTES:], "big")
            if format_awakeable(invocation_id, index) == text:
                return InvocationId(invocation_id), index
    shown = repr(text)
    shown = shown if len(shown) <= 80 else shown[:80] + "…"
    raise InvalidInput(
        f"{shown} is not the id of an awakeable; they are {AWAKEABLE_PREFIX} and 32 characters "
        "0-9, a-v, as ctx.awakeable().id gives them"
    )
