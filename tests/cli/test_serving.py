"""`perdure serve` as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import (
    NOWHERE,
    Ask,
    Server,
    asking,
    command,
    environment,
    finish,
    serving,
    start,
    write_program,
)

CLOCKED = """\
import time
import perdure


class Clocked(perdure.Service):
    @perdure.handler
    async def read(self, ctx: perdure.Context) -> bool:
        return time.time() > 0


services = [Clocked()]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "--host", "localhost") as server:
        yield server


@pytest.fixture
def alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    return asking(NOWHERE, capsys, monkeypatch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_it_serves_and_where_and_a_signal_ends_it_with_code_0(
    tmp_path: Path, number: int
) -> None:
    with serving(tmp_path) as server:
        ended = server.stop(number)
    lines = server.told.splitlines()
    assert lines[0] == "perdure serves Counter, Greeter, Order"
    assert lines[3:] == [
        f"  data        {server.data}",
        "  durability  fsync",
        "Ctrl-C stops it; what was accepted goes on at the next start.",
    ]
    assert ended.code == 0
    assert "Traceback" not in ended.err


def test_what_was_accepted_goes_on_in_the_next_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Ask(capsys)
    with serving(tmp_path) as server:
        id = ask.json("send", "Order/o-1/run", '"a book"', "--url", server.url)["id"]
        server.stop()
    with serving(tmp_path) as server:
        ask("promise", "resolve", "Order/o-1/place", '"the door"', "--url", server.url)
        assert ask.json("attach", id, "--url", server.url) == "a book to the door"


def test_a_second_server_on_the_directory_is_told_who_has_it(server: Server) -> None:
    ports = ("--port", "0", "--admin-port", "0")
    second = command("serve", "program", "--data", "data", *ports, cwd=server.folder)
    assert (second.code, second.out) == (3, "")
    assert f"in use by process {server.process.pid}" in second.err
    assert "Traceback" not in second.err


def test_a_port_in_use_is_exit_code_2_and_nothing_is_left_behind(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    second = command("serve", "program", "--port", port, "--data", "other", cwd=server.folder)
    assert (second.code, second.out) == (2, "")
    assert "the port is in use; choose another one with --port" in second.err
    assert not (server.folder / "other").exists()


def test_it_is_not_opened_to_everybody_without_a_token(tmp_path: Path) -> None:
    write_program(tmp_path)
    refused = command("serve", "program", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path)
    assert refused.code == 2
    assert "--token-file" in refused.err


def test_a_module_that_can_not_be_served_ends_it_before_a_directory_is_made(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = command("serve", "broken", "--data", "data", cwd=tmp_path)
    assert done.code == 1
    assert done.err.splitlines()[0] == "perdure: the module broken can not be imported:"
    assert done.err.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert not (tmp_path / "data").exists()


def test_its_guard_logs_the_line_of_a_handler_that_can_not_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "program.py").write_text(CLOCKED, "utf-8")
    with serving(tmp_path, "--guard", "warn") as server:
        assert Ask(capsys).json("call", "Clocked/read", "--url", server.url) is True
        ended = server.stop()
    line = f"{tmp_path / 'program.py'}:8 in Clocked.read"
    assert f"time.time() can not be replayed, at {line}; in its place: ctx.now()" in ended.err


def test_in_json_the_log_is_an_object_a_line_and_stdout_is_empty(tmp_path: Path) -> None:
    write_program(tmp_path)
    ports = ("--port", "0", "--admin-port", "0")
    process = start("serve", "program", "--log-format", "json", *ports, cwd=tmp_path)
    assert process.stderr is not None
    lines = [json.loads(process.stderr.readline()) for _ in range(2)]
    process.terminate()
    ended = finish(process)
    assert [line["message"].partition(" listens")[0] for line in lines] == [
        "the ingress",
        "the admin",
    ]
    assert (ended.code, ended.out) == (0, "")
    assert [json.loads(line) for line in ended.err.splitlines()]


def test_in_json_the_reason_why_it_did_not_start_is_a_line_too(tmp_path: Path) -> None:
    done = command("serve", "nothing_there", "--log-format", "json", cwd=tmp_path)
    assert done.code == 2
    told = json.loads(done.err)
    assert (told["level"], told["logger"]) == ("critical", "perdure")
    assert "there is no module 'nothing_there'" in told["message"]


def test_a_server_with_tokens_lets_in_who_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# of the shop\nan-old-token\na-new-token\n")
    tokens.chmod(0o600)
    files = ("--token-file", str(tokens), "--admin-token-file", str(tokens))
    with serving(tmp_path, *files) as server:
        ask = asking(server.environment, capsys, monkeypatch)
        stranger = ask("ps")
        assert stranger.code == 1
        assert "a bearer token is needed" in stranger.err
        assert "PERDURE_ADMIN_TOKEN" in stranger.err
        assert ask("ps", "--admin-token-file", str(tokens)).code == 0
        monkeypatch.setenv("PERDURE_TOKEN", "a-new-token")
        assert ask("call", "Greeter/greet", '"ada"').code == 0
        assert ask("ps").code == 1


def test_a_limit_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = Ask(capsys)
    with serving(tmp_path, "--limit", "body_bytes=10", "--limit", "send-seconds=5.5") as server:
        assert ask("call", "Greeter/greet", '"a long name"', "--url", server.url).code == 2


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("body_byte=10", "there are body_bytes, header_bytes, "),
        ("body_bytes=many", "'many' is no number"),
        ("body_bytes=0", "body_bytes must be positive"),
    ],
)
def test_a_limit_that_can_be_none_is_refused(tmp_path: Path, limit: str, said: str) -> None:
    done = command("serve", "program", "--limit", limit, cwd=tmp_path)
    assert (done.code, said in done.err) == (2, True)


