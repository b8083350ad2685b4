"""The checker that the torture trusts: what it accepts, and what it must refuse."""

from __future__ import annotations

import random
import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from linearizability import UNTOLD, Operation, Undecided, counter, linearization, register


def op(act: tuple[Any, ...], invoked: float, answered: float | None, result: Any) -> Operation:
    return Operation(act, invoked, answered, result)


def write(value: int, invoked: float, answered: float | None, old: Any = UNTOLD) -> Operation:
    return op(("write", value), invoked, answered, old)


def read(invoked: float, answered: float, value: int) -> Operation:
    return op(("read",), invoked, answered, value)


def cas(old: int, new: int, invoked: float, answered: float | None, done: Any) -> Operation:
    return op(("cas", old, new), invoked, answered, done)


def add(amount: int, invoked: float, answered: float | None, total: Any) -> Operation:
    return op(("add", amount), invoked, answered, total)


ACCEPTED = {
    "nothing happened": [],
    "one after the other": [write(1, 0, 1, 0), read(2, 3, 1)],
    "a read beside a write sees the old value": [write(1, 0, 3, 0), read(1, 2, 0)],
    "a read beside a write sees the new value": [write(1, 0, 3, 0), read(1, 2, 1)],
    "touching times are beside each other": [write(1, 0, 1, 0), read(1, 2, 0)],
    "of two at once either is first": [write(1, 0, 3, 2), write(2, 0, 3, 0), read(4, 5, 1)],
    "the answer was lost and it has happened": [write(1, 0, None), read(2, 3, 1)],
    "the answer was lost and it never happened": [write(1, 0, None), read(2, 3, 0)],
    "the answer was lost and it happens late": [
        write(1, 0, None),
        write(2, 1, 2, 0),
        read(3, 4, 2),
        read(5, 6, 1),
    ],
    "one of two swaps won": [cas(0, 1, 0, 3, True), cas(0, 2, 1, 2, False), read(4, 5, 1)],
}

REFUSED = {
    "a lost update": [write(1, 0, 1, 0), read(2, 3, 0)],
    "an update lost to another": [write(1, 0, 3, 0), write(2, 0, 3, 0), read(4, 5, 2)],
    "a stale read": [write(1, 0, 1, 0), write(2, 2, 3, 1), read(4, 5, 1)],
    "a value read before it was written": [read(0, 1, 1), write(1, 2, 3, 0)],
    "a value that nobody wrote": [write(1, 0, 1, 0), read(2, 3, 7)],
    "new, then old": [write(1, 0, 9, 0), read(1, 2, 1), read(3, 4, 0)],
    "two swaps of one value both won": [cas(0, 1, 0, 3, True), cas(0, 2, 1, 2, True)],
    "a swap that lost has happened": [cas(0, 1, 0, 1, True), cas(0, 2, 2, 3, False), read(4, 5, 2)],
    "an unanswered one that has happened twice": [
        write(1, 0, None),
        read(1, 2, 1),
        write(2, 3, 4, 1),
        read(5, 6, 1),
    ],
}


@pytest.mark.parametrize("history", ACCEPTED.values(), ids=ACCEPTED)
def test_what_can_have_happened_is_accepted(history: list[Operation]) -> None:
    assert linearization(history, register, 0) is not None


@pytest.mark.parametrize("history", REFUSED.values(), ids=REFUSED)
def test_what_can_not_have_happened_is_refused(history: list[Operation]) -> None:
    assert linearization(history, register, 0) is None


def test_an_addition_applied_twice_is_refused() -> None:
    once = [add(5, 0, 1, 5), add(1, 2, None, UNTOLD)]
    assert linearization([*once, add(0, 3, 4, 6)], counter, 0) is not None
    assert linearization([*once, add(0, 3, 4, 7)], counter, 0) is None


def test_what_is_known_to_have_happened_has_although_its_result_is_not_known() -> None:
    sent = op(("add", 5), 0, 2, UNTOLD)
    assert linearization([sent, add(1, 1, 2, 1), add(0, 3, 4, 6)], counter, 0) is not None
    assert linearization([sent, add(1, 1, 2, 1), add(0, 3, 4, 1)], counter, 0) is None


def test_the_order_that_is_found_explains_each_answer() -> None:
    first, second, last = write(1, 0, 3, 2), write(2, 0, 3, 0), read(4, 5, 1)
    assert linearization([first, second, last], register, 0) == [second, first, last]


def test_a_history_too_unknown_to_be_judged_is_neither_accepted_nor_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("linearizability.CONFIGURATIONS_MAX", 1_000)
    unknown = [add(1 << number, 0, None, UNTOLD) for number in range(20)]
    with pytest.raises(Undecided):
        linearization([*unknown, add(0, 1, 2, 1 << 20)], counter, 0)


def generated(seed: int, count: int) -> list[Operation]:
    """A history of a real register: each takes effect at one moment of its time."""
    chooser = random.Random(seed)
    state, history = 0, []
    for number in range(1, count + 1):
        moment = number + chooser.random() / 2
        acts = [("read",), ("write", number), ("cas", chooser.choice([state, -1]), number)]
        act = chooser.choice(acts)
        state, result = register(state, act)
        invoked = moment - chooser.random() * 4
        if chooser.random() < 0.1:
            history.append(op(act, invoked, None, UNTOLD))
            continue
        history.append(op(act, invoked, moment + chooser.random() * 4, result))
    chooser.shuffle(history)
    return history


SEEDS = st.integers(0, 1 << 32)


@given(seed=SEEDS, count=st.integers(0, 60))
def test_any_history_of_a_real_register_is_accepted(seed: int, count: int) -> None:
    assert linearization(generated(seed, count), register, 0) is not None


def mutated(history: list[Operation], chooser: random.Random) -> list[Operation]:
    """The same with one answer that is another's: of a read or a write, the value of another."""
    values = [i for i, each in enumerate(history) if type(each.result) is int]
    changed = chooser.choice(values)
    other = history[changed].result
    while other == history[changed].result:
        other = chooser.randrange(len(history))
    it = history[changed]
    history[changed] = op(it.act, it.invoked, it.answered, other)
    return history


def test_most_histories_with_one_wrong_answer_are_refused_and_all_quickly() -> None:
    started = time.perf_counter()
    refused = 0
    for seed in range(300):
        history = mutated(generated(seed, 50), random.Random(seed))
        refused += linearization(history, register, 0) is None
    # The rest is right after all: two at once, and the other one's answer fits as well.
    assert refused >= 285, refused
    assert time.perf_counter() - started < 30
