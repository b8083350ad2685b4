"""What is given on the command line, read as values."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perdure.cli._failures import CommandError
from perdure.cli._output import one_line, plain
from perdure.cli._times import moment, span
from perdure.cli._values import (
    duration_of,
    headers_of,
    json_of,
    keyed_of,
    promise_of,
    target_of,
)


@pytest.mark.parametrize(
    ("text", "key", "handler", "expected_key"),
    [
        ("Greeter/greet", None, "Greeter.greet", None),
        ("Order/o-1/run", None, "Order.run", "o-1"),
        ("Order/a/b/run", None, "Order.run", "a/b"),
        ("Order//run", None, "Order.run", ""),
        ("Order.run", "o-1", "Order.run", "o-1"),
        ("Order/run", "o-1", "Order.run", "o-1"),
        ("shop.Order/o-1/run", None, "shop.Order.run", "o-1"),
        ("shop.Order.run", "k", "shop.Order.run", "k"),
    ],
)
def test_a_handler_is_named_with_its_key_inside_or_beside(
    text: str, key: str | None, handler: str, expected_key: str | None
) -> None:
    assert target_of(text, key) == (handler, expected_key)


@pytest.mark.parametrize(
    "text", ["", "Greeter", "/greet", "Greeter/", "Order/k/", ".run", "Order."]
)
def test_what_names_no_handler_is_refused_with_the_forms_that_do(text: str) -> None:
    with pytest.raises(CommandError, match="write Service/handler, or Service/key/handler"):
        target_of(text, None)


def test_two_keys_are_refused() -> None:
    with pytest.raises(CommandError, match="give one"):
        target_of("Order/o-1/run", "o-2")


def test_a_promise_and_a_key_may_have_slashes_in_the_key() -> None:
    assert promise_of("Order/a/b/place") == ("Order.place", "a/b")
    assert keyed_of("Order/a/b") == ("Order", "a/b")


@pytest.mark.parametrize("text", ["Order", "Order/place", "/k/place", "Order/k/"])
def test_what_names_no_promise_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="write Workflow/key/promise"):
        promise_of(text)


def test_an_argument_is_json_a_file_or_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "argument.json"
    file.write_text('{"item": "é"}', "utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))
    assert json_of('"a book"') == "a book"
    assert json_of(f"@{file}") == {"item": "é"}
    assert json_of("-") == [1, 2]


def test_a_file_may_begin_and_end_its_lines_as_on_windows(tmp_path: Path) -> None:
    file = tmp_path / "argument.json"
    file.write_bytes(b'\xef\xbb\xbf{"item":\r\n1}\r\n')
    assert json_of(f"@{file}") == {"item": 1}


def test_a_text_that_is_no_json_is_shown_as_it_has_to_be_quoted() -> None:
    with pytest.raises(CommandError) as caught:
        json_of("bob's")
    assert caught.value.failure.hint.endswith(""" shell: '"bob'\\''s"'""")


def test_an_object_that_is_no_json_is_not_taken_for_a_string() -> None:
    with pytest.raises(CommandError) as caught:
        json_of("{item: 1}")
    assert caught.value.failure.hint == "an argument is JSON, @FILE, or - for stdin"


def test_a_file_that_is_not_there_or_holds_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"can not read .*nothing.json.*: No such file"):
        json_of(f"@{tmp_path}/nothing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CommandError, match=r"bad.json is no JSON"):
        json_of(f"@{tmp_path}/bad.json")


def test_durations_have_units() -> None:
    assert duration_of("2h 30m", "--delay") == timedelta(hours=2, minutes=30)
    with pytest.raises(CommandError, match=r"--delay: '10' is no duration: a number with a unit"):
        duration_of("10", "--delay")


def test_headers_are_names_and_values() -> None:
    assert headers_of(["x-user: ada", "x-empty:"]) == {"x-user": "ada", "x-empty": ""}
    with pytest.raises(CommandError, match="write it as 'name: value'"):
        headers_of(["x-user"])


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(minutes=2, seconds=5), "2m 5s"),
        (timedelta(hours=3), "3h"),
        (timedelta(days=1, seconds=3), "1d"),
        (timedelta(days=2, hours=5, minutes=59), "2d 5h"),
        (timedelta(seconds=-5), "0s"),
    ],
)
def test_a_span_has_its_two_greatest_units(length: timedelta, text: str) -> None:
    assert span(length) == text


def test_a_moment_says_how_far_away_it_is() -> None:
    now = datetime.now(UTC)
    assert moment(now - timedelta(hours=2, seconds=1)).endswith("UTC, 2h ago")
    assert moment(now + timedelta(hours=2, seconds=1)).endswith("UTC, in 2h")
    assert moment(None) == ""


def test_what_a_terminal_would_obey_is_shown_escaped() -> None:
    assert plain("\x1b[31mred\x9b\ttab\nline\r") == "\\x1b[31mred\\x9b\ttab\nline\\x0d"
    assert one_line("first\nsecond") == "first …"
