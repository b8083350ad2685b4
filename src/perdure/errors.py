"""Every error a caller of perdure can catch.

Two families share the base :class:`PerdureError`. A :class:`TerminalError` is an *answer*: it is
journalled, never retried, and reaches whoever waits for the invocation. Everything else is a
*condition* of the engine, the store or the program, and is not part of any journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any


class PerdureError(Exception):
    """Base of every error that perdure raises on purpose."""


class TerminalError(PerdureError):
    """A final failure: not retried, recorded, and raised at whoever waits for the result.

    Args:
      message: What went wrong, for the caller. ``str(error)`` is exactly this text.
      code: An HTTP status, 400 to 599; it is not checked. Default: 500, or the subclass's.
      metadata: Further text fields for the caller.

    A subclass of yours is recorded as (message, code, metadata) and arrives as a plain
    ``TerminalError`` in replay and live alike; match on ``code``, not on the class.
    """

    default_code = 500

    def __init__(
        self, message: str, code: int | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.metadata: dict[str, str] = dict(metadata) if metadata else {}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[TerminalError], tuple[str, int, dict[str, str]]]:
        return type(self), (self.message, self.code, self.metadata)


class InvalidInput(TerminalError):
    """A value, a name or a use of the API that can never be right; the text says what to change."""

    default_code = 400


class PromiseNameError(InvalidInput):
    """``run`` asked twice for the promise of one name: one promise stands for one event."""


class NotFound(TerminalError):
    """No such invocation, service or handler, or it is not kept any more.

    Also: the key was purged whose promise a handler awaited; ``step_token()`` outside a step.
    """

    default_code = 404


class AlreadyCompleted(TerminalError):
    """The promise or awakeable was completed before; the first completion stands."""

    default_code = 409


class Conflict(TerminalError):
    """What is there does not allow it: ``call`` of a ``run`` that was already started, a signal to
    an invocation that has ended, a pause of one that has not begun, a ``purge``
    of one that has not completed.
    """

    default_code = 409


class Cancelled(TerminalError):
    """The invocation was cancelled, and did not return a result all the same."""

    default_code = 409


class Killed(TerminalError):
    """The invocation was killed, or its attempts used up under ``on_exhausted="kill"``."""

    default_code = 409


class NotReady(TerminalError):
    """The invocation exists but has no result yet."""

    default_code = 470


class NondeterministicOperationError(TerminalError):
    """Handler code tried something a replay could not repeat; do it in a step: ``ctx.run``."""


class NotSupportedOnRestate(TerminalError):
    """What Restate can not do: asked for in a handler that a Restate server drives, or of a client
    that talks to one.
    """

    default_code = 501


class RetryableError(PerdureError):
    """Raise it to have the attempt retried, optionally not before *retry_after* has passed.

    Args:
      message: What went wrong, for people.
      retry_after: Seconds or timedelta, in the place of the delay that the policy has. The attempt
        counts as failed all the same.
    """

    def __init__(self, message: str, retry_after: timedelta | float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = (
            timedelta(seconds=retry_after) if isinstance(retry_after, (int, float)) else retry_after
        )


class DefinitionError(PerdureError):
    """A service class or a declaration is wrong, or an engine is given what it can not serve.

    Of a class the text names file, line and remedy.
    """


class NondeterminismError(PerdureError):
    """The code no longer does what the journal recorded. The journal is untouched.

    It is raised at no caller: the invocation is paused, and this is its last failure.

    Attributes:
      invocation_id: Text form of the invocation.
      index: Journal entry at which the two part.
      expected: What the journal has there.
      actual: What the code did.
      expected_site, actual_site: ``file:line in function`` of each side, where known.
      diff: Difference of the payloads, or an empty text.
    """

    def __init__(
        self,
        *,
        index: int,
        expected: str,
        actual: str,
        invocation_id: str = "",
        expected_site: str = "",
        actual_site: str = "",
        diff: str = "",
    ) -> None:
        self.invocation_id = invocation_id
        self.index = index
        self.expected = expected
        self.actual = actual
        self.expected_site = expected_site
        self.actual_site = actual_site
        self.diff = diff
        super().__init__(index, expected, actual)

    def sides(self) -> str:
        """Both sides with their lines, and the difference of the payloads, as text."""
        lines = [
            f"  journal: {self.expected}"
            + (f"  ({self.expected_site})" * bool(self.expected_site)),
            f"  code:    {self.actual}" + (f"  ({self.actual_site})" * bool(self.actual_site)),
        ]
        if self.diff:
            lines.append(self.diff)
        return "\n".join(lines)

    def __str__(self) -> str:
        return (
            f"the code of {self.invocation_id or 'this invocation'} does not fit its journal at "
            f"entry {self.index}\n{self.sides()}\n"
            "The journal is untouched: deploy code that fits it, then resume."
        )


class CheckFailed(PerdureError):
    """``Engine(check_at_open="refuse")`` found invocations whose journal the code does not fit.

    The engine is not open, and no invocation has changed. The text lists what was found.

    Attributes:
      report: The ``CheckReport``.
    """

    def __init__(self, report: Any) -> None:  # Any: reports know the errors, not these them
        super().__init__(str(report))
        self.report = report


class HandlerStalled(PerdureError):
    """The handler waits for nothing that can happen, or never goes idle; the text has the line.

    It is raised at no caller: the invocation is paused, and this is its last failure.
    """


class Unavailable(PerdureError):
    """A client got no answer from a server, or none that says what became of the request.

    Attributes:
      maybe_accepted: Whether the server may have taken the request up all the same. Where it is
        False, nothing has happened.
    """

    def __init__(self, message: str, *, maybe_accepted: bool) -> None:
        super().__init__(message)
        self.maybe_accepted = maybe_accepted


class StoreError(PerdureError):
    """The data directory can not be used; the text says why. Base of the four that follow."""


class StoreClosed(StoreError):
    """The engine is not open, or was closed while you waited; what was accepted goes on later."""


class StoreBroken(StoreError):
    """The disk refused a write. Whether the last writes landed is unknown.

    Nothing more is accepted or answered: close the engine, and open another one to recover.
    """


class StoreCorrupt(StoreError):
    """The data directory holds bytes that perdure did not write like that."""


class DataDirectoryInUse(StoreError):
    """Another engine owns the data directory, or a command reads it; the text says which."""


class InternalError(PerdureError):
    """A defect in perdure, to be reported with its traceback; or a journal of a newer release."""


def terminal_leaf(error: BaseException | None) -> TerminalError | None:
    """The terminal error that *error* is, or the first of a group in which all are terminal."""
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, TerminalError) else None
    leaves = [terminal_leaf(inner) for inner in error.exceptions]
    return None if None in leaves else leaves[0]
