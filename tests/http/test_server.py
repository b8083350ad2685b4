"""The server as a whole: where it listens, how it stops, what its log says."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from engine_support import Place, run, until
from http_support import Greeter

from perdure import Engine
from perdure.http import Tokens
from perdure.http._listening import CanNotServe, bound, room_for_connections
from perdure.http._listening import Place as Listens
from perdure.http._logs import JsonFormatter, TextFormatter
from perdure.http._server import Server

HERE = Path(__file__).parent
JSON = {"content-type": "application/json"}
HANG_S = 30.0
TOKENS = Tokens(["a-token-of-the-tests"])


class Served:
    """A server in a process of its own; what it logs is read line by line."""

    def __init__(self, data: Path, **options: Any) -> None:
        paths = [str(HERE), str(HERE.parent / "engine"), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "serving.py"), str(data), json.dumps(options)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._watchdog = threading.Timer(HANG_S, self.process.kill)
        self._watchdog.start()

    def __enter__(self) -> Served:
        ports = [int(self.until(r"listens on http://127\.0\.0\.1:(\d+)")[1]) for _ in range(2)]
        self.ingress, self.admin = (f"http://127.0.0.1:{port}" for port in ports)
        self.port = ports[0]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.exit_code()

    def until(self, pattern: str) -> re.Match[str]:
        """Read the log as far as a line that has *pattern*."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(pattern, line)
            if found is not None:
                return found
        raise AssertionError(f"{pattern} never came:\n{''.join(self.log)}")

    def exit_code(self) -> int:
        """Of the process, once it has ended."""
        if self.process.stderr is not None and not self.process.stderr.closed:
            self.log.extend(self.process.stderr)
            self.process.stderr.close()
        self._watchdog.cancel()
        return self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)


class Asking:
    """A request whose answer is awaited in a thread; made, and taken in, before this returns."""

    def __init__(self, served: Served, path: str, body: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", served.port))
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        self._socket.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        self._body = body

    def send(self, part: slice = slice(None)) -> Asking:
        self._socket.sendall(self._body[part])
        return self

    def answer(self) -> str:
        with self._socket:
            received = b""
            while part := self._socket.recv(65536):
                received += part
        return received.decode()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def served(data: Path) -> Iterator[Served]:
    with Served(data) as served:
        yield served


# ---- serving --------------------------------------------------------------------------------


def test_both_apps_answer_on_the_ports_that_the_log_names(served: Served) -> None:
    called = httpx.post(f"{served.ingress}/Greeter/greet", json="Bob")
    assert (called.status_code, called.json()) == (200, "hi Bob")
    assert called.headers["x-content-type-options"] == "nosniff"
    assert "date" in called.headers
    assert httpx.get(f"{served.admin}/health").json() == {}


def test_a_token_that_is_wrong_or_right_never_shows_in_the_log(data: Path) -> None:
    place = Place(data, 10_000)

    async def main() -> list[int]:
        async with place.engine(Greeter()) as engine:
            server = Server(engine, port=0, admin_port=0, tokens=TOKENS, access_log=True)
            async with server, httpx.AsyncClient() as client:
                url = f"http://127.0.0.1:{server.port}/Greeter/noargs"
                headers = [{"authorization": f"Bearer {each}-token-of-the-tests"} for each in "ab"]
                return [(await client.post(url, headers=each)).status_code for each in headers]

    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Kept()
    # The second one by itself: other servers in this process keep it from the first.
    loggers = (logging.getLogger(), logging.getLogger("uvicorn.access"))
    levels = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.DEBUG)
    try:
        assert run(main()) == [200, 401]
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.removeHandler(handler)
            each.setLevel(level)
    told = "\n".join(lines)
    assert '"POST /Greeter/noargs HTTP/1.1" 401' in told
    assert "token-of-the-tests" not in told


