"""Doubles of steps: which one stands for which step, and what all steps were given."""

from __future__ import annotations

import difflib
import fnmatch
import functools
from datetime import datetime
from typing import Any, NamedTuple

from perdure._ids import format_id
from perdure._runtime._layout import Record
from perdure._runtime._running import RunningStep
from perdure.service import service_name
from perdure.testing._behaviours import Action, Double, Recorded


class StepDouble(Double[Any]):
    """Stands for the steps of a name, or of all names that fit a pattern such as ``"charge *"``."""

    def __init__(
        self, log: list[Recorded], pattern: str, service: str | None, handler: str | None
    ) -> None:
        of = f" of {service}" if service else ""
        super().__init__(f"step {pattern!r}{of}{f', {handler}' if handler else ''}")
        self._log = log
        self.pattern = pattern
        self._service = service
        self._handler = handler

    @property
    def records(self) -> list[Recorded]:
        """Each time such a step ran, in order, also before the double was made."""
        return [record for record in self._log if self.fits(record)]

    def fits(self, record: Recorded) -> bool:
        return (
            self._service in (None, record.service)
            and self._handler in (None, record.handler)
            and (self.pattern == record.name or fnmatch.fnmatchcase(record.name, self.pattern))
        )

    def closeness(self, record: Recorded) -> tuple[bool, int]:
        """How closely it was meant: a name more than a pattern, one handler more than all."""
        narrowed = (self._service is not None) + (self._handler is not None)
        return self.pattern == record.name, narrowed


class Asked(NamedTuple):
    """A step that begins, and what its double does; None: the function itself runs."""

    recorded: Recorded
    action: Action | None


class StepDoubles:
    """Owner of the doubles of steps, and of the log of all steps."""

    def __init__(self) -> None:
        self._log: list[Recorded] = []
        self._doubles: dict[tuple[str, str | None, str | None], StepDouble] = {}

    def double(self, pattern: str, service: Any, handler: str | None) -> StepDouble:
        """The one double of these, made when it is first asked for."""
        if not isinstance(pattern, str) or not pattern:
            raise TypeError(f"a step is given by its name or a pattern, not as {pattern!r}")
        wanted = (pattern, None if service is None else service_name(service), handler)
        if wanted not in self._doubles:
            self._doubles[wanted] = StepDouble(self._log, *wanted)
        return self._doubles[wanted]

    def begin(self, running: RunningStep, record: Record, attempt: int, at: datetime) -> Asked:
        """Record that a step begins; what is to be done."""
        function, args, kwargs = running.step.function, running.step.arguments, {}
        while isinstance(function, functools.partial):
            args = (*function.args, *args)
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        recorded = Recorded(
            running.step.name,
            args,
            kwargs,
            attempt,
            at,
            record.service,
            record.handler,
            record.key,
            format_id(running.invocation_id),
        )
        self._log.append(recorded)
        acting = [each for each in self._doubles.values() if each.fits(recorded) and each.acts()]
        # Of those that fit equally well, the last one made.
        acting.sort(key=lambda each: each.closeness(recorded))
        return Asked(recorded, acting[-1].next_action() if acting else None)

    def complaints(self) -> list[str]:
        """What is to be said of doubles that never had a step."""
        names = {record.name for record in self._log}
        return [
            _missed(repr(double.pattern), "step", double.pattern, names)
            for double in self._doubles.values()
            if double.is_missed()
        ]


def _missed(shown: str, what: str, name: str, names: set[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    ran = ", ".join(sorted(map(repr, names))) or "none"
    return f"no {what} {shown} ever ran{meant} (those that did: {ran})"
