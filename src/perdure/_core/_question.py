"""Reads whose answer the driver has to ask for first.

The embedded runtime has the state and the promises of a key at hand, and answers at once. Another
driver may have to ask a server. Then the activation stops in the middle: nothing of it runs until
the answer has come, so that to the handler, and to all its tasks, no time has passed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from perdure._core._entries import Entry
from perdure._core._replay import Recode

if TYPE_CHECKING:
    from perdure._core._commands import Commands


class Question:
    """A command that completes at once, for whose answer the activation stops when awaited."""

    __slots__ = ("_entry", "_machine", "_recode")

    def __init__(self, machine: Commands, entry: Entry, recode: Recode | None) -> None:
        self._machine = machine
        self._entry = entry
        self._recode = recode

    def __await__(self) -> Generator[Any, Any, Entry]:
        answered = yield from self._machine.ask(self._entry)
        return self._machine.issue(answered, self._recode)


async def answer_of(asked: Entry | Question) -> Entry:
    """The command with its answer, which may have to be waited for."""
    return await asked if isinstance(asked, Question) else asked
