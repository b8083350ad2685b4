"""Whether the history of one object is linearizable.

Theory of operation. Each operation took some time, and the object is to have behaved as if each had
taken effect at one moment in between. The search is that of Wing and Gong ("Testing and verifying
concurrent objects", 1993): take any operation that began before the first of the others was
answered, apply it to the sequential object, and go on with the rest; at a dead end take another.
As Lowe found ("Testing for linearizability", 2017), what has been tried need only be known as (the
set of operations taken, the state they led to), and never be tried again.

An operation whose answer was lost may take effect at any later time, or never: the search may take
it, and need not. So each of them can double the work; histories are to be short, or to have few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

State = Hashable
Model = Callable[[Any, Any], tuple[Any, Any]]
"""The sequential object: from a state and an act to the next state and the result."""

UNTOLD: Final = object()
"""Stands for a result that nobody was told."""

CONFIGURATIONS_MAX: Final = 1_000_000


class Undecided(Exception):
    """The history is too long, or too much of it is unknown, to be judged in reasonable time."""


@dataclass(frozen=True)
class Operation:
    """What one client asked of the object, on one clock that all clients share.

    Attributes:
      act: What it asked for, in the words of the model.
      invoked: When it asked; the operation takes no effect before.
      answered: When it was answered, or otherwise known to have taken effect; None: it is not known
        to have, and may take effect at any later time.
      result: What the answer said, or ``UNTOLD``.
    """

    act: Any
    invoked: float
    answered: float | None = None
    result: Any = UNTOLD

    @property
    def latest(self) -> float:
        return math.inf if self.answered is None else self.answered


def linearization(
    history: Iterable[Operation], model: Model, initial: State
) -> list[Operation] | None:
    """An order in which the operations can have taken effect, or None if there is none.

    Args:
      history: Of one object; what was not answered may be absent from the order.
      model: Its results are compared with ``==``; states are hashable.

    Raises:
      Undecided: More than ``CONFIGURATIONS_MAX`` were looked at.
    """
    search = _Search(sorted(history, key=lambda each: each.latest), model)
    return search.run(initial)


class _Search:
    """*operations* are in the order of their answers; sets of them are the bits of an int."""

    def __init__(self, operations: Sequence[Operation], model: Model) -> None:
        self._operations = operations
        self._model = model
        self._answered = sum(
            1 << i for i, each in enumerate(operations) if each.answered is not None
        )
        self._seen: set[tuple[int, State]] = set()

    def run(self, initial: State) -> list[Operation] | None:
        taken = 0
        order: list[int] = []
        choices = [self._next(taken, initial)]
        while taken & self._answered != self._answered:
            for index, state in choices[-1]:
                order.append(index)
                taken |= 1 << index
                choices.append(self._next(taken, state))
                break
            else:
                choices.pop()
                if not order:
                    return None
                taken &= ~(1 << order.pop())
        return [self._operations[index] for index in order]

    def _next(self, taken: int, state: State) -> Iterator[tuple[int, State]]:
        """What can take effect next, and lead where the search has not been."""
        first_answer = math.inf
        for index, operation in enumerate(self._operations):
            if taken >> index & 1:
                continue
            # In this order the first that is left has the earliest answer of all that are left.
            first_answer = min(first_answer, operation.latest)
            if operation.invoked > first_answer:
                continue
            following, result = self._model(state, operation.act)
            if operation.result is not UNTOLD and operation.result != result:
                continue
            configuration = taken | 1 << index, following
            if configuration not in self._seen:
                if len(self._seen) >= CONFIGURATIONS_MAX:
                    raise Undecided(f"{len(self._operations)} operations")
                self._seen.add(configuration)
                yield index, following


def register(state: int, act: tuple[Any, ...]) -> tuple[int, Any]:
    """A register: ``("read",)``, ``("write", new)`` → the old one, ``("cas", old, new)`` → bool."""
    match act:
        case ("read",):
            return state, state
        case ("write", new):
            return new, state
        case ("cas", old, new):
            return (new, True) if state == old else (state, False)
    raise ValueError(act)


def counter(state: int, act: tuple[Any, ...]) -> tuple[int, int]:
    """A counter: ``("add", amount)`` → the total."""
    match act:
        case ("add", amount):
            return state + amount, state + amount
    raise ValueError(act)
