"""The path of a request to the ingress, taken apart.

Segments are split before they are unquoted: ``a%2Fb`` is one segment, and may be a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from perdure.errors import InvalidInput, TerminalError

RESERVED = ("restate", "perdure")
"""First segments of the ingress's own paths: no service on it may be called so."""

_WHOLE = {"awakeables": 4, "a": 4, "workflow": 5, "invocation": 4}
"""Second segments of paths below ``restate``, and how many segments the shortest such has."""


class Target(NamedTuple):
    """What a path calls.

    Attributes:
      key: None: the path has none.
      one_way: It sends, and does not wait.
    """

    service: str
    key: str | None
    handler: str
    one_way: bool


def segments_of(scope: Mapping[str, Any]) -> list[str]:
    """The segments of a request's path, one at least, below where the app is mounted.

    Raises:
      InvalidInput: One is no UTF-8 once it is unquoted.
    """
    raw = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    text = raw.partition(b"?")[0].decode("ascii", "replace")
    parts = text.split("/")[1:]
    if len(parts) > 1 and not parts[-1]:
        del parts[-1]  # a slash at the end says nothing
    mounted = scope.get("root_path", "").strip("/")
    if mounted and f"{scope['path']}/".startswith(f"/{mounted}/"):
        # Servers and frameworks agree that "path" has "root_path" in front, quoted or not.
        parts = parts[mounted.count("/") + 1 :]
    parts = parts or [""]  # of ``*``, and of the path where the app is mounted
    if "%" not in text:
        return parts
    try:
        return [unquote_to_bytes(part).decode() for part in parts]
    except UnicodeDecodeError:
        raise InvalidInput(f"bad path: {text[:200]} is not UTF-8") from None


def no_such_path(segments: list[str]) -> TerminalError:
    """The refusal of a path below ``restate`` or ``perdure`` that there is not."""
    if len(segments) < 2 or len(segments) < _WHOLE.get(segments[1], 0):
        return InvalidInput(f"bad path: /{'/'.join(segments)[:200]}")
    return TerminalError("not found", 404)


def target_of(segments: list[str]) -> Target:
    """``service/handler`` or ``service/key/handler``, with ``/send`` behind it or without.

    A last segment ``send`` behind one other is a handler's name, as there is no other.

    Raises:
      InvalidInput: It is neither.
    """
    one_way = len(segments) > 2 and segments[-1] == "send"
    return _target(segments[:-1] if one_way else segments, segments, one_way)


def explicit_target(segments: list[str], *, one_way: bool) -> Target:
    """The same behind ``restate/call`` and ``restate/send``."""
    return _target(segments, segments, one_way)


def _target(parts: list[str], given: list[str], one_way: bool) -> Target:
    if len(parts) == 2 and parts[0] and parts[1]:
        return Target(parts[0], None, parts[1], one_way)
    if len(parts) == 3 and parts[0] and parts[2]:
        return Target(parts[0], parts[1], parts[2], one_way)
    expected = (
        ", expected either /:service-name/:handler or /:object-name/:object-key/:handler"
        if len(parts) > 3
        else ""
    )
    raise InvalidInput(f"bad path: /{'/'.join(given)[:200]}{expected}")
