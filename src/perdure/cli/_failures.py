"""What goes wrong, as people and programs are told of it: text, kind, exit code."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from perdure._loading import LoadingError
from perdure.errors import (
    InvalidInput,
    NotFound,
    PerdureError,
    StoreBroken,
    StoreError,
    TerminalError,
    Unavailable,
)


class Exit(enum.IntEnum):
    """The exit codes of the command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run of the command failed.

    Attributes:
      kind: The class of an error of perdure's, or ``Usage``.
      hint: What to do about it, or an empty text.
      code: Of a terminal error, else None.
      metadata: Of a terminal error.
    """

    exit_code: int
    kind: str
    message: str
    hint: str = ""
    code: int | None = None
    metadata: dict[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object on stderr under ``--json``."""
        told: dict[str, Any] = {"kind": self.kind, "message": self.message}
        if self.hint:
            told["hint"] = self.hint
        if self.code is not None:
            told["code"] = self.code
        if self.metadata:
            told["metadata"] = self.metadata
        return {"error": {**told, "exit_code": int(self.exit_code)}}


class CommandError(PerdureError):
    """The command can not go on; *hint* says what to do about it."""

    def __init__(
        self, message: str, *, exit_code: Exit = Exit.FAILED, hint: str = "", kind: str = "Failed"
    ) -> None:
        super().__init__(message)
        self.failure = Failure(exit_code, kind, message, hint)


def usage(message: str, hint: str = "") -> CommandError:
    """What was given can not be meant."""
    return CommandError(message, exit_code=Exit.USAGE, hint=hint, kind="Usage")


def failure_of(error: Exception) -> Failure | None:
    """How *error* is told; None: it is a defect, and its traceback is wanted."""
    if isinstance(error, CommandError):
        return error.failure
    if isinstance(error, LoadingError):
        exit_code = Exit.FAILED if error.raised else Exit.USAGE
        return Failure(exit_code, error.raised or "Usage", str(error), error.hint)
    kind = type(error).__name__
    if isinstance(error, TerminalError):
        exit_code = Exit.FAILED
        if isinstance(error, NotFound):
            exit_code = Exit.NOT_FOUND
        elif isinstance(error, InvalidInput):
            exit_code = Exit.USAGE
        return Failure(exit_code, kind, error.message, _hint(error), error.code, error.metadata)
    if isinstance(error, (Unavailable, StoreError)) and not isinstance(error, StoreBroken):
        return Failure(Exit.UNREACHABLE, kind, str(error))
    if isinstance(error, PerdureError):
        return Failure(Exit.FAILED, kind, str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(Exit.FAILED, kind, f"{where}{error.strerror or error}")
    return None


def _hint(error: TerminalError) -> str:
    if error.code == 401:
        return "a token comes from PERDURE_TOKEN and PERDURE_ADMIN_TOKEN, or files: see --help"
    return ""
