"""What a client does when a server is not there, goes away, or is not perdure's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from client_support import URL, Approval, ByHost, Counter, Decision, Desk, Document
from engine_support import Place, run, until, until_status

import perdure
from perdure import (
    Accepted,
    AlreadyCompleted,
    Cancelled,
    Client,
    Conflict,
    InvalidInput,
    InvocationFilter,
    Killed,
    NotFound,
    NotReady,
    PerdureError,
    Status,
    StoreBroken,
    StoreClosed,
    StoreError,
    TerminalError,
    Unavailable,
)
from perdure._client import _backing_up
from perdure.http import ingress

ID = "inv_06d3pdls0000f7hnf6snuijs2k"
DROP = b""
Answer = bytes | float | None
SENT = {"invocationId": ID, "status": "Accepted"}


def reply(status: int, content: Any = None, **headers: str) -> bytes:
    """The bytes of a reply; texts go as they are, all else as JSON."""
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    kind = "text/html" if isinstance(content, str) else "application/json"
    lines = [f"HTTP/1.1 {status} x", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refusal(status: int, message: str, source: str = "ingress", **headers: str) -> bytes:
    content = {"code": status, "message": message, "source": source}
    return reply(status, content, x_restate_error_source=source, **headers)


class Script:
    """A server that answers as it is told, one request after the other; the last answer stays.

    An empty one drops the connection, a number after so many seconds; None never comes. What kind
    of server it is, it says by itself.
    """

    def __init__(self, *replies: Answer, close: bool = False) -> None:
        self.replies = list(replies)
        self.requests: list[str] = []
        self.heads: list[str] = []
        self.close = close  # after each answer
        self.kind: Any = {"server": "perdure", "services": [], "max_admin_api_version": 4}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                for line in head.lower().split("\r\n"):
                    if line.startswith("content-length:"):
                        await reader.readexactly(int(line.partition(":")[2]))
                method, path, _ = head.split(" ", 2)
                if path.endswith(("/restate/health", "/version")):
                    writer.write(reply(200, self.kind))
                    await writer.drain()
                    continue
                self.heads.append(head)
                self.requests.append(f"{method} {path}")
                answer = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if answer is None:
                    await reader.read()
                if isinstance(answer, float):
                    await asyncio.sleep(answer)
                if not isinstance(answer, bytes) or not answer:
                    return
                writer.write(answer)
                await writer.drain()
                if self.close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def scripted(
    *replies: Answer, within: float = 5, port: int = 0, close: bool = False
) -> AsyncIterator[tuple[Script, Client]]:
    script = Script(*replies, close=close)
    server = await asyncio.start_server(script.serve, "127.0.0.1", port)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with perdure.connect(url, admin_url=f"{url}/ops", timeout=within) as client:
            yield script, client
    finally:
        server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- sending again, or not ------------------------------------------------------------------------


def test_a_call_that_may_have_been_taken_up_is_not_sent_again() -> None:
    async def main() -> None:
        async with scripted(DROP) as (script, client):
            asks: list[Callable[[], Awaitable[Any]]] = [
                lambda: client.call(Desk.nothing),
                lambda: client.send(Desk.nothing),
                lambda: client.call(Approval.run, Document("a"), key="k"),
                lambda: client.signal(ID, "go", 1),
                lambda: client.resolve(Approval.decision, Decision(True), key="k"),
                lambda: client.cancel(ID),
                lambda: client.set_state(Counter, "k", {}),
            ]
            for ask in asks:
                count = len(script.requests)
                with pytest.raises(Unavailable, match="unknown") as caught:
                    await ask()
                assert caught.value.maybe_accepted is True
                assert len(script.requests) == count + 1

    run(main())


def test_what_may_be_done_twice_is_sent_again_when_the_connection_is_lost() -> None:
    async def main() -> None:
        done = reply(200, None)
        async with scripted(DROP, DROP, done) as (script, client):
            await client.call(Desk.nothing, idempotency_key="i")
            assert script.requests == ["POST /Desk/nothing"] * 3
            assert all("idempotency-key: i\r\n" in head for head in script.heads)
        async with scripted(DROP, reply(202, SENT)) as (script, client):
            handle = await client.send(Approval.run, Document("a"), key="k")
            assert (handle.id, handle.accepted) == (ID, Accepted.NEW)
        async with scripted(DROP, reply(200, {"approved": True})) as (_, client):
            assert await client.submit(Approval.run, Document("a"), key="k") == Decision(True)
        async with scripted(DROP, reply(202)) as (script, client):
            await client.resolve_awakeable("awk_1", 7)
            assert len(script.requests) == 2
        async with scripted(DROP, reply(200, 7)) as (_, client):
            assert await client.output(ID) == 7

    run(main())


def test_a_wait_outlasts_lost_connections() -> None:
    async def main() -> None:
        async with scripted(*[DROP] * 5, reply(200, 7)) as (script, client):
            assert await client.attach(ID, int) == 7
            assert script.requests == [f"GET /restate/invocation/{ID}/attach"] * 6

    run(main())


def test_each_outage_has_the_whole_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._client._wire._HELD_S", 0.05)

    async def main() -> None:
        async with scripted(*[0.1] * 6, reply(200, 7), within=0.3) as (script, client):
            assert await client.attach(ID, int) == 7
            assert len(script.requests) == 7
        async with scripted(DROP, within=0.3) as (_, client):
            with pytest.raises(Unavailable):
                await client.attach(ID, int)

    run(main())


def test_a_wait_is_longer_than_the_timeout() -> None:
    async def main() -> None:
        async with scripted(None, within=0.05) as (script, client):
            for wait in (client.attach(ID), client.call(Desk.nothing)):
                task = asyncio.ensure_future(wait)
                done, _ = await asyncio.wait({task}, timeout=0.3)
                assert not done
                task.cancel()
                await asyncio.wait({task})
            assert len(script.requests) == 2

    run(main())


def test_an_answer_that_nobody_waits_for_has_to_come_in_time() -> None:
    async def main() -> None:
        async with scripted(None, within=0.05) as (script, client):
            with pytest.raises(Unavailable) as caught:
                await client.send(Desk.nothing)
            assert caught.value.maybe_accepted is True
            with pytest.raises(Unavailable) as caught:
                await client.output(ID)
            assert caught.value.maybe_accepted is False
            assert script.requests[0] == "POST /Desk/nothing/send"

    run(main())


def test_a_server_that_is_not_there_is_waited_for() -> None:
    async def main() -> None:
        port = free_port()
        async with perdure.connect(f"http://127.0.0.1:{port}", timeout=9) as client:
            task = asyncio.ensure_future(client.call(Counter.add, 1, key="k"))
            await asyncio.sleep(0.1)
            async with scripted(reply(200, 7), port=port):
                assert await task == 7

    run(main())


def test_a_server_that_stays_away_is_given_up() -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        async with perdure.connect(url, timeout=0.2) as client:
            for ask in (client.call(Desk.nothing), client.submit("A.run", key="k")):
                with pytest.raises(Unavailable, match="was not taken up") as caught:
                    await ask
                assert caught.value.maybe_accepted is False
                assert url in str(caught.value)

    run(main())


def test_a_busy_server_is_asked_again_after_the_time_it_names() -> None:
    async def main() -> None:
        busy = refusal(429, "busy", retry_after="0")
        async with scripted(busy, busy, reply(200, 7)) as (script, client):
            assert await client.call(Counter.add, 1, key="k") == 7
            assert len(script.requests) == 3
        async with scripted(refusal(429, "busy", retry_after="60")) as (script, client):
            with pytest.raises(Unavailable, match="busy") as caught:
                await client.call(Counter.add, 1, key="k")
            assert caught.value.maybe_accepted is False
            assert len(script.requests) == 1

    run(main())


def test_503_is_asked_again_only_where_that_does_no_harm() -> None:
    async def main() -> None:
        closed = refusal(503, "closed", x_perdure_error="StoreClosed", retry_after="0")
        async with scripted(closed, reply(200, 7)) as (_, client):
            with pytest.raises(StoreClosed, match="closed"):
                await client.call(Counter.add, 1, key="k")
            assert await client.call(Counter.add, 1, key="k", idempotency_key="i") == 7
        async with scripted(closed, reply(200, 7)) as (_, client):
            assert await client.output(ID) == 7
        async with scripted(closed, within=0.1) as (_, client):
            with pytest.raises(StoreClosed, match="closed"):
                await client.attach(ID)

    run(main())


def test_a_refusal_is_told_though_the_last_try_had_no_answer() -> None:
    async def main() -> None:
        closed = refusal(503, "closed", x_perdure_error="StoreClosed", retry_after="0")
        async with scripted(closed, None, within=0.2) as (script, client):
            with pytest.raises(StoreClosed, match="closed"):
                await client.output(ID)
            assert len(script.requests) == 2

    run(main())


def test_the_last_refusal_is_told_though_a_try_before_it_was_lost() -> None:
    async def main() -> None:
        closed = refusal(503, "closed", x_perdure_error="StoreClosed", retry_after="9")
        async with scripted(DROP, closed) as (script, client):
            with pytest.raises(StoreClosed, match="closed"):
                await client.resolve_awakeable("sign_1x", 1)
            assert len(script.requests) == 2

    run(main())


def test_a_server_that_names_no_time_is_not_asked_without_a_pause() -> None:
    async def main() -> None:
        busy = refusal(429, "busy", retry_after="0")
        async with scripted(busy, within=0.3) as (script, client):
            with pytest.raises(PerdureError, match="busy"):
                await client.call(Desk.nothing)
            assert 1 < len(script.requests) <= 7

    run(main())


@pytest.mark.parametrize("code", [429, 503])
def test_the_error_of_a_handler_is_final_whatever_its_code(code: int) -> None:
    async def main() -> None:
        async with scripted(refusal(code, "no tea", "invocation")) as (script, client):
            with pytest.raises(TerminalError, match="no tea") as caught:
                await client.call(Desk.nothing, idempotency_key="i")
            assert caught.value.code == code
            assert len(script.requests) == 1

    run(main())


# -- replies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "cls"),
    [
        (refusal(404, "service 'A' not found, make sure to register it"), NotFound),
        (refusal(404, "not found", "invocation"), NotFound),
        (refusal(470, "the invocation exists but has not completed yet"), NotReady),
        (refusal(400, "bad invocation id"), InvalidInput),
        (refusal(409, "cancelled", "invocation"), Cancelled),
        (refusal(409, "killed", "invocation"), Killed),
        (refusal(409, "the workflow method was already invoked", "invocation"), Conflict),
        (refusal(409, "promise was already completed", "invocation"), AlreadyCompleted),
        (refusal(404, "no such customer", "invocation"), TerminalError),
        (refusal(400, "bad customer", "invocation"), TerminalError),
        (refusal(418, "tea", "invocation"), TerminalError),
        (refusal(401, "who are you?"), TerminalError),
        (refusal(409, "x", "invocation", x_perdure_error="Killed"), Killed),
        (refusal(503, "x", x_perdure_error="StoreBroken"), StoreBroken),
        (refusal(418, "x", "invocation", x_perdure_error="OfTomorrow"), TerminalError),
        (reply(413, "length limit exceeded"), InvalidInput),
        (reply(502, "<h1>Bad gateway</h1>"), Unavailable),
        (reply(404, "<h1>nginx</h1>"), Unavailable),
        (reply(302, ""), Unavailable),
        (refusal(500, "internal error"), Unavailable),
    ],
)
def test_a_refusal_is_the_error_of_its_kind(answer: bytes, cls: type[PerdureError]) -> None:
    async def main() -> None:
        async with scripted(answer, within=0.1) as (_, client):
            with pytest.raises(PerdureError) as caught:
                await client.call(Desk.nothing)
            assert type(caught.value) is cls
            with pytest.raises(PerdureError) as caught:
                await client.output(ID)
            assert type(caught.value) is cls

    run(main())


@pytest.mark.parametrize("answer", [reply(200, "<h1>It works!</h1>"), reply(200, {"a": 1})])
def test_a_server_that_is_not_perdures_is_told_from_one_that_is(answer: bytes) -> None:
    async def main() -> None:
        async with scripted(answer) as (_, client):
            with pytest.raises(Unavailable, match="not what perdure answers"):
                await client.send(Desk.nothing)
            with pytest.raises(Unavailable, match="not what perdure answers"):
                await client.invocations()

    run(main())


def test_a_result_of_another_type_is_refused() -> None:
    async def main() -> None:
        async with scripted(reply(200, "tea")) as (_, client):
            with pytest.raises(InvalidInput, match="result"):
                await client.call(Counter.add, 1, key="k")

    run(main())


# -- a server of Restate's ------------------------------------------------------------------------


def test_submit_sends_and_attaches_at_a_server_that_is_not_perdures() -> None:
    async def main() -> None:
        answers = [
            reply(202, {**SENT, "status": "PreviouslyAccepted"}),
            reply(200, {"approved": True}),
        ]
        async with scripted(*answers) as (script, client):
            script.kind = {"services": ["Approval"]}
            assert await client.submit(Approval.run, Document("a"), key="k") == Decision(True)
            script.replies[:] = answers
            assert await client.submit(Approval.run, Document("a"), key="k") == Decision(True)
            sent = ["POST /Approval/k/run/send", f"GET /restate/invocation/{ID}/attach"]
            assert script.requests == [*sent, *sent]

    run(main())


@pytest.mark.parametrize("kind", ["ok", {"server": "nginx"}, []])
def test_a_server_of_no_known_kind_is_asked_nothing(kind: Any) -> None:
    async def main() -> None:
        async with scripted(reply(200, {})) as (script, client):
            script.kind = kind
            for ask in (client.kill(ID), client.signal(ID, "go", 1)):
                with pytest.raises(Unavailable, match=r"not what perdure answers|neither"):
                    await ask
            assert script.requests == []

    run(main())


# -- copying --------------------------------------------------------------------------------------


def test_a_backup_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        pieces = b"tea" * 100_000
        head = reply(200, "").replace(b"content-length: 0", b"content-length: 300000")
        told: list[tuple[int, int]] = []
        target = tmp_path / "copy"
        async with scripted(head + pieces) as (script, client):
            await client.backup(target, progress=lambda *each: told.append(each))
            assert script.requests == ["GET /ops/backup"]
            with pytest.raises(StoreError, match="already"):
                await client.backup(target)
            with pytest.raises(StoreError, match="can not be made"):
                await client.backup(tmp_path / "none" / "copy")
        assert (target / "data.mdb").read_bytes() == pieces
        assert (told[0][1], told[-1]) == (300_000, (300_000, 300_000))
        cut = head + pieces[:1000]
        for answer, cls in ((cut, Unavailable), (reply(404, {"message": "no"}), NotFound)):
            async with scripted(answer, close=True) as (_, client):
                with pytest.raises(cls):
                    await client.backup(tmp_path / "other")

    run(main())
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]


def test_a_backup_cancelled_as_it_gets_its_name_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    settle, rmtree = _backing_up._settle, shutil.rmtree

    def slowly(part: Path, target: Path) -> None:
        begun.set()
        go_on.wait(5)
        settle(part, target)
        ended.set()

    def remove(part: Path, **options: Any) -> None:
        for file in part.glob("*"):
            file.unlink()
        go_on.set()
        ended.wait(5)
        rmtree(part, **options)

    monkeypatch.setattr(_backing_up, "_settle", slowly)
    monkeypatch.setattr(shutil, "rmtree", remove)

    async def main() -> None:
        async with scripted(reply(200, "tea")) as (_, client):
            backup = asyncio.ensure_future(client.backup(tmp_path / "copy"))
            await until(begun.is_set)
            backup.cancel()
            await asyncio.sleep(0.05)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await backup

    run(main())
    assert [each.name for each in tmp_path.rglob("*")] in ([], ["copy", "data.mdb"])


# -- options --------------------------------------------------------------------------------------


def test_tokens_go_to_the_interface_they_are_for() -> None:
    async def main() -> None:
        async with scripted(reply(200, {"count": 1})) as (script, client):
            url = client._ingress._url
            async with perdure.connect(
                url, admin_url=url, token="tea", admin_token="cups"
            ) as other:
                await other.call("Desk.untyped")
                await other.kill(InvocationFilter())
            assert "authorization: Bearer tea\r\n" in script.heads[0]
            assert "authorization: Bearer cups\r\n" in script.heads[1]
            await client.call("Desk.untyped")
            assert "authorization" not in script.heads[2].lower()

    run(main())


def test_operators_verbs_need_the_url_of_the_admin_interface() -> None:
    async def main() -> None:
        async with perdure.connect("http://127.0.0.1:1") as client:
            for ask in (client.kill(ID), client.check(), client.state(Counter, "k")):
                with pytest.raises(InvalidInput, match="admin_url"):
                    await ask

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"url": "127.0.0.1:80"},
        {"url": 7},
        {"admin_url": "ftp://a"},
        {"timeout": 0},
        {"timeout": "1"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        perdure.connect(**{"url": "http://127.0.0.1", **options})


@pytest.mark.parametrize(
    "headers",
    [{"a b": "x"}, {"x": "a\nb"}, {"x": " a"}, {"x": "ключ"}, {"Host": "x"}, {"Cookie": "x"}],
)
def test_headers_that_no_handler_would_get_are_refused(headers: dict[str, str]) -> None:
    async def main() -> None:
        async with perdure.connect("http://127.0.0.1:1") as client:
            with pytest.raises(InvalidInput):
                await client.call(Desk.nothing, headers=headers)

    run(main())


def test_a_closed_client_asks_nothing_and_ends_its_waits() -> None:
    async def main() -> None:
        async with scripted(None) as (script, client):
            waiting = asyncio.ensure_future(client.attach(ID))
            await until(lambda: len(script.requests) == 1)
            await client.close()
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable, match="closed") as caught:
                await client.call(Desk.nothing)
            assert caught.value.maybe_accepted is False
            assert len(script.requests) == 1

    run(main())


def test_a_client_closed_between_two_tries_says_so() -> None:
    async def main() -> None:
        busy = refusal(429, "busy", **{"retry-after": "0.2"})
        async with scripted(busy) as (script, client):
            waiting = asyncio.ensure_future(client.call(Desk.nothing))
            await until(lambda: len(script.requests) == 1)
            await asyncio.sleep(0.05)  # until the answer is there
            await client.close()
            with pytest.raises(Unavailable) as caught:
                await waiting
            assert caught.value.maybe_accepted is False

    run(main())


def test_a_closed_client_makes_no_backup(tmp_path: Path) -> None:
    async def main() -> None:
        async with scripted(None) as (_, client):
            await client.close()
            with pytest.raises(Unavailable, match="closed"):
                await client.backup(tmp_path / "copy")

    run(main())
    assert not list(tmp_path.iterdir())


def test_httpx_is_imported_when_a_client_is_made_and_its_absence_is_named() -> None:
    program = (
        "import sys, perdure, perdure.client\n"
        "assert not [name for name in sys.modules if name.startswith('http')]\n"
        "sys.modules['httpx'] = None\n"
        "try:\n    perdure.connect('http://127.0.0.1')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install perdure[client]" in done.stdout, done.stderr


# -- a server of one's own ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """The URL of a server of *app*."""
    config = uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await until(lambda: server.started or serving.done())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def test_who_stops_waiting_ends_the_request_and_not_the_invocation(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Desk()) as engine:
            app = ingress(engine)
            gone = 0

            async def counted(scope: Any, receive: Any, send: Any) -> None:
                nonlocal gone
                await app(scope, receive, send)
                gone += 1

            async with listening(counted) as url, perdure.connect(url) as client:
                sent = await client.send(Desk.wait)
                waits: list[Callable[[], Any]] = [
                    sent.result,
                    lambda: client.call(Desk.wait, idempotency_key="i"),
                ]
                for wait in waits:
                    count = gone
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(wait(), 0.1)
                    await until(lambda: gone > count)  # noqa: B023
                assert await engine.cancel(InvocationFilter(handler=Desk.copy)) == 0
                await until_status(engine, sent, Status.SUSPENDED)
                await client.signal(sent.id, Desk.go, "on")
                assert await sent.result() == "on"
                other = await client.send(Desk.wait, idempotency_key="i")
                assert other.accepted is Accepted.EXISTING
                await client.signal(other.id, Desk.go, "on too")
                assert await client.call(Desk.wait, idempotency_key="i") == "on too"

    run(main())


def test_keys_pass_a_real_server_as_they_are(resident_place: Place) -> None:
    async def main() -> None:
        async with (
            resident_place.engine(Counter()) as engine,
            listening(ingress(engine)) as url,
            perdure.connect(url) as client,
        ):
            for key in ("", "..", "a/b", "%2F", "a b?c=d#e", "ключ", "send"):
                assert await client.call(Counter.key_of, key=key) == key

    run(main())


def test_a_hundred_and_fifty_wait_at_a_time(resident_place: Place) -> None:
    async def main() -> None:
        async with (
            resident_place.engine(Desk()) as engine,
            listening(ingress(engine)) as url,
            perdure.connect(url) as client,
        ):
            sent = await asyncio.gather(*(client.send(Desk.wait) for _ in range(150)))
            waits = [asyncio.ensure_future(each.result()) for each in sent]
            await asyncio.gather(*(client.signal(each.id, Desk.go, "on") for each in sent))
            assert await asyncio.gather(*waits) == ["on"] * 150

    run(main())


def test_a_wait_outlasts_the_restart_of_a_server(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Desk()) as first:
            transport = ByHost(first)
            client = perdure.connect(URL, transport=transport)
            sent = await client.send(Desk.wait)
            waiting = asyncio.ensure_future(sent.result())
            await until_status(first, sent, Status.SUSPENDED)
        async with client, resident_place.engine(Desk()) as second:
            transport.serve(second)
            await client.signal(sent.id, Desk.go, "on")
            assert await waiting == "on"

    run(main())
