"""`perdure serve --reload`: another process with the new code, and nothing lost between them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_support import PROGRAM, SECONDS_MAX, Ask, Server, finish, read_start, start, write_program

pytestmark = pytest.mark.slow


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read stderr up to a line with *text*."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it has ended without {text!r}")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write_program(tmp_path)


def begin(folder: Path) -> subprocess.Popen[str]:
    ports = ("--port", "0", "--admin-port", "0")
    return start("serve", "program", "--data", "data", *ports, "--reload", cwd=folder)


def test_a_change_is_served_and_what_was_accepted_goes_on(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Ask(capsys)
    process = begin(program.parent)
    try:
        data = program.parent / "data"
        first = Server(process, read_start(process), data)
        id = ask.json("send", "Order/o-1/run", '"a book"', "--url", first.url)["id"]
        assert ask.json("call", "Greeter/greet", '"ada"', "--url", first.url) == "hi ada from one"

        program.write_text(PROGRAM.replace('VERSION = "one"', 'VERSION = "two"'))
        second = Server(process, read_start(process), data)
        assert ask.json("call", "Greeter/greet", '"ada"', "--url", second.url) == "hi ada from two"
        ask.json("promise", "resolve", "Order/o-1/place", '"the door"', "--url", second.url)
        assert ask.json("attach", id, "--url", second.url) == "a book to the door"
    finally:
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert ended.code == 0
    assert "program.py changed: starting anew" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.long
def test_code_that_is_wrong_is_shown_and_the_next_change_is_waited_for(program: Path) -> None:
    process = begin(program.parent)
    try:
        read_start(process)
        program.write_text("def f(:\n")
        read_until(process, "SyntaxError: ")
        read_until(process, "the server has ended: it starts again when a file changes")
        program.write_text(PROGRAM)
        assert read_start(process).startswith("perdure serves Counter, Greeter, Order\n")
    finally:
        process.terminate()
        ended = finish(process)
    assert ended.code == 0


@pytest.mark.long
def test_a_server_that_can_not_listen_ends_the_watching_too(program: Path) -> None:
    process = begin(program.parent)
    try:
        told = Server(process, read_start(process), program.parent / "data")
        port = told.url.rpartition(":")[2]
        began = time.monotonic()
        second = start("serve", "program", "--port", port, "--reload", cwd=program.parent)
        done = finish(second)
        assert (done.code, time.monotonic() - began < SECONDS_MAX) == (2, True)
        assert "the port is in use" in done.err
    finally:
        process.terminate()
        finish(process)
