"""Tokens, and answers that tell a stranger nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from engine_support import run
from server_support import Answer, Asked, guarded, length_app

from perdure.http import Tokens, _tokens
from perdure.http._requests import Message, Receive, Scope, Send
from perdure.http._security import admin_error

TOKEN = "first-token-of-the-tests"
OTHER = "other-token-of-the-tests"
GUARDED = guarded(tokens=Tokens([TOKEN, OTHER]), open_paths=["/restate/health"])


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


def ask(app: object = GUARDED, **request: object) -> Answer:
    return run(Asked(app, **request).answer())  # type: ignore[arg-type] # what a test says


class TurnedClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TokenFile:
    """A file of tokens, and the tokens read from it."""

    def __init__(self, path: Path, text: str, mode: int = 0o600) -> None:
        self.path = path
        self.clock = TurnedClock()
        self.write(text, mode)
        self.tokens = Tokens.from_file(path, now=self.clock)

    def write(self, text: str, mode: int = 0o600) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(self.path)

    def accepted(self) -> list[str]:
        """Those accepted when a second has passed."""
        self.clock.now += 1.0
        return [each for each in (TOKEN, OTHER) if self.tokens.accepts(each.encode())]


@pytest.fixture
def token_file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens", f"# of the tests\n\n{TOKEN}\n")


# ---- tokens -------------------------------------------------------------------------------------


def test_a_request_without_a_token_is_refused_in_the_form_of_the_ingress() -> None:
    refused = ask()
    assert (refused.status, refused.headers[b"www-authenticate"]) == (401, b"Bearer")
    assert refused.headers[b"x-restate-error-source"] == b"ingress"
    assert (refused.json["code"], refused.json["source"]) == (401, "ingress")


def test_a_request_without_a_token_is_refused_in_the_form_of_the_admin_app() -> None:
    refused = ask(guarded(tokens=Tokens([TOKEN]), form=admin_error))
    assert (refused.status, refused.json["code"], refused.json["restate_code"]) == (401, 401, None)
    assert set(refused.json) == {"message", "restate_code", "code"}


@pytest.mark.parametrize("token", [TOKEN, OTHER])
def test_each_of_the_tokens_opens_the_app(token: str) -> None:
    assert ask(headers=bearer(token), body=[b"four"]).body == b"4"


def test_the_scheme_may_be_written_in_any_case() -> None:
    assert ask(headers=[(b"authorization", f"bEARER {TOKEN}".encode())]).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer("another"),
        bearer(TOKEN[:-1]),
        bearer(f"{TOKEN}x"),
        bearer(""),
        bearer(TOKEN) + bearer(TOKEN),
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", f"Basic {TOKEN}".encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
    ],
)
def test_no_other_header_does(headers: list[tuple[bytes, bytes]]) -> None:
    assert ask(headers=headers).status == 401


def test_every_token_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return left == right

    monkeypatch.setattr(_tokens, "compare_digest", compare)
    tokens = Tokens([TOKEN, OTHER])
    assert tokens.accepts(TOKEN.encode())
    assert len(compared) == 2


@pytest.mark.parametrize("root_path", ["", "/durable"])
def test_health_needs_no_token(root_path: str) -> None:
    assert ask(path=f"{root_path}/restate/health", root_path=root_path).status == 200


def test_a_path_that_only_begins_like_health_needs_one() -> None:
    assert ask(path="/restate/health/x").status == 401


def test_a_preflight_needs_no_token() -> None:
    headers = [(b"origin", b"https://site.example"), (b"access-control-request-method", b"POST")]
    assert ask(method="OPTIONS", headers=headers).status == 200


def test_options_that_are_no_preflight_need_one() -> None:
    assert ask(method="OPTIONS").status == 401


@pytest.mark.parametrize("token", ["", "two words", "ümlaut", "line\n"])
def test_what_can_not_be_a_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="token 1: a token has letters") as refused:
        Tokens([token])
    assert not token or token not in str(refused.value)


def test_a_file_that_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"t\xff\n")
    with pytest.raises(ValueError, match="tokens: it is not UTF-8"):
        Tokens.from_file(tmp_path / "tokens")


def test_no_tokens_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="there is none"):
        Tokens([])


# ---- a file of tokens ---------------------------------------------------------------------------


def test_a_token_is_changed_without_a_restart_and_without_a_gap(token_file: TokenFile) -> None:
    assert token_file.accepted() == [TOKEN]
    token_file.write(f"{TOKEN}\n{OTHER}\n")
    assert token_file.accepted() == [TOKEN, OTHER]
    token_file.write(OTHER)
    assert token_file.accepted() == [OTHER]


def test_a_token_of_the_same_length_that_is_written_in_its_place_is_noticed(
    token_file: TokenFile,
) -> None:
    token_file.path.write_text(token_file.path.read_text().replace(TOKEN, OTHER))
    assert token_file.accepted() == [OTHER]
    token_file.path.write_text(token_file.path.read_text().replace(OTHER, TOKEN))
    assert token_file.accepted() == [TOKEN]


def test_a_file_is_looked_at_no_more_than_once_a_second(token_file: TokenFile) -> None:
    token_file.accepted()
    token_file.write(OTHER)
    token_file.clock.now += 0.9
    assert token_file.tokens.accepts(TOKEN.encode())
    token_file.clock.now += 0.1
    assert not token_file.tokens.accepts(TOKEN.encode())


@pytest.mark.parametrize("text", ["", "# none\n", "two words\n", f"{OTHER}\ntwo words\n"])
def test_a_file_that_has_become_wrong_leaves_the_tokens_as_they_were(
    token_file: TokenFile, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.write(text)
    assert token_file.accepted() == [TOKEN]
    assert token_file.accepted() == [TOKEN]
    told = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(told) == 1  # not once a second
    assert str(token_file.path) in told[0].getMessage()


def test_a_file_that_is_no_text_any_more_is_named_and_leaves_the_tokens_as_they_were(
    token_file: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.path.write_bytes(b"\xff\xfe")
    assert token_file.accepted() == [TOKEN]
    (told,) = caplog.messages
    assert str(token_file.path) in told
    assert "0xff" not in told


def test_a_file_that_is_away_for_a_while_leaves_the_tokens_as_they_were(
    token_file: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.path.unlink()
    assert token_file.accepted() == [TOKEN]
    assert token_file.accepted() == [TOKEN]
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    token_file.write(OTHER)
    assert token_file.accepted() == [OTHER]


def test_a_file_that_can_not_be_read_at_the_start_is_no_open_door(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Tokens.from_file(tmp_path / "nothing")
    (tmp_path / "empty").touch(0o600)
    with pytest.raises(ValueError, match="there is none"):
        Tokens.from_file(tmp_path / "empty")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True)])
def test_a_file_that_others_may_read_gives_a_warning(
    tmp_path: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    TokenFile(tmp_path / "tokens", TOKEN, mode)
    assert ("chmod 600" in caplog.text) is warned


# ---- the environment ----------------------------------------------------------------------------


def test_a_variable_holds_several_tokens_with_commas_between() -> None:
    tokens = Tokens.from_environment("PERDURE_TOKEN", {"PERDURE_TOKEN": f"{TOKEN}, {OTHER},"})
    assert tokens is not None
    assert tokens.accepts(TOKEN.encode())
    assert tokens.accepts(OTHER.encode())


def test_a_variable_names_a_file(token_file: TokenFile) -> None:
    path = os.fspath(token_file.path)
    tokens = Tokens.from_environment("PERDURE_TOKEN", {"PERDURE_TOKEN_FILE": path})
    assert tokens is not None
    assert tokens.accepts(TOKEN.encode())


def test_no_variable_is_no_tokens() -> None:
    assert Tokens.from_environment("PERDURE_TOKEN", {}) is None


def test_an_empty_variable_is_a_mistake_and_no_open_door() -> None:
    with pytest.raises(ValueError, match="PERDURE_TOKEN: "):
        Tokens.from_environment("PERDURE_TOKEN", {"PERDURE_TOKEN": " "})


def test_both_variables_at_once_are_refused() -> None:
    both = {"PERDURE_TOKEN": TOKEN, "PERDURE_TOKEN_FILE": "tokens"}
    with pytest.raises(ValueError, match="both set"):
        Tokens.from_environment("PERDURE_TOKEN", both)


# ---- what is not told ---------------------------------------------------------------------------


async def failing_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a secret of the server")


def test_a_failure_of_the_app_is_told_to_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = ask(guarded(failing_app))
    assert (told.status, told.json["message"]) == (500, "internal error")
    assert b"secret" not in told.body
    assert "RuntimeError: a secret of the server" in caplog.text
    assert "Traceback" in caplog.text


async def half_answering_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("in the middle")


def test_a_failure_in_an_answer_is_left_to_the_server_which_cuts_it_off() -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        ask(guarded(half_answering_app))


def test_no_token_reaches_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    file = TokenFile(tmp_path / "tokens", TOKEN, 0o644)
    app = guarded(failing_app, tokens=file.tokens)
    ask(app, headers=bearer(TOKEN))
    ask(app, headers=bearer("a-wrong-token"))
    file.write(f"{OTHER}\nbad {TOKEN}\n")
    file.accepted()
    text = caplog.text + repr(file.tokens) + repr(vars(file.tokens))
    assert [each for each in (TOKEN, OTHER, "a-wrong-token") if each in text] == []


# ---- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [bearer(TOKEN), []], ids=["answered", "refused"])
def test_each_answer_has_the_headers_that_keep_browsers_careful(
    headers: list[tuple[bytes, bytes]],
) -> None:
    told = ask(headers=headers).headers
    assert told[b"x-content-type-options"] == b"nosniff"
    assert told[b"referrer-policy"] == b"no-referrer"
    assert told[b"cache-control"] == b"no-store"


async def page_app(scope: Scope, receive: Receive, send: Send) -> None:
    html = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"max-age=60")]
    await send({"type": "http.response.start", "status": 200, "headers": html})
    await send({"type": "http.response.body"})


def test_a_page_has_a_content_policy_and_keeps_its_own_caching() -> None:
    told = ask(guarded(page_app)).headers
    assert told[b"content-security-policy"].startswith(b"default-src 'none'")
    assert told[b"cache-control"] == b"max-age=60"


# ---- a server without a token, and the browser on its machine ---------------------------------


def local() -> object:
    guard = guarded()
    guard.local_only = True
    return guard


@pytest.mark.parametrize("host", [b"localhost:8080", b"127.0.0.1", b"[::1]:8080", b"127.9.9.9:1"])
def test_names_of_this_machine_are_answered_without_a_token(host: bytes) -> None:
    assert ask(local(), headers=[(b"host", host)]).status == 200


@pytest.mark.parametrize("host", [b"rebound.example:8080", b"192.168.0.1", b"", b"[::", b"a@b"])
def test_a_name_that_was_rebound_to_this_machine_is_refused(host: bytes) -> None:
    assert ask(local(), headers=[(b"host", host)]).status == 403


@pytest.mark.parametrize(
    "header", [(b"origin", b"https://site.example"), (b"sec-fetch-site", b"cross-site")]
)
def test_a_page_of_another_site_is_refused(header: tuple[bytes, bytes]) -> None:
    refused = ask(local(), headers=[(b"host", b"localhost:8080"), header])
    assert (refused.status, refused.json["code"]) == (403, 403)


def test_a_page_of_this_machine_is_answered() -> None:
    headers = [(b"origin", b"http://localhost:3000"), (b"sec-fetch-site", b"cross-site")]
    assert ask(local(), headers=headers).status == 200


def test_with_a_token_any_name_is_answered() -> None:
    headers = [*bearer(TOKEN), (b"host", b"api.example")]
    assert ask(headers=headers).status == 200


# ---- other protocols ----------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [None, Tokens([TOKEN])])
def test_a_websocket_is_closed(tokens: Tokens | None) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        await guarded(length_app, tokens=tokens)({"type": "websocket"}, receive, send)

    run(main())
    assert [each["type"] for each in sent] == ["websocket.close"]


def test_the_start_and_end_of_the_server_reach_the_app() -> None:
    reached = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    async def unused() -> Message:
        raise AssertionError

    async def unsaid(message: Message) -> None:
        raise AssertionError

    async def main() -> None:
        await guarded(app, tokens=Tokens([TOKEN]))({"type": "lifespan"}, unused, unsaid)

    run(main())
    assert reached == ["lifespan"]
