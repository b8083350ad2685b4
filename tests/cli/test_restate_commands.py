"""`perdure serve --restate` and `perdure register`, as far as they need no Restate."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_support import Ask, environment, write_program

HANDLERS = "http://127.0.0.1:9080"
KEY = "publickeyv1_w7YHemBctH5Ck2nQRQ47iBBqhNHy4FV7t2Usbye2A6f"


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """`serve` sets up the log of its process, which here is that of all tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    write_program(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Ask(capsys)


@pytest.mark.parametrize(
    "option",
    [
        "--data=data",
        "--admin-host=127.0.0.1",
        "--admin-port=0",
        "--token-file=tokens",
        "--admin-token-file=tokens",
        "--limit=body_bytes=10",
        "--durability=os",
        "--guard=warn",
    ],
)
def test_what_is_an_engines_is_refused_under_restate(ask: Ask, option: str) -> None:
    done = ask("serve", "program", "--restate", option)
    assert done.code == 2
    assert done.err.startswith(f"perdure: {option.partition('=')[0]}: not with --restate\n")


def test_all_that_is_refused_is_named_at_once(ask: Ask) -> None:
    done = ask("serve", "program", "--restate", "--guard", "raise", "--data", "data")
    assert done.err.splitlines()[0] == "perdure: --data, --guard: not with --restate"


def test_an_identity_key_is_refused_without_restate(ask: Ask) -> None:
    done = ask("serve", "program", "--identity-key", KEY)
    assert (done.code, "only with --restate" in done.err) == (2, True)


def test_a_key_that_is_none_says_where_it_is_found(ask: Ask) -> None:
    done = ask("serve", "program", "--restate", "--identity-key", "secret")
    assert done.code == 2
    assert "'secret' is no identity key" in done.err
    assert "Restate's log" in done.err


def test_handlers_are_not_opened_to_everybody_without_a_key(ask: Ask) -> None:
    done = ask("serve", "program", "--restate", "--host", "0.0.0.0")
    assert done.code == 2
    assert "open to everybody who reaches 0.0.0.0" in done.err
    assert "--identity-key" in done.err


@pytest.mark.parametrize(
    ("target", "said"),
    [("progam", "did you mean program?"), ("program:VERSION", "no list of services")],
)
def test_a_target_without_services_is_told_as_by_serve(ask: Ask, target: str, said: str) -> None:
    done = ask("serve", target, "--restate")
    assert (done.code, said in done.err) == (2, True)


def test_services_that_can_not_be_served_are_told_before_it_listens(
    ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "twice.py").write_text("from program import *\nservices = [Order(), Order()]\n")
    done = ask("serve", "twice", "--restate", "--port", "0")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("perdure: ")


@pytest.mark.parametrize("missing", ["hypercorn", "restate"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    write_program(tmp_path)
    code = f"import sys; sys.modules[{missing!r}] = None; from perdure.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "program", "--restate"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"perdure: --restate needs {missing}",
        "pip install 'perdure[restate]'",
    ]


# ---- register ------------------------------------------------------------------------------------


def service(name: str, *handlers: str, revision: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "ty": "Workflow",
        "handlers": [{"name": each, "ty": "Shared"} for each in handlers],
        "deployment_id": "dp_1",
        "revision": revision,
        **more,
    }


@dataclass
class Admin:
    """What looks like Restate's admin API: it gives *answers*, one after the other.

    Attributes:
      asked: What it was asked, with its headers.
    """

    url: str
    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)

    def will_answer(self, status: int, *services: dict[str, Any], **body: Any) -> None:
        self.answers.append((status, body or {"id": "dp_1", "services": list(services)}))


@pytest.fixture
def admin() -> Iterator[Admin]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.asked.append((self.path, json.loads(body), dict(self.headers)))
            status, answer = made.answers.pop(0)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Admin(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def register(ask: Ask, admin: Admin) -> Any:
    return lambda *given: ask("register", HANDLERS, "--admin-url", admin.url, *given)


def test_it_shows_services_and_handlers_by_their_names(register: Any, admin: Admin) -> None:
    admin.will_answer(201, service("Order", "run", "paid"), service("Depot", "load", revision=7))
    done = register()
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        [HANDLERS, "is", "registered", "as", "dp_1"],
        [],
        ["service", "kind", "revision", "handlers"],
        ["Depot", "Workflow", "7", "load"],
        ["Order", "Workflow", "1", "paid,", "run"],
    ]
    assert admin.asked[0][:2] == ("/deployments", {"uri": HANDLERS, "force": False})


def test_what_is_registered_is_json_too(register: Any, admin: Admin) -> None:
    admin.will_answer(201, service("Order", "run", "paid"))
    assert register("--json").json == {
        "id": "dp_1",
        "url": HANDLERS,
        "is_new": True,
        "services": [
            {"name": "Order", "kind": "Workflow", "revision": 1, "handlers": ["paid", "run"]}
        ],
    }


def test_a_second_time_nothing_is_changed(register: Any, admin: Admin) -> None:
    admin.will_answer(200, service("Order", "run", "paid", revision=3), service("Depot", "load"))
    admin.will_answer(200, service("Depot", "load"), service("Order", "paid", "run", revision=4))
    done = register()
    assert (done.code, "unchanged" in done.out) == (0, True)
    assert admin.asked[1][1] == {"uri": HANDLERS, "force": True, "dry_run": True}


@pytest.mark.parametrize(
    "now",
    [
        [service("Order", "run", "paid"), service("Depot", "load")],
        [service("Order", "run"), service("Depot", "load"), service("Invoice", "run")],
        [service("Order", "run", journal_retention="2d"), service("Depot", "load")],
        [service("Depot", "load")],
    ],
)
def test_changed_code_at_a_registered_address_is_a_conflict(
    register: Any, admin: Admin, now: list[dict[str, Any]]
) -> None:
    admin.will_answer(200, service("Order", "run"), service("Depot", "load"))
    admin.will_answer(200, *now)
    done = register("--json")
    assert (done.code, done.out, done.error["kind"]) == (1, "", "Conflict")
    named = "Invoice" if len(now) == 3 else "Order"
    assert done.error["message"].endswith(f"other code is served there now: {named}")
    assert "at an address of its own" in done.error["hint"]
    assert "--force" in done.error["hint"]


def test_forced_it_takes_the_place_of_what_was_registered(register: Any, admin: Admin) -> None:
    admin.will_answer(200, service("Order", "run", revision=2))
    done = register("--force")
    assert (done.code, "is registered anew as dp_1" in done.out) == (0, True)
    assert [each[1] for each in admin.asked] == [{"uri": HANDLERS, "force": True}]


def test_headers_for_the_handlers_and_a_token_for_the_admin_are_sent(
    register: Any, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_ADMIN_TOKEN", "of-the-admin")
    admin.will_answer(201, service("Order", "run"))
    assert register("--header", "x-stage: test").code == 0
    _, body, headers = admin.asked[0]
    assert body["additional_headers"] == {"x-stage": "test"}
    assert headers["authorization"] == "Bearer of-the-admin"


@pytest.mark.parametrize(
    ("status", "code", "text", "exit_code", "said"),
    [
        (500, "META0003", "h2 pool connection error: Connection refused", 3, "127.0.0.1 is the co"),
        (500, "META0003", "got status code '401 Unauthorized'. Body:", 3, "--identity-key"),
        (500, "META0003", "got status code '404'. Make sure", 3, "something else answers"),
        (500, "META0014", "server possibly supports only HTTP1.1", 3, "with HTTP/2"),
        (409, "META0006", "changing the service type", 1, "at an address of its own"),
        (400, None, "The request field 'uri' is invalid.", 1, ""),
    ],
)
def test_what_restate_says_is_shown_with_a_remedy(
    register: Any,
    admin: Admin,
    *,
    status: int,
    code: str | None,
    text: str,
    exit_code: int,
    said: str,
) -> None:
    twice = f"[{code}] [{code}] {text}" if code else text
    admin.will_answer(status, message=twice, restate_code=code)
    done = register("--json")
    assert (done.code, done.out) == (exit_code, "")
    assert done.error["message"].endswith(f": {code} {text}" if code else f": {text}")
    assert said in done.error.get("hint", "")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"who are you?", "PERDURE_ADMIN_TOKEN"),
        (404, {"code": 404, "message": "not found"}, "no admin API of Restate's"),
        (200, b"<html>", "no admin API of Restate's"),
        (200, {"hello": "world"}, "no admin API of Restate's"),
    ],
)
def test_who_is_no_restate_is_told_from_one_that_refuses(
    register: Any, admin: Admin, status: int, body: Any, said: str
) -> None:
    admin.answers.append((status, body))
    done = register()
    assert (done.code, done.out, said in done.err) == (1, "", True)


def test_without_a_restate_it_says_where_it_was_looked_for(ask: Ask) -> None:
    done = ask("register", HANDLERS, "--admin-url", "http://127.0.0.1:1")
    assert (done.code, done.out) == (3, "")
    assert "no Restate server at http://127.0.0.1:1" in done.err


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9080", "localhost", "ftp://host", "http://", "http://h:x"]
)
def test_what_is_no_url_is_refused_before_anybody_is_asked(ask: Ask, url: str) -> None:
    done = ask("register", url)
    assert (done.code, "is no URL" in done.err) == (2, True)


def test_a_header_that_is_none_is_refused(ask: Ask) -> None:
    assert ask("register", HANDLERS, "--header", "x-stage").code == 2