def test_an_admin_without_a_token_is_no_use_to_a_page_of_another_site(served: Served) -> None:
    for name, value in {"origin": "https://site.example", "host": "rebound.example"}.items():
        refused = httpx.get(f"{served.admin}/invocations", headers={name: value})
        assert refused.status_code == 403
        answered = httpx.get(f"{served.ingress}/Greeter/noargs", headers={name: value})
        assert answered.status_code == 200


# ---- stopping -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_tells_who_waits_to_come_again_and_ends_the_server(
    served: Served, number: signal.Signals
) -> None:
    waiting = [Asking(served, f"/Signup/{key}/run", b'"Bob"').send() for key in range(3)]
    until_running(served, 3)
    served.stop(number)
    for each in waiting:
        told = each.answer()
        assert told.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1" in told
        assert "connection: close" in told
    assert served.exit_code() == 0
    assert "Traceback" not in "".join(served.log)
    assert served.log[-1].endswith("stopped\n")


def test_what_was_waited_for_goes_on_after_the_next_start(data: Path) -> None:
    with Served(data) as served:
        waiting = Asking(served, "/Signup/key/run", b'"Bob"').send()
        until_running(served, 1)
        served.stop()
        assert waiting.answer().startswith("HTTP/1.1 503 ")
        assert served.exit_code() == 0
    with Served(data) as served:
        httpx.post(f"{served.ingress}/Signup/key/approve", json="yes")
        attached = httpx.get(f"{served.ingress}/restate/workflow/Signup/key/attach")
        assert attached.json() == "Bob:yes"


def test_a_result_that_is_there_in_a_moment_still_reaches_who_has_asked(served: Served) -> None:
    asking = Asking(served, "/Greeter/nap", b"0.3").send()
    until_running(served, 1)
    served.stop()
    assert asking.answer().endswith('"awake"')
    assert served.exit_code() == 0


def test_a_request_that_is_still_being_sent_may_end(served: Served) -> None:
    asking = Asking(served, "/Greeter/greet/send", b'"Bob"').send(slice(0, 2))
    # The connections are taken in their order: when this one is answered, the other is known.
    assert httpx.get(f"{served.ingress}/restate/health").status_code == 200
    waiting = Asking(served, "/Signup/key/run", b'"Bob"').send()
    until_running(served, 1)
    served.stop()
    assert waiting.answer().startswith("HTTP/1.1 503 ")  # results are not waited for any more
    told = asking.send(slice(2, None)).answer()
    assert told.startswith("HTTP/1.1 202 ")
    assert served.exit_code() == 0


def test_a_request_that_is_not_sent_within_the_grace_time_is_cut_off(data: Path) -> None:
    with Served(data, grace_s=0.2) as served:
        asking = Asking(served, "/Greeter/greet/send", b'"Bob"').send(slice(0, 2))
        assert httpx.get(f"{served.ingress}/restate/health").status_code == 200
        served.stop()
        assert asking.answer().startswith("HTTP/1.1 503 ")
        assert served.exit_code() == 0
        assert "1 requests to the ingress are cut off" in "".join(served.log)


def test_a_download_that_is_not_taken_within_the_grace_time_is_cut_off_without_a_failure(
    data: Path,
) -> None:
    with Served(data, grace_s=0.2) as served:
        for key in "abcd":  # more than the buffers of a connection hold
            url = f"{served.ingress}/Signup/{key}/run/send"
            assert httpx.post(url, json="x" * (4 << 20)).status_code == 202
        with httpx.stream("GET", f"{served.admin}/backup") as download:
            assert download.status_code == 200
            served.stop()
            assert served.exit_code() == 0
            with pytest.raises(httpx.TransportError):  # it does not pass for all of it
                download.read()
        log = "".join(served.log)
        assert "1 requests to the admin are cut off" in log
        assert "ERROR" not in log


