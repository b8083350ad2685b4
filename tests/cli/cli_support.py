"""What the tests of the command share: a program to serve, servers as processes, runs of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure.cli._main import run

PROGRAM = '''
"""A program to be served."""

import perdure
from perdure import (
    Context, ObjectContext, ObjectSharedContext, TerminalError, WorkflowContext,
    WorkflowSharedContext,
)

VERSION = "one"


class Greeter(perdure.Service):
    @perdure.handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"hi {name} from {VERSION}"

    @perdure.handler
    async def raw(self, ctx: Context, content: bytes) -> bytes:
        return content[::-1]

    @perdure.handler
    async def header(self, ctx: Context, name: str) -> str | None:
        return ctx.request.headers.get(name)

    @perdure.handler
    async def refuse(self, ctx: Context, code: int) -> None:
        raise TerminalError("no tea", code, {"shop": "closed"})

    @perdure.handler
    async def fail(self, ctx: Context) -> None:
        raise RuntimeError("the kettle is cold")

    @perdure.handler
    async def wait(self, ctx: Context) -> str:
        return await ctx.signal("go", str)


class Counter(perdure.VirtualObject):
    @perdure.handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        total = await ctx.get("total", int, 0) + amount
        ctx.set("total", total)
        return total


class Order(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, item: str) -> str:
        ctx.set("item", item)
        return f"{item} to {await ctx.promise('place', str)}"

    @perdure.handler
    async def paid(self, ctx: WorkflowSharedContext) -> str:
        awakeable = ctx.awakeable(str)
        await ctx.promise("bill", str).resolve(awakeable.id)
        return await awakeable


services = [Greeter(), Counter(), Order()]
'''

SECONDS_MAX = 30
# In its debug mode asyncio complains on stderr of what takes long, as starting does.
_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PERDURE_", "PYTHONASYNCIODEBUG"))
} | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}


@dataclass
class Done:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


@dataclass
class Ask:
    """Runs of the command in this process, against the server that the environment names."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Done:
        self.capture.readouterr()
        code = run(arguments)
        captured = self.capture.readouterr()
        return Done(code, captured.out, captured.err)

    def json(self, *arguments: str) -> Any:
        """The JSON of a run that has to succeed."""
        done = self(*arguments, "--json")
        assert (done.code, done.err) == (0, "")
        return done.json


def asking(
    environment: Mapping[str, str],
    capture: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Ask:
    """Runs of the command in this process with *environment*."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Ask(capture)


NOWHERE = {"PERDURE_URL": "http://127.0.0.1:1", "PERDURE_ADMIN_URL": "http://127.0.0.1:1"}
"""Where no server is."""


def write_program(folder: Path) -> Path:
    """The program to be served, as ``program.py`` in *folder*."""
    file = folder / "program.py"
    file.write_text(PROGRAM, "utf-8")
    return file


def environment(**more: str) -> dict[str, str]:
    return {**_ENVIRONMENT, **more}


def start(*arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """``perdure`` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "perdure", *arguments],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for its end."""
    out, err = process.communicate(timeout=SECONDS_MAX)
    return Done(process.returncode, out, err)


def command(*arguments: str, cwd: Path, **env: str) -> Done:
    return finish(start(*arguments, cwd=cwd, **env))


@dataclass
class Server:
    """A ``perdure serve`` that listens.

    Attributes:
      told: What it wrote to stdout at its start.
    """

    process: subprocess.Popen[str]
    told: str
    data: Path

    @property
    def folder(self) -> Path:
        """Where its program is."""
        return self.data.parent

    @property
    def url(self) -> str:
        return self._of("ingress")

    @property
    def admin_url(self) -> str:
        return self._of("admin")

    @property
    def environment(self) -> dict[str, str]:
        return {"PERDURE_URL": self.url, "PERDURE_ADMIN_URL": self.admin_url}

    def _of(self, name: str) -> str:
        match = re.search(rf"{name}\s+(http://\S+)", self.told)
        assert match is not None, self.told
        return match[1]

    def stop(self, number: int = signal.SIGINT) -> Done:
        self.process.send_signal(number)
        return finish(self.process)


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, **env: str) -> Iterator[Server]:
    """A server of the program in *folder*, which it is written to unless it is there."""
    if not (folder / "program.py").exists():
        write_program(folder)
    data = folder / "data"
    ports = ("--port", "0", "--admin-port", "0")
    process = start(
        *("serve", "program", "--data", str(data), *ports, *arguments), cwd=folder, **env
    )
    try:
        yield Server(process, read_start(process), data)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_start(process: subprocess.Popen[str]) -> str:
    """What a server says once it listens."""
    assert process.stdout is not None
    told: list[str] = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("Ctrl-C"):
            return "".join(told)
    raise AssertionError(f"it has ended: {told}, {finish(process).err}")
