from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.retry import DEFAULT_RETRY, RetryPolicy, no_retry


def test_the_default_doubles_from_half_a_second_up_to_a_minute() -> None:
    delays = [DEFAULT_RETRY.delay_ms(failed) for failed in range(1, 10)]
    assert delays == [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]


def test_the_default_gives_up_after_seventy_attempts_and_pauses() -> None:
    assert not DEFAULT_RETRY.exhausted(69, 10**12)
    assert DEFAULT_RETRY.exhausted(70, 0)
    assert DEFAULT_RETRY.on_exhausted == "pause"


def test_seconds_and_timedelta_make_equal_policies() -> None:
    written = RetryPolicy(initial=0.25, max_interval=10, max_duration=3600)
    spelled = RetryPolicy(
        initial=timedelta(milliseconds=250),
        max_interval=timedelta(seconds=10),
        max_duration=timedelta(hours=1),
    )
    assert written == spelled
    assert hash(written) == hash(spelled)


def test_delays_are_rounded_up_to_the_millisecond() -> None:
    assert RetryPolicy(initial=timedelta(microseconds=1)).delay_ms(1) == 1
    assert RetryPolicy(initial=0.001, factor=1.5).delay_ms(2) == 2


def test_a_factor_of_one_keeps_the_delay() -> None:
    assert RetryPolicy(initial=2, factor=1).delay_ms(50) == 2000


def test_no_initial_delay_stays_no_delay_however_often_it_fails() -> None:
    assert RetryPolicy(initial=0).delay_ms(100_000) == 0


def test_a_huge_count_of_failures_waits_the_longest_interval() -> None:
    assert RetryPolicy(factor=10, max_attempts=None).delay_ms(1_000_000) == 60_000


def test_no_limit_of_attempts_never_exhausts_by_count() -> None:
    assert not RetryPolicy(max_attempts=None).exhausted(10**9, 10**12)


def test_the_duration_exhausts_at_the_first_failure_after_it() -> None:
    policy = RetryPolicy(max_duration=1.5)
    assert not policy.exhausted(1, 1499)
    assert policy.exhausted(1, 1500)


def test_no_retry_is_exhausted_by_the_first_failure() -> None:
    assert no_retry().exhausted(1, 0)
    assert no_retry("kill").on_exhausted == "kill"


@given(st.integers(1, 200), st.floats(1, 10), st.floats(0, 60))
def test_delays_never_shrink_and_never_pass_the_longest_interval(
    failed: int, factor: float, initial: float
) -> None:
    policy = RetryPolicy(initial=initial, factor=factor)
    assert 0 <= policy.delay_ms(failed) <= policy.delay_ms(failed + 1) <= 60_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"initial": -1}, "initial must be"),
        ({"initial": math.nan}, "initial must be"),
        ({"initial": math.inf}, "initial must be"),
        ({"initial": True}, "initial must be"),
        ({"initial": "1s"}, "initial must be"),
        ({"initial": 90}, "give both"),
        ({"max_interval": timedelta(-1)}, "max_interval must be"),
        ({"max_duration": -0.1}, "max_duration must be"),
        ({"factor": 0.5}, "factor must be 1 or more"),
        ({"factor": math.inf}, "factor must be 1 or more"),
        ({"factor": math.nan}, "factor must be 1 or more"),
        ({"max_attempts": 0}, "max_attempts must be"),
        ({"max_attempts": 1.5}, "max_attempts must be"),
        ({"max_attempts": True}, "max_attempts must be"),
        ({"on_exhausted": "stop"}, "on_exhausted must be 'pause' or 'kill'"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_field(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=rf"RetryPolicy\.{said}|{said}"):
        RetryPolicy(**options)