def test_while_it_stops_nobody_new_is_let_in_and_who_asks_nothing_is_let_go(
    served: Served,
) -> None:
    asking = Asking(served, "/Greeter/greet/send", b'"Bob"').send(slice(0, 2))
    with socket.create_connection(("127.0.0.1", served.port)) as idle:
        idle.sendall(b"GET /restate/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answered = b""
        while not answered.endswith(b"}"):
            answered += idle.recv(65536)
        served.stop()
        assert idle.recv(65536) == b""
    run(until(lambda: refuses_connections(served.port)))
    told = asking.send(slice(2, None)).answer()
    assert told.startswith("HTTP/1.1 202 ")  # within the grace time
    assert "connection: close" in told
    assert served.exit_code() == 0


def test_steps_that_run_may_end_before_the_engine_closes(data: Path, served: Served) -> None:
    asking = Asking(served, "/Slow/work", b"1.0").send()
    run(until(data.with_suffix(".began").exists))
    served.stop()
    assert asking.answer().startswith("HTTP/1.1 503 ")
    assert served.exit_code() == 0
    assert data.with_suffix(".ended").exists()


def test_a_second_signal_ends_the_process_at_once(data: Path, served: Served) -> None:
    asking = Asking(served, "/Slow/work", b"60").send()
    run(until(data.with_suffix(".began").exists))
    served.stop()
    served.until("stopping")
    served.stop()
    assert served.exit_code() == 128 + signal.SIGTERM
    assert "Traceback" not in "".join(served.log)
    asking._socket.close()


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def until_running(served: Served, count: int) -> None:
    """Wait until so many invocations wait for something."""

    def waiting() -> bool:
        found = httpx.get(f"{served.admin}/invocations?status=suspended").json()
        return len(found["items"]) == count

    run(until(waiting))


# ---- the engine fails -----------------------------------------------------------------------


def test_a_broken_store_ends_the_server_for_a_supervisor_to_start_it_again(data: Path) -> None:
    with Served(data, file_bytes=2 << 20) as served:
        with httpx.Client() as client:
            for key in itertools.count():
                url = f"{served.ingress}/Signup/{key}/run/send"
                try:
                    answered = client.post(url, json="x" * 200_000)
                except httpx.TransportError:  # it has stopped meanwhile
                    break
                if answered.status_code != 202:
                    assert answered.status_code == 503
                    break
        assert served.exit_code() == 1
        assert re.search(r"CRITICAL perdure\.http: StoreBroken: ", "".join(served.log))


def test_a_directory_that_is_in_use_ends_the_program_with_a_line(
    data: Path, served: Served
) -> None:
    second = Served(data)
    assert second.exit_code() == 1
    assert f"process {served.process.pid}" in second.log[-1]
    assert "Traceback" not in "".join(second.log)


# ---- where it listens -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"host": "0.0.0.0"}, "--token-file or PERDURE_TOKEN_FILE, or in PERDURE_TOKEN;"),
        ({"host": "::"}, "--token-file"),
        ({"host": ""}, "--token-file"),
        ({"host": "192.0.2.1"}, "--token-file"),
        ({"host": "some.example"}, "--token-file"),
        ({"admin_host": "0.0.0.0"}, "PERDURE_ADMIN_TOKEN_FILE, or in PERDURE_ADMIN_TOKEN;"),
        ({"host": "0.0.0.0", "tokens": TOKENS, "admin_host": "0.0.0.0"}, "--admin-token-file"),
    ],
)
def test_an_app_open_to_everybody_is_refused_before_anything_is_opened(
    data: Path, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(CanNotServe, match=re.escape(remedy)):
        Server(Engine(data, [Greeter()]), port=0, admin_port=0, **options)
    assert not data.exists()


def test_with_a_token_it_listens_anywhere(data: Path) -> None:
    Server(Engine(data, []), host="0.0.0.0", port=0, admin_port=0, tokens=TOKENS).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_alone_needs_no_token(data: Path, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    Server(Engine(data, []), host=host, port=0, admin_port=0).close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_all_addresses_of_a_name_have_the_same_port() -> None:
    sockets = bound(Listens("ingress", "localhost", 0, "", False))
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()


def test_no_answer_waits_until_its_first_part_is_acknowledged() -> None:
    (listener,) = bound(Listens("ingress", "127.0.0.1", 0, "", False))
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("taken", ["port", "admin_port"])
def test_a_port_in_use_is_named_with_its_flag_and_nothing_is_left_behind(
    data: Path, taken: str
) -> None:
    with socket.socket() as other, socket.socket() as free:
        for sock in (other, free):
            sock.bind(("127.0.0.1", 0))
        other.listen()
        ports = {"port": free.getsockname()[1], "admin_port": free.getsockname()[1]}
        ports[taken] = other.getsockname()[1]
        free.close()
        flag = f"--{taken.replace('_', '-')}"
        with pytest.raises(CanNotServe, match=rf":{ports[taken]}: the port is in use.*{flag}$"):
            Server(Engine(data, []), port=ports["port"], admin_port=ports["admin_port"])
        with socket.socket() as again:
            free_port = ports["admin_port" if taken == "port" else "port"]
            again.bind(("127.0.0.1", free_port))
    assert not data.exists()


def test_one_port_for_both_is_a_port_in_use(data: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CanNotServe, match=rf":{port}: the port is in use.*--admin-port$"):
        Server(Engine(data, []), port=port, admin_port=port)


def test_without_the_extra_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['starlette'] = None; import perdure.http"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs starlette: pip install 'perdure[server]'" in done.stderr


def test_a_port_in_use_ends_the_program_with_a_line(data: Path, served: Served) -> None:
    second = Served(data.with_name("other"), port=served.port)
    assert second.exit_code() == 2
    assert f"127.0.0.1:{served.port}: the port is in use" in second.log[-1]
    assert len(second.log) == 1


def test_nothing_listens_any_more_when_the_block_is_left(data: Path) -> None:
    place = Place(data, 10_000)

    async def main() -> list[int]:
        engine = place.engine(Greeter())
        async with engine, Server(engine, port=0, admin_port=0) as server:
            return [server.port, server.admin_port]

    for port in run(main()):
        assert refuses_connections(port)


def test_the_process_is_let_have_as_many_files_as_it_may() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1_000, hard), hard))
        assert room_for_connections(1) == 1
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_may_have_few_files_takes_fewer_connections_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 1_024))
    assert room_for_connections(16_000) == 768
    assert "takes 768 connections, not 16000" in caplog.text


