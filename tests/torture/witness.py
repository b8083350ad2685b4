"""Judging what has happened outside, in the order in which it happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from outside import Line


class Witness:
    """What the lines of all lives say.

    Attributes:
      problems: A sentence for each promise that was broken.
      repeated: How many steps ran again, as they may before their answer is durable.
      steps: By invocation and name, the first line of each.
      numbers: Press and number to the payload that was published under it.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.repeated = 0
        self.numbers: dict[tuple[str, int], str] = {}
        self.steps: dict[tuple[str, str], Line] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        self._settled: set[tuple[str, str]] = set()
        self._ids: dict[str, str] = {}
        self._in_turn: defaultdict[str, list[str]] = defaultdict(list)
        self._had_turn: set[tuple[str, str]] = set()
        self._killed: set[str] = set()
        self._judges: dict[str, Callable[[Line], Iterator[str]]] = {
            "ran": self._ran,
            "crowded": self._crowded,
            "killed": self._kill,
        }

    def hear(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self.problems += [f"{each} · {line}" for each in self._judges[line["what"]](line)]

    def _ran(self, line: Line) -> Iterator[str]:
        identity, name = line["id"], line["step"]
        step = identity, name
        if step in self._settled:
            yield "a step ran again although its answer was durable"
        self._settled.update((identity, settled) for settled in line["settled"])
        if identity in self._killed:
            yield "a step ran although its invocation had been killed"
        first = self.steps.setdefault(step, line)
        self.repeated += first is not line
        if first["saw"] != line["saw"]:
            yield f"the handler had been told {first['saw']} before"
        if first["token"] != line["token"]:
            yield f"the step had the token {first['token']} before"
        if self._tokens.setdefault(line["token"], step) != step:
            yield f"another step, {self._tokens[line['token']]}, has this token"
        if line["once"] and self._ids.setdefault(line["once"], identity) != identity:
            yield f"it was another invocation, {self._ids[line['once']]}, before"
        if line["wall"] < line.get("not_before", 0):
            yield "it began before its delay was over"
        yield from self._took_turn(line)
        yield from self._published(line)

    def _took_turn(self, line: Line) -> Iterator[str]:
        """Who has the key of an object has it without a break, from its first step to its last."""
        place, identity = line["exclusive"], line["id"]
        turns = self._in_turn[place]
        if not place or (turns and turns[-1] == identity):
            return
        if (place, identity) in self._had_turn:
            yield f"two were in exclusive handlers of one key at once: {turns[-1]}"
        self._had_turn.add((place, identity))
        turns.append(identity)

    def _published(self, line: Line) -> Iterator[str]:
        number = line.get("number")
        if number is not None:
            before = self.numbers.setdefault((line["exclusive"], number), line["payload"])
            if before != line["payload"]:
                yield f"{before} was published under this number"

    def _crowded(self, line: Line) -> Iterator[str]:
        yield "two were in exclusive handlers of one key at once"

    def _kill(self, line: Line) -> Iterator[str]:
        self._killed.add(line["id"])
        yield from ()
