"""What a double does when it is asked, and what it was asked."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

R = TypeVar("R")
# Any, in this module: steps and handlers take and return any storable values.

Raisable = BaseException | type[BaseException]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One time that a step ran, or a handler was called.

    Attributes:
      name: Of the step, or ``Service.handler``.
      args, kwargs: What the function was given; of a handler, its argument if it got one.
      attempt: From 1.
      at: The time of the harness.
      service, handler, key: Whose step it is; of a handler, itself.
      invocation_id: The same.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    attempt: int
    at: datetime
    service: str
    handler: str
    key: str
    invocation_id: str


class Action:
    """What is to be done in the place of the real function."""


@dataclass(frozen=True, slots=True)
class Return(Action):
    """Attributes:
    value: The value, or a function that gives it, or gives an awaitable of it.
    """

    value: Any

    async def make(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The value for these arguments."""
        if not callable(self.value):
            return self.value
        value = self.value(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value


@dataclass(frozen=True, slots=True)
class Fail(Action):
    """Attributes:
    error: An error, or its class.
    """

    error: Raisable

    def make(self) -> BaseException:
        """The error, another object each time."""
        if isinstance(self.error, type):
            return self.error()
        try:
            return copy.copy(self.error)
        except Exception:  # one that can not be copied: its __init__ asks for more
            return self.error.with_traceback(None)


@dataclass(frozen=True, slots=True)
class Hang(Action):
    """It never ends by itself."""


class Double(Generic[R]):
    """Stands for a step or a handler; a plain one lets the real one run, and records.

    Say at most one of ``returns``, ``raises`` and ``hangs``; the last one said holds. Before it,
    ``fails_times`` may come. All give the double itself.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._failures = 0
        self._failure = Fail(ConnectionError)
        self._action: Action | None = None
        self._optional = False

    def __repr__(self) -> str:
        return f"<double of {self._title}, asked {self.calls} times>"

    def returns(self, value: R | Callable[..., Any]) -> Self:
        """Have it return *value*; a function is called with the arguments, and may be async."""
        self._action = Return(value)
        return self

    def raises(self, error: Raisable) -> Self:
        """Have it raise *error*, an error or its class, every time.

        A ``TerminalError`` reaches the handler. After any other it is tried again by the policy in
        force, ``retry=`` of the step first, also where other errors fail the test.
        """
        self._action = Fail(_checked(error))
        return self

    def fails_times(self, count: int, error: Raisable | None = None) -> Self:
        """Have it raise *error* the next *count* times, then do what else it was told."""
        if type(count) is not int or count < 1:
            raise ValueError(f"fails_times takes a whole number from 1, not {count!r}")
        self._failures = count
        given = ConnectionError(f"{self._title} fails, as its double was told to")
        self._failure = Fail(given if error is None else _checked(error))
        return self

    def hangs(self) -> Self:
        """Have it never end by itself: it is under way while time passes, until it is cancelled."""
        self._action = Hang()
        return self

    def optional(self) -> Self:
        """Do not complain at the end if it was never asked."""
        self._optional = True
        return self

    @property
    def records(self) -> list[Recorded]:
        """Each time it was asked, in order."""
        raise NotImplementedError

    @property
    def calls(self) -> int:
        """How many times it was asked."""
        return len(self.records)

    def next_action(self) -> Action | None:
        """What to do now; None: the real thing."""
        if self._failures:
            self._failures -= 1
            return self._failure
        return self._action

    def acts(self) -> bool:
        """Whether it has something to do in the place of the real thing."""
        return bool(self._failures) or self._action is not None

    def lasts(self) -> bool:
        """Whether it hangs, once it is past its failures."""
        return isinstance(self._action, Hang)

    def is_missed(self) -> bool:
        """Whether it was to be asked, and never was."""
        return not self._optional and not self.records


def _checked(error: Any) -> Raisable:
    if isinstance(error, BaseException) or (
        isinstance(error, type) and issubclass(error, BaseException)
    ):
        return error
    raise TypeError(f"a double raises an error or a class of errors, not {error!r}")