# ---- the log --------------------------------------------------------------------------------


def test_a_log_for_programs_is_an_object_a_line(data: Path) -> None:
    with Served(data, log_format="json") as served:
        httpx.post(f"{served.ingress}/Slow/log")
        served.stop()
        assert served.exit_code() == 0
    records = [json.loads(line) for line in served.log]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, records))
    of_invocation = next(each for each in records if each["message"].endswith("two\nlines"))
    assert of_invocation["invocation_id"].startswith("inv_")
    failed = next(each for each in records if each["message"] == "failed")
    assert failed["exception"].endswith("ValueError: odd")
    assert failed["level"] == "error"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", failed["time"])


def record_of(message: str) -> logging.LogRecord:
    return logging.LogRecord("perdure.http", logging.INFO, "", 0, message, None, None)


def test_no_message_can_look_like_a_record_of_its_own() -> None:
    text = TextFormatter().format(record_of("path /a\n2026-01-01T00:00:00.000Z ERROR x: \x1b[2J"))
    first, second = text.split("\n")
    assert first.endswith(" INFO perdure.http: path /a")
    assert second.startswith("    2026-")
    assert second.endswith("\\x1b[2J")
    assert len(JsonFormatter().format(record_of("a\nb\u2028c")).splitlines()) == 1


def test_the_body_of_an_answer_does_not_wait_for_its_headers_to_be_acknowledged() -> None:
    async def main() -> int:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        (sock,) = bound(Listens("ingress", "127.0.0.1", 0, "", False))
        server = await asyncio.start_server(lambda _, writer: accepted.put(writer), sock=sock)
        async with server:
            _, client = await asyncio.open_connection(*sock.getsockname())
            writer = await accepted.get()
            taken = writer.get_extra_info("socket")
            option: int = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for each in (client, writer):
                each.close()
                await each.wait_closed()
            return option

    assert run(main()) != 0
