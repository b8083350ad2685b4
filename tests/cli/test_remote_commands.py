"""Each command against a server that is another process."""

from __future__ import annotations

import io
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import NOWHERE, SECONDS_MAX, Ask, Server, asking, serving

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def ask(server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    return asking(server.environment, capsys, monkeypatch)


@pytest.fixture
def alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    return asking(NOWHERE, capsys, monkeypatch)


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"k-{next(_numbers)}"


def send(ask: Ask, *arguments: str) -> str:
    """Send, and say the invocation's id."""
    sent = ask.json("send", *arguments)
    assert sent["accepted"] == "Accepted"
    return str(sent["id"])


def until(ask: Ask, id: str, status: str) -> Any:
    """The description of an invocation, once it has *status*."""
    deadline = time.monotonic() + SECONDS_MAX
    while (found := ask.json("describe", id))["status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


# ---- call, send, attach -------------------------------------------------------------------------


def test_call_prints_the_result_as_json(ask: Ask) -> None:
    done = ask("call", "Greeter/greet", '"ada"')
    assert (done.code, done.out, done.err) == (0, '"hi ada from one"\n', "")


def test_a_handler_of_a_key_is_called_in_each_form(ask: Ask, key: str) -> None:
    totals = [
        ask.json("call", f"Counter/{key}/add", "1"),
        ask.json("call", "Counter/add", "1", "--key", key),
        ask.json("call", "Counter.add", "1", "--key", key),
    ]
    assert totals == [1, 2, 3]


def test_an_argument_comes_from_a_file_or_from_stdin(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "name.json").write_text('"eve"')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"bob"')))
    assert ask.json("call", "Greeter/greet", f"@{tmp_path}/name.json") == "hi eve from one"
    assert ask.json("call", "Greeter/greet", "-") == "hi bob from one"


def test_bytes_go_in_and_come_out_as_they_are(ask: Ask) -> None:
    done = ask("call", "Greeter/raw", '"abc', "--raw")
    assert (done.code, done.out) == (0, 'cba"')


def test_a_header_reaches_the_handler(ask: Ask) -> None:
    said = ask.json("call", "Greeter/header", '"x-user"', "--header", "x-user: ada")
    assert said == "ada"


def test_a_second_call_with_an_idempotency_key_gets_the_first_result(ask: Ask, key: str) -> None:
    once = ("--idempotency-key", "o-1")
    assert ask.json("call", f"Counter/{key}/add", "2", *once) == 2
    assert ask.json("call", f"Counter/{key}/add", "2", *once) == 2


def test_a_failure_of_the_handler_is_exit_code_1_with_its_message(ask: Ask) -> None:
    done = ask("call", "Greeter/refuse", "418")
    assert (done.code, done.out, done.err) == (1, "", "perdure: no tea\n")


def test_under_json_a_failure_is_json_on_stderr(ask: Ask) -> None:
    done = ask("call", "Greeter/refuse", "418", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.error == {
        "kind": "TerminalError",
        "message": "no tea",
        "code": 418,
        "metadata": {"shop": "closed"},
        "exit_code": 1,
    }


def test_an_argument_of_a_wrong_type_is_exit_code_2_with_its_place(ask: Ask) -> None:
    done = ask("call", "Greeter/greet", "3")
    assert done.code == 2
    assert "argument of Greeter.greet: expected `str`, got `int`" in done.err


def test_a_text_without_quotes_is_shown_with_them(ask: Ask) -> None:
    done = ask("call", "Greeter/greet", "ada")
    assert done.code == 2
    assert """inside those for the shell: '"ada"'""" in done.err


@pytest.mark.parametrize("handler", ["Greeter/nothing", "Nobody/greet"])
def test_a_handler_that_is_not_there_is_exit_code_4(ask: Ask, handler: str) -> None:
    assert ask("call", handler).code == 4


def test_a_workflow_is_sent_once_and_attached_to(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    again = ask.json("send", f"Order/{key}/run", '"a pen"')
    assert again == {"id": id, "accepted": "PreviouslyAccepted"}
    not_yet = ask("attach", id, "--now")
    assert not_yet.code == 1
    assert ask("promise", "resolve", f"Order/{key}/place", '"the door"').code == 0
    assert ask.json("attach", id) == "a book to the door"
    assert ask.json("attach", id, "--now") == "a book to the door"


def test_a_delayed_send_begins_later(ask: Ask, key: str) -> None:
    id = send(ask, f"Counter/{key}/add", "1", "--delay", "1h")
    assert ask.json("describe", id)["status"] == "scheduled"


# ---- promises and awakeables --------------------------------------------------------------------


def test_promises_are_listed_with_who_waits(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    until(ask, id, "suspended")
    assert ask.json("promise", "ls", f"Order/{key}")["promises"] == [
        {"name": "place", "status": "pending", "value": None, "failure": None, "waiters": [id]}
    ]
    ask.json("promise", "resolve", f"Order/{key}/place", '"the door"')
    name, status, value = ask("promise", "ls", f"Order/{key}").out.splitlines()[1].split(None, 2)
    assert (name, status, value) == ("place", "resolved", '"the door"')


def test_a_rejected_promise_fails_who_waits_with_reason_and_code(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    told = ask("promise", "reject", f"Order/{key}/place", "sold out", "--code", "410")
    assert told.out == f"Order/{key}/place is rejected\n"
    failed = ask("attach", id, "--json").error
    assert (failed["message"], failed["code"]) == ("sold out", 410)
    assert "sold out" in ask("promise", "ls", f"Order/{key}").out


def test_a_promise_completed_twice_is_refused(ask: Ask, key: str) -> None:
    ask.json("promise", "resolve", f"Order/{key}/place", '"the door"')
    again = ask("promise", "resolve", f"Order/{key}/place", '"the door"', "--json")
    assert (again.code, again.error["kind"]) == (1, "AlreadyCompleted")


@pytest.mark.parametrize(
    ("verb", "value", "code", "text"),
    [("resolve", '"by card"', 0, '"by card"'), ("reject", "card refused", 1, "card refused")],
)
def test_an_awakeable_is_completed_by_its_id(
    ask: Ask, key: str, verb: str, value: str, code: int, text: str
) -> None:
    id = send(ask, f"Order/{key}/paid")
    until(ask, id, "suspended")
    bill = ask.json("promise", "ls", f"Order/{key}")["promises"][0]["value"]
    assert ask.json("awakeable", verb, bill, value)["status"].startswith(verb)
    ended = ask("attach", id)
    assert (ended.code, text in ended.out + ended.err) == (code, True)


# ---- looking ------------------------------------------------------------------------------------


def test_ps_shows_what_each_waits_for(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    until(ask, id, "suspended")
    header, line = ask("ps", "--service", "Order", "--key", key).out.splitlines()
    assert header.split() == [
        *("ID", "INVOCATION", "STATUS", "AGE", "ATTEMPT"),
        *("WAITING", "FOR", "/", "LAST", "FAILURE"),
    ]
    assert line.split(None, 3)[:3] == [id, f"Order/{key}/run", "suspended"]
    assert line.endswith("promise 'place'")


def test_ps_shows_the_last_failure_of_what_backs_off(ask: Ask) -> None:
    id = send(ask, "Greeter/fail")
    until(ask, id, "backing-off")
    listed = ask("ps", "--handler", "fail", "--status", "backing-off,paused").out
    assert "RuntimeError: the kettle is cold" in listed
    assert "last failure  RuntimeError: the kettle is cold" in ask("describe", id).out
    ask.json("kill", id)


def test_ps_goes_on_where_a_listing_ended(ask: Ask, key: str) -> None:
    ids = [send(ask, f"Counter/{key}/add", "1") for _ in range(3)]
    first = ask.json("ps", "--key", key, "--limit", "2")
    rest = ask.json("ps", "--key", key, "--cursor", first["cursor"])
    assert [each["id"] for each in [*first["items"], *rest["items"]]] == ids
    assert rest["cursor"] is None
    assert "there are more: --cursor" in ask("ps", "--key", key, "--limit", "2").err


def test_ps_says_on_stderr_that_there_are_none(ask: Ask) -> None:
    done = ask("ps", "--older-than", "1d")
    assert (done.code, done.out, done.err) == (0, "", "there are none\n")
    assert ask.json("ps", "--older-than", "1d") == {"items": [], "cursor": None}


def test_a_filter_that_can_match_nothing_is_a_mistake_of_usage(ask: Ask) -> None:
    done = ask("ps", "--status", "asleep")
    assert done.code == 2
    assert "'asleep' is no status; there are scheduled, " in done.err


def test_describe_tells_what_it_waits_for_where_and_the_journal(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    until(ask, id, "suspended")
    told = ask("describe", id).out
    lines = told.splitlines()
    assert lines[0].split() == ["id", id]
    assert ["status", "suspended"] in [line.split() for line in lines]
    waits = next(line for line in lines if line.startswith("  promise 'place', for "))
    assert "program.py:" in waits
    assert "without a timeout: if nobody acts, it waits for ever" in told
    assert "set state 'item': 'a book'" in told


def test_describe_of_what_was_paused_tells_how_it_goes_on(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    until(ask, id, "suspended")
    ask("pause", id)
    told = ask("describe", id).out
    assert f"perdure resume {id}" in told
    assert "it waits for ever" not in told


def test_describe_of_what_backs_off_says_that_nothing_is_done_yet(ask: Ask) -> None:
    id = send(ask, "Greeter/fail")
    until(ask, id, "backing-off")
    told = ask("describe", id).out
    assert "the kettle is cold" in told
    assert "(nothing yet)" in told


def test_the_failure_before_a_pause_is_told_after_it(ask: Ask) -> None:
    id = send(ask, "Greeter/fail")
    until(ask, id, "backing-off")
    ask("pause", id)
    told = ask("describe", id).out
    assert "paused by hand" in told
    assert "the kettle is cold" in told


def test_describe_shows_a_part_of_the_journal(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    until(ask, id, "suspended")
    found = ask.json("describe", id, "--from", "1", "--limit", "1")
    assert [each["index"] for each in found["journal"]] == [1]
    assert found["journal_next"] == 2
    assert "more, from entry 2" in found["timeline"]


def test_an_id_may_be_copied_with_the_space_around_it(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    assert ask.json("describe", f" {id}\n")["id"] == id
    assert ask.json("pause", f"{id} ") == {"id": id, "done": True}
    assert ask("attach", f"{id} ", "--now").code == ask("attach", id, "--now").code


def test_a_token_file_that_can_not_be_read_is_a_mistake_of_usage(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"t\xff\n")
    for name, said in (("binary", "it is not UTF-8"), ("none", "No such file")):
        done = ask("ps", "--admin-token-file", str(tmp_path / name), "--json")
        assert (done.code, done.error["kind"]) == (2, "Usage")
        assert said in done.error["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("inv_06h2rot3r4001iod0i8gvoss7c",), 4), (("no-id",), 2)],
)
def test_an_id_of_nothing_is_told_from_what_is_no_id(
    ask: Ask, arguments: tuple[str, ...], code: int
) -> None:
    assert ask("describe", *arguments).code == code


def test_sql_is_asked_of_the_server(ask: Ask, key: str, tmp_path: Path) -> None:
    for _ in range(2):
        send(ask, f"Counter/{key}/add", "1")
    (tmp_path / "query.sql").write_text(
        f"SELECT id, version FROM sys_invocation WHERE target_service_key = '{key}' ORDER BY 1"
    )
    found = ask.json("sql", f"@{tmp_path}/query.sql", "--limit", "1")
    assert (found["columns"], found["truncated"]) == (["id", "version"], True)
    assert [row["version"] for row in found["rows"]] == [1]
    told = ask("sql", f"@{tmp_path}/query.sql", "--limit", "1")
    assert told.out.split()[:2] == ["id", "version"]
    assert told.err == "there are more than these 1: see --limit\n"


def test_what_is_no_query_is_refused(ask: Ask) -> None:
    assert ask("sql", "SELEC").code == 2
    assert ask("sql", "SELECT 1", "--timeout", "0").code == 2


def test_state_is_shown_and_replaced(ask: Ask, key: str) -> None:
    assert ask.json("state", "set", f"Counter/{key}", '{"total": 3, "x": null}') == {
        "service": "Counter",
        "key": key,
        "names": ["total", "x"],
    }
    assert ask.json("call", f"Counter/{key}/add", "1") == 4
    assert ask.json("state", "get", f"Counter/{key}") == {"total": 4, "x": None}
    assert ask("state", "get", f"Counter/{key}", "total").out == "4\n"
    assert ask("state", "get", f"Counter/{key}", "nothing").code == 4


def test_state_that_is_no_object_is_refused(ask: Ask, key: str) -> None:
    done = ask("state", "set", f"Counter/{key}", "[1]")
    assert (done.code, "state is a JSON object" in done.err) == (2, True)


# ---- acting -------------------------------------------------------------------------------------


def test_a_cancelled_invocation_ends_and_is_purged(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    assert ask("cancel", id).out == f"{id} is cancelled\n"
    until(ask, id, "completed")
    assert ask("cancel", id).out == f"{id} had completed before\n"
    assert ask.json("purge", id) == {"id": id, "done": True}
    assert ask("describe", id).code == 4


def test_an_unfinished_invocation_is_not_purged(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    done = ask("purge", id, "--json")
    assert (done.code, done.error["kind"]) == (1, "Conflict")


def test_a_paused_invocation_goes_on_when_resumed(ask: Ask, key: str) -> None:
    id = send(ask, f"Order/{key}/run", '"a book"')
    until(ask, id, "suspended")
    assert ask.json("pause", id) == {"id": id, "done": True}
    assert until(ask, id, "paused")["status"] == "paused"
    assert ask.json("pause", id) == {"id": id, "done": False}
    assert ask("resume", id).out == f"{id} goes on\n"
    assert ask("resume", id).out == f"{id} was not paused\n"
    assert ask.json("describe", id)["status"] == "suspended"


def test_a_completed_invocation_is_restarted_under_a_new_id(ask: Ask) -> None:
    id = send(ask, "Greeter/greet", '"ada"')
    until(ask, id, "completed")
    new_id = ask("restart", id).out.strip()
    assert new_id not in ("", id)
    assert ask.json("attach", new_id) == "hi ada from one"


def test_verbs_act_on_all_that_a_filter_means(ask: Ask, key: str) -> None:
    ids = [send(ask, "Greeter/wait", "--idempotency-key", f"{key}-{n}") for n in range(3)]
    for id in ids:
        until(ask, id, "suspended")
    wait = ("--handler", "Greeter.wait")
    assert ask.json("pause", *wait) == {"count": 3}
    assert ask("resume", *wait, "--status", "paused").out == "resume: 3 invocations\n"
    assert ask.json("kill", *wait) == {"count": 3}
    assert ask.json("purge", *wait) == {"count": 3}


@pytest.mark.parametrize("verb", ["cancel", "kill", "pause", "resume", "purge", "restart"])
def test_a_verb_that_is_told_nothing_does_nothing(ask: Ask, verb: str) -> None:
    done = ask(verb)
    assert (done.code, done.err.splitlines()[0]) == (2, f"perdure: {verb} what?")


def test_an_id_and_a_filter_together_are_refused(ask: Ask) -> None:
    assert ask("cancel", "inv_06h2rot3r4001iod0i8gvoss7c", "--all").code == 2
    assert ask("restart", "--from", "3", "--all").code == 2


def test_doctor_checks_the_code_of_the_server_against_its_journals(ask: Ask, key: str) -> None:
    send(ask, f"Order/{key}/run", '"a book"')
    found = ask.json("doctor")
    assert found["ok"] is True
    assert found["counts"]["safe"] >= 1
    assert "unfinished invocations" in ask("doctor").out
    assert ask("doctor", "--deep").code == 2


# ---- everywhere ---------------------------------------------------------------------------------


def test_the_url_may_be_an_option(ask: Ask, server: Server, monkeypatch: Any) -> None:
    monkeypatch.delenv("PERDURE_URL")
    monkeypatch.delenv("PERDURE_ADMIN_URL")
    assert ask("ps", "--admin-url", server.admin_url).code == 0
    assert ask("call", "Greeter/greet", '"ada"', "--url", server.url).code == 0


def test_control_characters_of_a_service_do_not_reach_the_terminal(ask: Ask, key: str) -> None:
    evil = f"{key}-\x1b[31m"
    id = send(ask, "Order.run", '"\\u001b]0;owned\\u0007\u009b"', "--key", evil)
    until(ask, id, "suspended")
    shown = ask("ps", "--key", evil).out + ask("describe", id).out
    shown += ask("state", "get", f"Order/{evil}").out
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert f"Order/{key}-\\x1b[31m/run" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",),
        ("describe", "inv_06h2rot3r4001iod0i8gvoss7c"),
        ("call", "Greeter/greet"),
        ("send", "Greeter/greet"),
        ("attach", "inv_06h2rot3r4001iod0i8gvoss7c"),
        ("cancel", "--all"),
        ("state", "get", "Counter/c"),
        ("promise", "ls", "Order/o"),
        ("awakeable", "resolve", "sign_1"),
        ("sql", "SELECT 1"),
        ("doctor",),
        ("backup", "nowhere"),
    ],
)
def test_without_a_server_each_command_says_so_at_once(
    alone: Ask, arguments: tuple[str, ...]
) -> None:
    began = time.monotonic()
    done = alone(*arguments, "--json")
    assert (done.code, done.out) == (3, "")
    assert done.error["message"] == "there is no server at http://127.0.0.1:1 (Connection refused)"
    assert "perdure serve" in done.error["hint"]
    assert time.monotonic() - began < 5


def test_a_url_that_is_none_is_a_mistake_of_usage(alone: Ask) -> None:
    assert alone("ps", "--admin-url", "localhost:9070").code == 2
    assert alone("ps", "--admin-url", "http://localhost:99999").code == 2


def test_versions_are_told_without_a_server(alone: Ask) -> None:
    found = alone.json("version")
    assert set(found) == {"perdure", "python", "lmdb", "platform"}
    assert alone("--version").out == f"perdure {found['perdure']}\n"


def test_a_mistyped_command_is_answered_with_the_one_that_is_meant(alone: Ask) -> None:
    done = alone("descrbe")
    assert (done.code, "Did you mean 'describe'?" in done.err) == (2, True)
    assert "`perdure --help`" in done.err


def test_a_mistyped_option_is_json_under_json(alone: Ask) -> None:
    done = alone("ps", "--sttus", "x", "--json")
    assert (done.code, done.error["kind"], done.error["exit_code"]) == (2, "Usage", 2)
    assert json.loads(done.err)["error"]["hint"].startswith("`perdure ps --help`")


def test_without_a_command_the_help_is_shown(alone: Ask) -> None:
    done = alone()
    assert (done.code, done.err) == (2, "")
    assert "serve" in done.out
