"""RetryPolicy: when a failed attempt runs again, and when to give up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off without jitter.

    The delay after the n-th failed attempt is ``initial * factor ** (n - 1)``, at most
    ``max_interval``, rounded up to the millisecond. It is a function of n alone: the same history
    gives the same deadlines, in tests as in production. Invocations that fail together retry
    together. A :class:`perdure.RetryableError` with ``retry_after`` sets its own delay.

    Args:
      initial: Delay after the first failure; ``timedelta`` or seconds.
      factor: Growth of the delay from one failure to the next; 1 keeps it constant.
      max_interval: Longest delay; ``timedelta`` or seconds.
      max_attempts: Attempts in all, the first included; ``None`` for no limit.
      max_duration: Give up at a failure that comes this long after the first failure, or later;
        ``timedelta`` or seconds, ``None`` for no limit.
      on_exhausted: ``"pause"`` keeps the invocation for a fix and a resume, ``"kill"`` ends it with
        ``Killed``. A step with a policy of its own raises ``TerminalError`` in either case; a step
        under the policy of its invocation pauses it in either case.

    Raises:
      ValueError: A value makes no sense; the text names the field.
    """

    initial: timedelta | float = 0.5
    factor: float = 2.0
    max_interval: timedelta | float = 60.0
    max_attempts: int | None = 70
    max_duration: timedelta | float | None = None
    on_exhausted: Literal["pause", "kill"] = "pause"

    def __post_init__(self) -> None:
        initial = _duration("initial", self.initial)
        max_interval = _duration("max_interval", self.max_interval)
        if max_interval < initial:
            raise ValueError(
                f"RetryPolicy.max_interval ({max_interval}) is shorter than initial ({initial}); "
                "give both"
            )
        # Spelled through object: the class is frozen, and the fields are kept in one form so that
        # equal policies compare equal however they were written.
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "max_interval", max_interval)
        if self.max_duration is not None:
            object.__setattr__(self, "max_duration", _duration("max_duration", self.max_duration))
        if not _is_number(self.factor) or not 1 <= self.factor < math.inf:
            raise ValueError(f"RetryPolicy.factor must be 1 or more, got {self.factor!r}")
        object.__setattr__(self, "factor", float(self.factor))
        if self.max_attempts is not None and (
            type(self.max_attempts) is not int or self.max_attempts < 1
        ):
            raise ValueError(
                "RetryPolicy.max_attempts must be a whole number from 1 (no retry), or None for "
                f"no limit, got {self.max_attempts!r}"
            )
        if self.on_exhausted not in ("pause", "kill"):
            raise ValueError(
                f"RetryPolicy.on_exhausted must be 'pause' or 'kill', got {self.on_exhausted!r}"
            )

    def delay_ms(self, failed_attempts: int) -> int:
        """Return how long to wait after this many failed attempts (1 or more)."""
        assert failed_attempts >= 1, failed_attempts
        initial_ms = _milliseconds(self.initial)
        max_ms = _milliseconds(self.max_interval)
        try:
            delay = initial_ms * self.factor ** (failed_attempts - 1)
        except OverflowError:
            return max_ms if initial_ms else 0
        return min(max_ms, math.ceil(delay)) if delay < max_ms else max_ms

    def exhausted(self, failed_attempts: int, elapsed_ms: int) -> bool:
        """Tell whether to give up.

        Args:
          failed_attempts: Attempts that failed, the last one included.
          elapsed_ms: Time since the first failure.
        """
        if self.max_attempts is not None and failed_attempts >= self.max_attempts:
            return True
        return self.max_duration is not None and elapsed_ms >= _milliseconds(self.max_duration)


def no_retry(on_exhausted: Literal["pause", "kill"] = "pause") -> RetryPolicy:
    """Return the policy of one attempt."""
    return RetryPolicy(max_attempts=1, on_exhausted=on_exhausted)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _duration(field: str, value: timedelta | float) -> timedelta:
    problem = "must be a timedelta or seconds, 0 or more"
    if not isinstance(value, timedelta):
        if not _is_number(value):
            raise ValueError(f"RetryPolicy.{field} {problem}, got {value!r}")
        try:
            value = timedelta(seconds=value)
        except (OverflowError, ValueError) as error:
            raise ValueError(f"RetryPolicy.{field} {problem}, got {value!r}") from error
    if value < timedelta(0):
        raise ValueError(f"RetryPolicy.{field} {problem}, got {value!r}")
    return value


def _milliseconds(value: timedelta | float) -> int:
    """Return *value* in milliseconds, rounded up."""
    assert isinstance(value, timedelta), value  # __post_init__ has converted it.
    return -(value // -_MILLISECOND)  # a negated timedelta.max would be too much


DEFAULT_RETRY: Final = RetryPolicy()
"""The engine's default: 500 ms, doubled up to a minute, 70 attempts, then pause."""
