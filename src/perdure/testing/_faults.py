"""What a test does wrong, or is told is wrong, and the errors of handlers that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass


class HarnessError(AssertionError):
    """The test asks for what can not be: the text says what, and what to write instead."""


class Stuck(HarnessError):
    """The awaited result can never come: nothing runs, and no timer is due."""


class DoubleError(HarnessError):
    """A double gives what its step or handler can not, or was never asked for anything."""


@dataclass(eq=False)
class Problem:
    """An invocation that has broken: it was paused, for no double and no test had meant it to fail.

    Attributes:
      invocation_id: Its id, raw.
      error: What its handler or step raised, the object itself.
    """

    invocation_id: bytes
    error: BaseException


class Problems:
    """Owner of those that no part of the test has been told of."""

    def __init__(self) -> None:
        self._untold: list[Problem] = []

    def add(self, invocation_id: bytes, error: BaseException, place: str) -> None:
        """*place* says whose error it is; the error gets it as a note."""
        if not isinstance(error, Exception):
            wrapped = HarnessError(f"{type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        error.add_note(f"in {place}")
        self._untold.append(Problem(invocation_id, error))

    def take(self, invocation_id: bytes | None = None) -> BaseException | None:
        """The first error, of this invocation or of any, which counts as told from now on."""
        for problem in self._untold:
            if invocation_id is None or problem.invocation_id == invocation_id:
                self._untold.remove(problem)
                return problem.error
        return None

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        error = self.take()
        if error is not None:
            raise error

    def take_all(self) -> list[BaseException]:
        """All that nobody was told of."""
        untold, self._untold = self._untold, []
        return [problem.error for problem in untold]

    def __bool__(self) -> bool:
        return bool(self._untold)
