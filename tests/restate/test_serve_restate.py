"""`perdure serve --restate` and `perdure register` as processes, with a real Restate server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli_support import Done, command, finish, read_start, start
from loopback import listening, url_of
from restate_server import Restate, restate

pytestmark = pytest.mark.slow

PROGRAM = '''
"""A program to be served to Restate."""

import asyncio
import os
import time
from pathlib import Path

import perdure
from perdure import Context, WorkflowContext, WorkflowSharedContext

STEPS = Path("steps")


async def slow(seconds: float) -> str:
    with STEPS.open("a") as file:
        file.write("begun ")
    await asyncio.sleep(seconds)
    with STEPS.open("a") as file:
        file.write("ended ")
    return "stepped"


async def stubborn() -> None:
    STEPS.write_text("begun ")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


def blocking() -> None:
    STEPS.write_text("begun ")
    time.sleep(3600)


class Parcel(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, item: str) -> str:
        return f"{item} to {await ctx.promise('place', str)}"

    @perdure.handler
    async def place(self, ctx: WorkflowSharedContext, where: str) -> None:
        await ctx.promise("place", str).resolve(where)


class Depot(perdure.Service):
    @perdure.handler
    async def load(self, ctx: Context, seconds: float) -> str:
        return await ctx.run("slow", slow, seconds)

    @perdure.handler
    async def cling(self, ctx: Context) -> None:
        await ctx.run("stubborn", stubborn)

    @perdure.handler
    async def block(self, ctx: Context) -> None:
        await ctx.run("blocking", blocking)

    @perdure.handler
    async def process(self, ctx: Context) -> int:
        return await ctx.run("process", os.getpid)


services = [Parcel(), Depot()]
'''

SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restate]:
    with asyncio.Runner() as runner:
        it = restate(tmp_path_factory.mktemp("restate") / "server")
        urls = runner.run(it.__aenter__())
        try:
            yield urls
        finally:
            runner.run(it.__aexit__(None, None, None))


@dataclass
class Shop:
    """The program in a folder, served to Restate, and what is asked of it there."""

    folder: Path
    restate: Restate

    @contextlib.contextmanager
    def serving(self, url: str, *more: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """It served at *url* while the block runs."""
        port = url.rpartition(":")[2]
        process = start(
            *("serve", "--restate", "program", "--port", port, *more), cwd=self.folder, **env
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    @contextlib.contextmanager
    def registered(self, url: str) -> Iterator[subprocess.Popen[str]]:
        """It served at *url*, which Restate is told of, while the block runs."""
        with self.serving(url) as process:
            read_start(process)
            self.register(url, "--force")
            yield process

    def register(self, url: str, *more: str) -> Done:
        return command("register", url, "--admin-url", self.restate.admin, *more, cwd=self.folder)

    def post(self, path: str, body: Any) -> Any:
        answer = httpx.post(f"{self.restate.ingress}/{path}", json=body, timeout=SECONDS_MAX)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def output(self, id: str) -> Any:
        url = f"{self.restate.ingress}/restate/invocation/{id}/attach"
        return httpx.get(url, timeout=SECONDS_MAX).json()

    def row(self, id: str) -> dict[str, Any]:
        """How Restate has an invocation."""
        query = {"query": f"SELECT * FROM sys_invocation WHERE id = '{id}'"}
        url, headers = f"{self.restate.admin}/query", {"accept": "application/json"}
        rows: list[dict[str, Any]] = httpx.post(url, json=query, headers=headers).json()["rows"]
        return rows[0]

    def until(self, done: Callable[[], bool]) -> None:
        """Look until it is so: Restate says nothing of it by itself."""
        until = time.monotonic() + SECONDS_MAX
        while not done():
            assert time.monotonic() < until
            time.sleep(0.02)

    @property
    def steps(self) -> str:
        file = self.folder / "steps"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def shop(server: Restate, tmp_path: Path) -> Shop:
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    return Shop(tmp_path, server)


@pytest.fixture
def url() -> str:
    """Where handlers are to be served, one start after the other."""
    with listening() as sock:
        return url_of(sock)


def test_it_says_where_and_what_to_do_next_and_that_registers_it(shop: Shop) -> None:
    with shop.serving("http://127.0.0.1:0") as process:
        told = read_start(process).splitlines()
        found = re.search(r"(http://127.0.0.1:\d+)$", told[1])
        assert found is not None
        url = found[1]
        assert told == [
            "perdure serves Depot, Parcel to Restate",
            f"  handlers    {url}",
            f"Tell Restate of them: perdure register {url}",
            "Ctrl-C stops it; what runs is given back to Restate.",
        ]
        first, again = shop.register(url), shop.register(url, "--json")
        assert (first.code, first.err) == (0, "")
        assert re.search(r"Parcel +Workflow +\d+ +place, run", first.out)
        assert (again.json["is_new"], again.json["id"] in first.out) == (False, True)
        assert shop.post("Depot/process", None) == process.pid


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_workflow_that_waits_is_given_back_and_goes_on_at_the_next_start(
    shop: Shop, url: str, number: int
) -> None:
    key = f"Parcel/{number}"
    with shop.registered(url) as process:
        id = shop.post(f"{key}/run/send", "a book")["invocationId"]
        shop.until(lambda: shop.row(id)["status"] == "running")
        began = time.monotonic()
        process.send_signal(number)
        ended = finish(process)
        assert (ended.code, time.monotonic() - began < 5) == (0, True)
        assert "Traceback" not in ended.err
    row = shop.row(id)
    # Cut off it would be backing off, with its failure, and be paused after long enough.
    assert (row["status"], row.get("last_failure")) == ("suspended", None)
    with shop.serving(url) as process:
        read_start(process)
        shop.post(f"{key}/place", "the door")
        assert shop.output(id) == "a book to the door"


def test_a_step_that_runs_is_recorded_while_what_waits_beside_it_is_given_back(
    shop: Shop, url: str
) -> None:
    with shop.registered(url) as process:
        waiting = [shop.post(f"Parcel/s-{i}/run/send", "a book")["invocationId"] for i in range(20)]
        shop.until(lambda: all(shop.row(each)["status"] == "running" for each in waiting))
        id = shop.post("Depot/load/send", 1.0)["invocationId"]
        shop.until(lambda: shop.steps == "begun ")
        process.terminate()
        assert finish(process).code == 0
        assert shop.steps == "begun ended "
    assert {shop.row(each)["status"] for each in waiting} == {"suspended"}
    with shop.serving(url) as process:
        read_start(process)
        assert shop.output(id) == "stepped"
    assert shop.steps == "begun ended "


@pytest.mark.long
def test_what_waits_is_left_alone_by_thousands_of_requests_beside_it(shop: Shop, url: str) -> None:
    async def call(number: int) -> None:
        async with httpx.AsyncClient(base_url=shop.restate.ingress, timeout=SECONDS_MAX) as client:
            for _ in range(number):
                assert (await client.post("Depot/process")).is_success

    async def call_beside_each_other() -> None:
        await asyncio.gather(*(call(150) for _ in range(20)))

    with shop.registered(url):
        id = shop.post("Parcel/patient/run/send", "a book")["invocationId"]
        shop.until(lambda: shop.row(id)["status"] == "running")
        asyncio.run(call_beside_each_other())
        row = shop.row(id)
        assert (row["status"], row["retry_count"], row.get("last_failure")) == ("running", 1, None)


@pytest.mark.long
@pytest.mark.parametrize("handler", ["cling", "block"])
def test_a_step_that_never_ends_is_cut_off(shop: Shop, url: str, handler: str) -> None:
    with shop.registered(url) as process:
        shop.post(f"Depot/{handler}/send", None)
        shop.until(lambda: shop.steps == "begun ")
        began = time.monotonic()
        process.terminate()
        ended = finish(process)
    assert (ended.code, time.monotonic() - began < 15) == (0, True)
    assert "1 attempts are cut off" in ended.err


@pytest.mark.long
def test_a_second_signal_ends_it_at_once(shop: Shop, url: str) -> None:
    with shop.registered(url) as process:
        shop.post("Depot/load/send", 3600.0)
        shop.until(lambda: shop.steps == "begun ")
        process.terminate()
        assert process.stderr is not None
        for line in process.stderr:
            if "stopping" in line:
                break
        process.terminate()
        assert finish(process).code == 128 + signal.SIGTERM


@pytest.mark.long
def test_other_code_at_a_registered_address_is_told_and_taken_up_by_force(
    shop: Shop, url: str
) -> None:
    with shop.serving(url) as process:
        read_start(process)
        assert shop.register(url).code == 0
    program = shop.folder / "program.py"
    program.write_text(PROGRAM.replace("async def process", "async def number"))
    with shop.serving(url) as process:
        read_start(process)
        done = shop.register(url)
        assert (done.code, done.out) == (1, "")
        assert "other code is served there now: Depot" in done.err
        assert shop.register(url, "--force").code == 0
        assert shop.post("Depot/number", None) == process.pid


@pytest.mark.long
def test_a_change_is_served_again_at_the_same_address(shop: Shop, url: str) -> None:
    with shop.serving(url, "--reload") as process:
        read_start(process)
        assert shop.register(url).code == 0
        program = shop.folder / "program.py"
        program.write_text(
            PROGRAM.replace('return await ctx.run("process", os.getpid)', "return 0")
        )
        read_start(process)
        assert shop.post("Depot/process", None) == 0
        process.terminate()
        ended = finish(process)
    assert (ended.code, "Traceback" in ended.err) == (0, False)


@pytest.mark.long
def test_handlers_that_are_not_there_are_told_with_a_remedy(shop: Shop, url: str) -> None:
    done = shop.register(url, "--json")
    assert (done.code, done.error["kind"]) == (3, "Unavailable")
    assert "Connection refused" in done.error["message"]
    assert "perdure serve --restate" in done.error["hint"]


@pytest.mark.long
def test_a_server_of_http_1_is_told_with_a_remedy(shop: Shop) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as old:
        threading.Thread(target=old.serve_forever, daemon=True).start()
        done = shop.register(f"http://127.0.0.1:{old.server_port}", "--json")
        old.shutdown()
    assert (done.code, "META0014" in done.error["message"]) == (3, True)
    assert "with HTTP/2" in done.error["hint"]


def test_a_request_that_is_not_signed_is_refused_where_a_key_is_named(shop: Shop) -> None:
    key = "publickeyv1_w7YHemBctH5Ck2nQRQ47iBBqhNHy4FV7t2Usbye2A6f"
    with shop.serving("http://127.0.0.1:0", PERDURE_RESTATE_IDENTITY_KEY=key) as process:
        url = read_start(process).splitlines()[1].split()[1]
        done = shop.register(url, "--json")
    assert (done.code, "401" in done.error["message"]) == (3, True)
    assert "--identity-key" in done.error["hint"]


def test_a_port_in_use_is_exit_code_2(shop: Shop) -> None:
    with listening() as sock, shop.serving(url_of(sock)) as process:
        done = finish(process)
    assert (done.code, done.out) == (2, "")
    assert "the port is in use; choose another one with --port" in done.err


@pytest.mark.long
def test_in_json_the_log_is_an_object_a_line_and_stdout_is_empty(shop: Shop) -> None:
    json_log = ("--log-format", "json")
    with shop.serving("http://127.0.0.1:0", *json_log) as process:
        assert process.stderr is not None
        assert '"the handlers listen on http://127.0.0.1:' in process.stderr.readline()
        process.terminate()
        ended = finish(process)
    assert (ended.code, ended.out) == (0, "")
    assert all(line.startswith("{") for line in ended.err.splitlines())
