"""Comparing what the code does with what its journal recorded."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from perdure._core._entries import COMPARED, Entry, Flag, Kind, describe, digest
from perdure.errors import NondeterminismError

WENT_IDLE = "went idle without a further command"
"""What the code did, where the journal goes on."""

Recode = Callable[[bytes], bytes]
"""Converts a recorded payload by today's type and encodes it again; raises if it does not fit."""


class Sites(Protocol):
    """The interned call sites of the engine."""

    def of(self, frame: FrameType) -> int: ...

    def text(self, site: int) -> str: ...


def fits(recorded: Entry, issued: Entry, recode: Recode | None) -> bool:
    """Whether *issued* is what the journal *recorded*: kind, name, target and compared payload."""
    if recorded.kind != issued.kind or recorded.name != issued.name:
        return False
    if issued.kind == Kind.CANCEL:
        return recorded.ref == issued.ref
    if issued.kind not in COMPARED:
        return True
    return _same_payload(recorded, issued, recode)


def _same_payload(recorded: Entry, issued: Entry, recode: Recode | None) -> bool:
    if recorded.payload == issued.payload:
        return True
    if recorded.payload is None or issued.payload is None:
        return False
    if recorded.flags & Flag.DIGEST:
        return recorded.payload == digest(issued.payload)
    if recode is None:
        return False
    try:
        return recode(recorded.payload) == issued.payload
    except Exception:
        # The recorded value no longer converts: the difference itself is the report.
        return False


def divergence(
    index: int,
    recorded: Entry | None,
    issued: Entry | None,
    sites: Sites,
    show: Callable[[bytes], str],
    actual: str = "",
) -> NondeterminismError:
    """The two-sided report; *recorded* None: the journal ends here, *issued* None: so does code."""
    same_operation = (
        recorded is not None
        and issued is not None
        and recorded.kind == issued.kind
        and recorded.name == issued.name
    )
    return NondeterminismError(
        index=index,
        expected=describe(recorded) if recorded else "nothing more in this activation",
        actual=actual or (describe(issued) if issued else WENT_IDLE),
        expected_site=sites.text(recorded.site) if recorded and recorded.site else "",
        actual_site=sites.text(issued.site) if issued and issued.site else "",
        diff=_payload_diff(recorded, issued, show) if same_operation else "",
    )


def _payload_diff(
    recorded: Entry | None, issued: Entry | None, show: Callable[[bytes], str]
) -> str:
    if recorded is None or issued is None:
        return ""
    if recorded.payload is None or issued.payload is None:
        return ""
    if recorded.flags & Flag.DIGEST:
        length = int.from_bytes(recorded.payload[16:], "big")
        return (
            f"  recorded payload: {length} bytes, digest {recorded.payload[:16].hex()}\n"
            f"  payload now:      {len(issued.payload)} bytes, digest "
            f"{digest(issued.payload)[:16].hex()}"
        )
    return "\n".join(
        difflib.unified_diff(
            show(recorded.payload).splitlines(),
            show(issued.payload).splitlines(),
            "journal",
            "code",
            lineterm="",
        )
    )
