from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure._ids import (
    ID_TEXT_LENGTH,
    InvocationIdGenerator,
    created_at_ms,
    format_id,
    parse_id,
)
from perdure._limits import (
    IDEMPOTENCY_KEY_BYTES_MAX,
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    check_idempotency_key,
    check_key,
    check_name,
    check_payload_size,
)
from perdure.errors import InvalidInput


def generator(times_ms: list[int], seed: int = 1) -> InvocationIdGenerator:
    times = iter(times_ms)
    return InvocationIdGenerator(lambda: next(times), random.Random(seed).getrandbits)


def test_ids_of_one_millisecond_ascend() -> None:
    ids = generator([5] * 1000)
    made = [ids.next() for _ in range(1000)]
    assert made == sorted(set(made))


def test_ids_ascend_when_the_clock_is_set_back() -> None:
    ids = generator([1000, 2000, 10, 1999, 2000, 2001])
    made = [ids.next() for _ in range(6)]
    assert made == sorted(set(made))
    assert [created_at_ms(each) for each in made] == [1000, 2000, 2000, 2000, 2000, 2001]


def test_more_ids_than_a_millisecond_counts_still_ascend() -> None:
    ids = generator([7] * 70_000)
    made = [ids.next() for _ in range(70_000)]
    assert made == sorted(set(made))
    assert created_at_ms(made[-1]) == 8


def test_an_id_carries_its_millisecond() -> None:
    assert created_at_ms(generator([1_761_955_200_123]).next()) == 1_761_955_200_123


def test_one_seed_and_one_clock_give_the_same_ids() -> None:
    assert generator([5]).next() == generator([5]).next()
    assert generator([5], seed=2).next() != generator([5]).next()


@given(st.binary(min_size=16, max_size=16))
def test_the_text_form_comes_back(raw: bytes) -> None:
    text = format_id(raw)
    assert re.fullmatch(r"inv_[0-9a-v]{26}", text)
    assert parse_id(text) == raw


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_texts_sort_as_the_bytes_do(one: bytes, other: bytes) -> None:
    assert (one < other) == (format_id(one) < format_id(other))


VALID = format_id(bytes(16))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "inv_",
        "order-17",
        VALID[:-1],
        VALID + "0",
        VALID.upper(),
        VALID.replace("inv_", "prom"),
        VALID[:-1] + "1",  # bits beyond the 128th
        VALID[:-1] + "w",  # not in the alphabet
        VALID[:-1] + "é",
        VALID[:-1] + "=",
        b"inv_",
        None,
        17,
    ],
)
def test_what_is_no_id_is_refused_and_told_how_ids_look(text: object) -> None:
    with pytest.raises(InvalidInput, match="is not an invocation id; ids look like inv_"):
        parse_id(text)


def test_the_example_in_the_refusal_is_an_id() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_id("x")
    example = re.search(rf"inv_\w{{{ID_TEXT_LENGTH - 4}}}", str(caught.value))
    assert example is not None
    assert len(parse_id(example[0])) == 16


def test_a_long_text_is_not_repeated_whole_in_the_refusal() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_id("x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("check", "limit"),
    [
        (check_key, KEY_BYTES_MAX),
        (check_name, NAME_BYTES_MAX),
        (check_idempotency_key, IDEMPOTENCY_KEY_BYTES_MAX),
    ],
)
def test_limits_of_text_count_utf8_bytes_and_name_place_limit_and_size(
    check: Callable[[str, str], bytes],
    limit: int,
) -> None:
    assert check("x" * limit, "the place") == b"x" * limit
    over = "é" * (limit // 2 + 1)
    size = len(over.encode())
    with pytest.raises(InvalidInput, match=f"the place .* is {size} bytes .* limit is {limit}"):
        check(over, "the place")


def test_the_empty_key_is_a_key_and_the_empty_name_is_none() -> None:
    assert check_key("", "key") == b""
    with pytest.raises(InvalidInput, match="name of a step is empty"):
        check_name("", "name of a step")
    with pytest.raises(InvalidInput, match="idempotency key is empty"):
        check_idempotency_key("")


def test_a_lone_surrogate_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidInput, match=r"key of Order.* lone surrogate at index 1"):
        check_key("a\ud800", "key of Order")


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="key: expected `str`, got `int`"):
        check_key(7, "key")  # type: ignore[arg-type]


def test_a_payload_over_the_limit_is_refused_with_both_sizes() -> None:
    check_payload_size(PAYLOAD_BYTES_MAX, "argument of X.y")
    with pytest.raises(InvalidInput, match=r"argument of X\.y is 33,554,433 .* 33,554,432"):
        check_payload_size(PAYLOAD_BYTES_MAX + 1, "argument of X.y")
