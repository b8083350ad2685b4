"""What a handler asks of other invocations, and the ids of those it begins."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Outgoing(NamedTuple):
    """A call or a send, beside what its journal entry has.

    Attributes:
      child: Id of the invocation it begins.
    """

    service: str
    handler: str
    key: str
    child: bytes
    headers: dict[str, str]
    idempotency_key: str | None

    @property
    def target(self) -> str:
        return target_name(self.service, self.handler, self.key)


def target_name(service: str, handler: str, key: str) -> str:
    """What the journal calls a target; names of services and handlers have no slash."""
    return f"{service}.{handler}/{key}" if key else f"{service}.{handler}"


def child_id(parent: bytes, index: int, time_ms: int) -> bytes:
    """The id of the invocation that the command at *index* of *parent*'s journal begins.

    It is a function of the journal, which need not record it. Like all ids it begins with the time,
    so that the journals of what runs at one time lie side by side.
    """
    unique = hashlib.blake2b(parent + index.to_bytes(4, "big"), digest_size=8).digest()
    stamp = (time_ms & (1 << 48) - 1) << 16 | index & 0xFFFF
    return stamp.to_bytes(8, "big") + unique
