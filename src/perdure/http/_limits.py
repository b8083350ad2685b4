"""What a client may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from perdure._limits import PAYLOAD_BYTES_MAX

_JSON_SLACK: Final = 1024 * 1024
"""A value of the greatest size has room for what JSON needs beyond its encoding in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a client may ask of an app, and of the server that ``perdure serve`` is.

    The sizes and numbers hold wherever the app is served. The times and ``connections`` hold in
    ``perdure serve``: in an app of yours they are those of your server.

    Attributes:
      body_bytes: Of the body of a request; 413.
      header_bytes: Of all headers of a request; 431.
      target_bytes: Of a path with its query; 414.
      working: Requests that are worked on at a time; 429.
      waiting: Requests at a time that only wait for the result of an invocation; 429 for one more
        that would, while all others are answered.
      connections: Open at a time; one more is answered 503. Less, where the process may have fewer
        files.
      header_seconds: From the opening of a connection, or the first byte of a further request, to
        the end of its headers; 408.
      body_seconds: From there to the end of its body; 408.
      send_seconds: In which a client has to take its answer; then it is cut off.
      idle_seconds: That an open connection may be without a request.
    """

    body_bytes: int = PAYLOAD_BYTES_MAX + _JSON_SLACK
    header_bytes: int = 65_536
    target_bytes: int = 8_192
    working: int = 2_000
    waiting: int = 15_000
    connections: int = 16_000
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    send_seconds: float = 60.0
    idle_seconds: int = 75

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value <= 0:
                raise ValueError(f"{each.name} must be positive, got {value!r}")


DEFAULT_LIMITS: Final = Limits()