def test_in_memory_nothing_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path, "--durability", "memory") as server:
        assert "in memory: nothing is kept" in server.told
        assert server.stop().code == 0
    assert not server.data.exists()


def test_the_name_python_m_perdure_and_the_script_are_one_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("perdure")
    by_script = subprocess.run(
        [script, "version"], env=environment(), capture_output=True, text=True, check=True
    )
    assert by_script.stdout == command("version", cwd=tmp_path).out


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_command_says_what_to_install(tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from perdure.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"perdure: the command needs {missing}: pip install 'perdure[server]'\n"


def test_ctrl_c_ends_a_call_and_not_the_invocation(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = asking(server.environment, capsys, monkeypatch)
    call = start("call", "Order/o-1/run", '"a book"', cwd=server.folder, **server.environment)
    while not ask.json("ps", "--status", "suspended")["items"]:
        assert call.poll() is None
    call.send_signal(signal.SIGINT)
    done = finish(call)
    assert (done.code, done.out) == (130, "")
    assert done.err == "stopped waiting; the invocation goes on\n"
    assert len(ask.json("ps", "--status", "suspended")["items"]) == 1


def test_a_reader_that_leaves_ends_the_command_quietly(server: Server, tmp_path: Path) -> None:
    # More than a pipe holds, so that the command is still writing when its reader leaves.
    (tmp_path / "name.json").write_text(json.dumps("a" * 100_000))
    call = start("call", "Greeter/greet", "@name.json", cwd=tmp_path, **server.environment)
    assert call.stdout is not None
    assert call.stdout.read(4) == '"hi '
    call.stdout.close()
    call.wait()
    assert call.stderr is not None
    with call.stderr:
        assert (call.returncode, call.stderr.read()) == (141, "")


def test_completion_knows_the_commands_and_the_statuses(tmp_path: Path) -> None:
    def complete(words: str) -> list[str]:
        env = {
            "_PERDURE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        done = command(cwd=tmp_path, **env)
        assert done.code == 0
        return done.out.split()

    assert complete("perdure de") == ["describe"]
    assert complete("perdure p") == ["ps", "pause", "purge", "promise"]
    assert complete("perdure promise re") == ["resolve", "reject"]
    assert complete("perdure ps --status b") == ["backing-off", "blocked"]


def test_a_token_of_a_server_may_not_stand_on_the_command_line(alone: Ask) -> None:
    assert alone("ps", "--token", "secret").code == 2
