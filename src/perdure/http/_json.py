"""What perdure tells of itself, as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import NondeterminismError, TerminalError


def encode(value: Any) -> bytes:  # Any: dataclasses of perdure's, and what they hold
    """JSON of *value*: times as RFC 3339, bytes in base64, failures as objects."""
    return msgspec.json.encode(value, enc_hook=_hook)


def _hook(value: Any) -> Any:
    if isinstance(value, TerminalError):
        return {
            "kind": type(value).__name__,
            "message": value.message,
            "code": value.code,
            "metadata": value.metadata,
        }
    if isinstance(value, NondeterminismError):
        return {
            "invocation_id": value.invocation_id,
            "index": value.index,
            "expected": value.expected,
            "actual": value.actual,
            "expected_site": value.expected_site,
            "actual_site": value.actual_site,
            "diff": value.diff,
        }
    raise TypeError(f"a `{type(value).__name__}` has no JSON form")
