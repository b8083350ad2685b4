"""Journal entries: what was asked (commands) and what the world answered (notifications).

The journal of an invocation is a sequence of *activations*. Each is one notification, stamped with
the time of its delivery, followed by the commands the handler issued until it was idle again.
Every entry has an index, counted from 0 over the whole journal; the index of a command is the
identity of the operation it began, and notifications name it in ``ref``.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

LOGIC_VERSION = 1
"""What replay does. Raised only after released readers understand the new behaviour."""

PAYLOAD_KEPT_MAX = 4096
"""Bytes of a compared payload that the entry itself keeps; longer ones leave digest and length."""


class Kind:
    """The numbers are the journal format: never reused, never renumbered.

    Plain integers: an enum's attributes and comparisons cost more than the work around them.
    """

    # Notifications: the world answers. Each begins an activation; time_ms is its delivery.
    START: Final = 1  # ref: logic version; name: Python minor version
    STEP_DONE: Final = 2
    TIMER_FIRED: Final = 3
    PROMISE_DONE: Final = 4
    CALL_DONE: Final = 5  # of a call, or of what was attached to
    AWAKEABLE_DONE: Final = 6
    SIGNAL_DONE: Final = 7
    CANCELLED: Final = 8  # somebody asks for the end of the invocation; no ref

    # Commands: the handler asks.
    OUTPUT: Final = 32
    RUN: Final = 33
    TIMER: Final = 34  # time_ms: the deadline
    PROMISE_AWAIT: Final = 35
    CANCEL: Final = 36  # ref: the operation that ends
    CALL: Final = 37  # name: the target; payload: the argument
    AWAKEABLE: Final = 38
    SIGNAL_AWAIT: Final = 39
    ATTACH: Final = 40  # name: id of the invocation
    SEND: Final = 41  # as CALL; time_ms: when it is to begin, where it is delayed
    CANCEL_INVOCATION: Final = 42  # name: its id
    # Commands that complete within their activation: the answer is in the entry itself.
    PROMISE_PEEK: Final = 48
    PROMISE_RESOLVE: Final = 49
    PROMISE_REJECT: Final = 50
    STATE_GET: Final = 51
    STATE_KEYS: Final = 52
    STATE_SET: Final = 53
    STATE_CLEAR: Final = 54
    STATE_CLEAR_ALL: Final = 55
    LOOK_UP: Final = 56  # name: a target; payload: id of the invocation it stands for, if any
    AWAKEABLE_RESOLVE: Final = 57  # name: id of the awakeable
    AWAKEABLE_REJECT: Final = 58
    PATCHED: Final = 59  # recorded where the answer is yes


FIRST_COMMAND = Kind.OUTPUT


class Flag:
    """Bits of an entry's flags."""

    FAILED: Final = 1  # the payload is an encoded failure
    DIGEST: Final = 2  # the payload is BLAKE2b-128 and length of the real one
    REFUSED: Final = 4  # the command had no effect: what it completes was completed before


class Entry(NamedTuple):
    """One journal entry, in the field order of the codec; zero and '' stand for 'none'."""

    kind: int
    ref: int = 0
    name: str = ""
    payload: bytes | None = None
    time_ms: int = 0
    site: int = 0
    flags: int = 0


new_entry: Callable[[tuple[Any, ...]], Entry] = functools.partial(tuple.__new__, Entry)
"""An entry of seven fields: the fast way, where there are many."""


def kept(entry: Entry) -> Entry:
    """The form of *entry* that the journal keeps: long compared payloads as digest and length."""
    payload = entry.payload
    if payload is None or len(payload) <= PAYLOAD_KEPT_MAX or entry.kind not in COMPARED:
        return entry
    return entry._replace(payload=digest(payload), flags=entry.flags | Flag.DIGEST)


def digest(payload: bytes) -> bytes:
    """16 bytes of BLAKE2b and the length, 8 bytes big-endian."""
    return hashlib.blake2b(payload, digest_size=16).digest() + len(payload).to_bytes(8, "big")


COMPARED = frozenset(
    {
        *(Kind.PROMISE_RESOLVE, Kind.PROMISE_REJECT, Kind.STATE_SET, Kind.CALL, Kind.SEND),
        *(Kind.AWAKEABLE_RESOLVE, Kind.AWAKEABLE_REJECT),
    }
)
"""Commands whose payload replay compares."""

_WORDS = {
    Kind.START: "start",
    Kind.STEP_DONE: "step done",
    Kind.TIMER_FIRED: "timer fired",
    Kind.PROMISE_DONE: "promise completed",
    Kind.CALL_DONE: "call completed",
    Kind.AWAKEABLE_DONE: "awakeable completed",
    Kind.SIGNAL_DONE: "signal",
    Kind.CANCELLED: "cancellation",
    Kind.OUTPUT: "return",
    Kind.RUN: "step",
    Kind.TIMER: "timer",
    Kind.PROMISE_AWAIT: "wait for promise",
    Kind.CANCEL: "cancel",
    Kind.CALL: "call",
    Kind.AWAKEABLE: "awakeable",
    Kind.SIGNAL_AWAIT: "wait for signal",
    Kind.ATTACH: "attach to",
    Kind.SEND: "send",
    Kind.CANCEL_INVOCATION: "cancel invocation",
    Kind.PROMISE_PEEK: "peek at promise",
    Kind.PROMISE_RESOLVE: "resolve promise",
    Kind.PROMISE_REJECT: "reject promise",
    Kind.STATE_GET: "get state",
    Kind.STATE_KEYS: "list state keys",
    Kind.STATE_SET: "set state",
    Kind.STATE_CLEAR: "clear state",
    Kind.STATE_CLEAR_ALL: "clear all state",
    Kind.LOOK_UP: "look up",
    Kind.AWAKEABLE_RESOLVE: "resolve awakeable",
    Kind.AWAKEABLE_REJECT: "reject awakeable",
    Kind.PATCHED: "patched",
}


def word(kind: int) -> str:
    """The term of *kind* for people."""
    return _WORDS.get(kind) or f"entry kind {kind}"


def describe(entry: Entry) -> str:
    """One line for people: ``step 'charge card'``."""
    text = word(entry.kind)
    if entry.name and entry.kind != Kind.START:
        text += f" {entry.name!r}"
    if entry.kind == Kind.CANCEL or (entry.ref and entry.kind < FIRST_COMMAND and entry.kind > 1):
        text += f" of entry {entry.ref}"
    return text


def encode_names(names: list[str]) -> bytes:
    """State keys as one payload: each as 2 bytes of length, big-endian, and its UTF-8."""
    parts: list[bytes] = []
    for name in names:
        raw = name.encode()
        parts += (len(raw).to_bytes(2, "big"), raw)
    return b"".join(parts)


def decode_names(payload: bytes) -> list[str]:
    """The inverse of :func:`encode_names`."""
    names: list[str] = []
    position = 0
    while position < len(payload):
        length = int.from_bytes(payload[position : position + 2], "big")
        names.append(payload[position + 2 : position + 2 + length].decode())
        position += 2 + length
    return names
