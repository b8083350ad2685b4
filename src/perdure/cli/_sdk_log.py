"""What restate-sdk logs of attempts that fail, for people: a line, and not its own frames."""

from __future__ import annotations

import logging
import re
from typing import Final

_FAILED: Final = "Exception in do_progress"
_MISMATCH: Final = "(570)"
_COMMAND: Final = re.compile(r"^Related command: (.+)$", re.MULTILINE)
_REMEDY: Final = (
    "the handler does something else than Restate's journal has of it: serve the code that it "
    "began with, and the changed code at an address of its own (perdure register)"
)


def shorten_failures() -> None:
    """From now on, a failed attempt is a line of the log."""
    logging.getLogger("restate.server_context").addFilter(_shorten)


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if record.msg != _FAILED or error is None:
        return True
    text = str(error)
    if text.startswith(_MISMATCH):
        told = f"{text.rstrip()}\n{_REMEDY}"
    else:
        command = _COMMAND.search(text)
        told = text.partition("\n")[0].removeprefix("(500) ")
        told += f", in {command[1]}" if command else ""
    record.msg, record.args = "an attempt failed: %s", (told,)
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    record.exc_info = None
    return True
