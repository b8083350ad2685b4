"""The demo, run as `make demo` runs it, and stopped in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples_support import EXAMPLES

import perdure

MINUTE = 60


@pytest.fixture
def environment() -> dict[str, str]:
    source = str(Path(perdure.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "error"}


class Demo:
    """A running demo."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "demo.py"), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen: list[str] = []

    def read_until(self, text: str) -> str:
        """The first line that holds *text*."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.seen}")

    def finish(self) -> tuple[int, str, str]:
        """The exit code, all output and all errors."""
        output, errors = self.process.communicate(timeout=MINUTE)
        return self.process.returncode, "".join(self.seen) + output, errors


@pytest.fixture
def running(environment: dict[str, str], tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(environment, str(tmp_path / "demo"), "--deadline", "30")
    yield demo
    demo.process.kill()
    demo.process.communicate()


def pid_in(line: str) -> int:
    found = re.search(r"pid (\d+)", line)
    assert found is not None
    return int(found[1])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_demo_shows_what_it_promises(environment: dict[str, str]) -> None:
    code, output, errors = Demo(environment, "--deadline", "4").finish()
    assert code == 0, output + errors
    assert errors == ""
    first, second = output.split("--- Process 2")
    assert len(re.findall(r"^ +.* waiting$", first, re.MULTILINE)) == 3
    assert "killed with SIGKILL" in first
    assert len(re.findall(r"^ +.* waiting$", second, re.MULTILINE)) == 3
    assert re.search(r"Budget for next year +approved: Go ahead", second)
    assert re.search(r"Lease of the harbour office +rejected: Too expensive", second)
    assert re.search(r"Memo that nobody reads +timeout: No response within 0:00:04", second)
    assert "<- promise completed 'approval'" in second
    assert len(re.findall(r"please approve", second)) == 3
    assert "All is as it must be." in second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_demo_cleanly_and_leaves_no_process(
    running: Demo, number: signal.Signals
) -> None:
    # The second process waits for the memo's deadline when it is stopped.
    pid = pid_in(running.read_until("--- Process 2"))
    running.read_until("rejected: Too expensive")
    running.process.send_signal(number)
    code, output, errors = running.finish()
    assert code == 128 + number
    assert "the engine is drained and closed" in output
    assert f"Stopped by {number.name}." in output
    assert errors == ""
    assert not is_alive(pid)


def test_the_processes_of_a_killed_demo_stop_by_themselves(running: Demo) -> None:
    running.read_until("rejected: Too expensive")
    running.process.kill()
    # The second process holds the other end of the pipe: the output ends when it has.
    assert running.process.stderr is not None
    assert running.process.stderr.read() == ""


def test_the_demo_fails_aloud_when_the_documents_do_not_wait_any_more(
    environment: dict[str, str],
) -> None:
    code, output, _ = Demo(environment, "--deadline", "0").finish()
    assert code == 1
    assert "FAILED" in output
    assert "All is as it must be" not in output
