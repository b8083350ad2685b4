"""The log of a server: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\t\n"}
_FURTHER_LINE = "\n    "


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO perdure.http: message``; further lines are indented.

    So no message can have a line that looks like a record of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        told = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        trouble = _trouble(self, record)
        if trouble is not None:
            told = f"{told}\n{trouble}"
        return told.translate(_ESCAPED).replace("\n", _FURTHER_LINE)


class JsonFormatter(logging.Formatter):
    """An object with time, level, logger and message; exception and invocation where there are."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        invocation_id = getattr(record, "invocation_id", None)
        if invocation_id is not None:
            told["invocation_id"] = str(invocation_id)
        trouble = _trouble(self, record)
        if trouble is not None:
            told["exception"] = trouble
        return json.dumps(told)


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts) or None


def log_to_stderr(form: LogFormat = "text", level: int = logging.INFO) -> None:
    """Send all records from *level* on to stderr, in the place of what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What strangers send is no news; and below INFO uvicorn would show headers, with their tokens.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
