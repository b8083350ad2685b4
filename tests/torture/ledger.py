"""What the clients have asked for and were told: the server is held to it, life after life."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from linearizability import UNTOLD, Operation
from load_support import Answer
from outside import Outside
from tortured import Link, Lost

ANSWER_S: Final = 30.0
USES_MAX: Final = 40
"""Of one key of an object, whose history is then long enough."""

LOOSE_MAX: Final = 8
"""Operations on one key of which it is not known whether or when they have happened, at a time: the
search for an order may have to try each of them with and without each other."""


class Violation(AssertionError):
    """A promise was broken."""


def require(true: bool, what: str, *about: object) -> None:
    if not true:
        raise Violation(" · ".join([what, *map(str, about)]))


@dataclass
class Counts:
    """Of one kind of request.

    Attributes:
      unknown: Requests whose answers were lost.
      refused: Answers that nothing was accepted, for there was too much to do; asked again.
    """

    asked: int = 0
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0


class Attempt:
    """An operation on an object, told or not yet."""

    def __init__(self, act: tuple[Any, ...]) -> None:
        self.act = act
        self.invoked = time.monotonic()
        self.answered: float | None = None
        self.result: Any = UNTOLD

    def told(self, result: Any = UNTOLD) -> None:
        """It has happened; told again, it is the same."""
        if self.answered is None:
            self.answered = time.monotonic()
            self.result = result
        else:
            require(
                self.result in (UNTOLD, result), "another result", self.act, self.result, result
            )

    @property
    def operation(self) -> Operation:
        return Operation(self.act, self.invoked, self.answered, self.result)


class Keys:
    """A few keys of one object at a time, each until it was used often enough."""

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self._made = 0
        self._now = [self._make() for _ in range(count)]
        self._uses: defaultdict[str, int] = defaultdict(int)

    def choose(self, chooser: random.Random) -> str:
        place = chooser.randrange(len(self._now))
        key = self._now[place]
        self._uses[key] += 1
        if self._uses[key] >= USES_MAX:
            self._now[place] = self._make()
        return key

    def _make(self) -> str:
        self._made += 1
        return f"{self._prefix}{self._made}"


class Ledger:
    """Of all lives of one directory.

    Args:
      outside: Where clients write down what must not be followed by certain steps.

    Attributes:
      counts: By kind of request.
      attempts: By object and key.
      transfers: Name of a transfer to the keys and the amount, and whether it is known to be done.
      published: Press and number to the payload, as told.
      entries: Key of an account to what was read there, in some order.
    """

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.attempts: defaultdict[tuple[str, str], list[Attempt]] = defaultdict(list)
        self.transfers: dict[str, tuple[str, str, int, bool]] = {}
        self.published: dict[tuple[str, int], str] = {}
        self.entries: defaultdict[str, list[list[tuple[str, int]]]] = defaultdict(list)
        self.registers = Keys("r", 3)
        self.counters = Keys("c", 3)
        self.accounts = Keys("a", 4)
        self.presses = Keys("p", 1)
        self._numbers = 0
        self._lines: list[tuple[Any, ...]] = []

    def number(self) -> int:
        """One that was not used before."""
        self._numbers += 1
        return self._numbers

    def attempt(self, kind: str, key: str, *act: Any) -> Attempt:
        attempt = Attempt(act)
        self.attempts[kind, key].append(attempt)
        return attempt

    def may_be_loose(self, kind: str, key: str) -> bool:
        """Whether there may be one more of which it is not known whether or when it happens."""
        return sum(each.answered is None for each in self.attempts[kind, key]) < LOOSE_MAX

    def write_down(self, *line: Any) -> None:
        self._lines.append((time.monotonic(), *line))

    def save(self, path: Path) -> None:
        path.write_text("".join(json.dumps(line) + "\n" for line in self._lines))


class Client:
    """Asks over one link, and writes down what it asks for and is told."""

    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._ledger = ledger

    async def ask(
        self,
        kind: str,
        method: str,
        path: str,
        value: Any = None,
        *,
        good: tuple[int, ...] = (200,),
        admin: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one request; one of these statuses.

        Raises:
          Lost: There was none.
          Violation: It was another.
        """
        counts, number = self._ledger.counts[kind], self._ledger.number()
        counts.asked += 1
        self._ledger.write_down(number, "asks", method, path, value, headers)
        while True:
            asking = self._link.ask(method, path, value, admin=admin, **(headers or {}))
            try:
                answer = await asyncio.wait_for(asking, ANSWER_S)
            except Lost:
                counts.unknown += 1
                self._ledger.write_down(number, "lost")
                raise
            except TimeoutError as error:
                raise Violation(f"no answer in {ANSWER_S:.0f} s · {method} {path}") from error
            if answer.status != 429:
                break
            counts.refused += 1
            await asyncio.sleep(0.02)
        counts.acknowledged += 1
        self._ledger.write_down(number, answer.status, answer.content.decode(errors="replace"))
        require(answer.status in good, "an answer that can not be", method, path, value, answer)
        return answer


class Story:
    """One thing that a client does, and holds the server to ever after.

    Args:
      name: No other story of the trial has it.
    """

    def __init__(self, name: str, chooser: random.Random, ledger: Ledger) -> None:
        self.name = name
        self.chooser = chooser
        self.ledger = ledger

    async def tell(self, client: Client) -> None:
        """Do it; once, with an end at any moment by ``Lost``."""
        raise NotImplementedError

    async def settle(self, client: Client) -> None:
        """Find out what has happened, finish it, and compare it with what was told.

        Raises:
          Lost: Then it is to be settled again.
          Violation: What was told is not so.
        """
        raise NotImplementedError
