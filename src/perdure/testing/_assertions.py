"""What tests assert of journals and of the world outside."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from perdure._runtime._describe import Description
from perdure._runtime._shown import JournalEntry


class Effects:
    """A world outside that only remembers what was done to it.

    Give it to fakes, and have them say what they do: ``effects.happen("charge", step_token())``.
    With a token it counts once, however often it is said, as at a service that knows idempotency
    keys; without one, each time.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._tokens: set[tuple[str, str]] = set()

    def happen(self, name: str, token: str | None = None) -> None:
        """The effect *name* happens, for the first time under this *token*, or again."""
        if token is not None:
            if (name, token) in self._tokens:
                return
            self._tokens.add((name, token))
        self._counts[name] += 1

    def count(self, name: str) -> int:
        """How often it has happened."""
        return self._counts[name]

    @property
    def names(self) -> list[str]:
        """Of all that have happened, in the order of their first times."""
        return list(self._counts)


def ran_exactly_once_across_crashes(effects: Effects, *names: str) -> None:
    """Assert that each of *names* has happened exactly once; without names, each that has.

    For ``check=`` of :func:`crash_everywhere`, whose ``world`` makes the effects.

    Raises:
      AssertionError: Naming those that happened never, or more than once.
    """
    wrong = [
        f"{name!r} happened {effects.count(name)} times"
        for name in names or effects.names
        if effects.count(name) != 1
    ]
    if wrong:
        raise AssertionError(
            "; ".join(wrong) + ". A step whose outcome was not durable when the process died runs "
            "again: give the outside perdure.step_token() as its idempotency key"
        )


def assert_steps(
    journal: Sequence[JournalEntry] | Description,
    expected: Iterable[str],
    *,
    order: Literal["exact", "any", "contains"] = "exact",
) -> None:
    """Assert which steps a journal has, by name, in the order in which they were begun.

    Args:
      journal: ``await h.journal(handle)``, or ``await engine.describe(id)``.
      order: ``exact``: these, in this order. ``any``: these, in any order. ``contains``: these in
        this order, others may be among them.

    Raises:
      AssertionError: With both lists, side by side.
    """
    entries = journal.journal if isinstance(journal, Description) else journal
    found = [entry.name for entry in entries if entry.kind == "step"]
    wanted = list(expected)
    if order == "exact":
        fits = found == wanted
    elif order == "any":
        fits = sorted(found) == sorted(wanted)
    else:
        rest = iter(found)
        fits = all(name in rest for name in wanted)
    if not fits:
        lines = difflib.ndiff(wanted, found)
        raise AssertionError(
            "the journal has other steps (- expected, + found):\n  " + "\n  ".join(lines)
        )
