"""Which of the changes that may be on the disk are: all choices of few, a sample of many."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations

from lost_power import Change, Length, Naming, Write

EXHAUSTIVE_MAX = 4
"""So many changes are taken in all combinations."""

ONE_BY_ONE_MAX = 6
"""Of more changes than this, so many are left out, or taken alone."""

Choice = list[Change]


def choices(pending: list[Change], choose: random.Random, samples: int) -> Iterator[Choice]:
    """At most *samples*, or two, choices of what may be there of *pending*.

    First none and all; then the telling ones, or as many of them as there is room for: all but one,
    only one, the later without the earlier, the first or the last torn, lengths without contents,
    and of few changes all combinations; then random ones, torn.
    """
    yield []
    yield list(pending)
    if not pending:
        return
    telling, room = list(_telling(pending, choose)), max(0, samples - 2)
    if len(telling) > room:
        yield from choose.sample(telling, room)
        return
    yield from telling
    for _ in range(room - len(telling)):
        yield _at_random(pending, choose)


def _telling(pending: list[Change], choose: random.Random) -> Iterator[Choice]:
    if len(pending) <= EXHAUSTIVE_MAX:
        for count in range(1, len(pending)):
            yield from map(list, combinations(pending, count))
    else:
        yield from _told_apart(pending, choose)
    for torn in {0, len(pending) - 1}:
        yield [*pending[:torn], *_torn(pending[torn], choose), *pending[torn + 1 :]]
        yield _torn(pending[torn], choose)
    yield [_length(change) for change in pending]


def _told_apart(pending: list[Change], choose: random.Random) -> Iterator[Choice]:
    count = min(len(pending), ONE_BY_ONE_MAX)
    # The first and the last always: what is begun, and what it is for.
    middle = choose.sample(range(1, len(pending) - 1), count - 2)
    for index in (0, *sorted(middle), len(pending) - 1):
        yield [pending[index]]
        yield pending[:index] + pending[index + 1 :]
        if 1 < index < len(pending) - 1:
            yield pending[index:]


def _torn(change: Change, choose: random.Random) -> Choice:
    """Some sectors of it, or its first or last part: a name is there or not."""
    if isinstance(change, Naming):
        return []
    if isinstance(change, Length):
        return [change] if choose.random() < 0.5 else []
    pieces, cut = change.pieces, choose.randrange(len(change.pieces) + 1)
    some = [piece for piece in pieces if choose.random() < 0.5]
    return [change.part(choose.choice([pieces[:cut], pieces[cut:], some]))]


def _length(change: Change) -> Change:
    if isinstance(change, Write):
        return Length(change.node, change.end, cuts=False)
    return change


def _at_random(pending: list[Change], choose: random.Random) -> Choice:
    share = choose.choice([0.1, 0.5, 0.9])
    choice: Choice = []
    for change in pending:
        if choose.random() < share:
            choice += [change] if choose.random() < 0.7 else _torn(change, choose)
        elif choose.random() < 0.2:
            choice.append(_length(change))
    return choice
