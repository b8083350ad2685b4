"""Sizes, numbers and times: what is too much is refused, and what waits is not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import fields
from typing import Any

import httpx
import pytest
from engine_support import Place, run, until
from http_support import Greeter, Signup
from server_support import (
    Answer,
    Asked,
    Raw,
    answer,
    body_of,
    client_of,
    connected,
    guarded,
    headers_app,
    length_app,
    listening,
)

from perdure.http import Limits, ingress
from perdure.http._requests import App, ClientGone, Receive, Request, Scope, Send
from perdure.http._traffic import Waiting

SHORT = 0.2
"""Seconds of patience, in tests of a client that is slower."""

MIB = 1 << 20
POST = b"POST /Greeter/greet HTTP/1.1\r\nhost: localhost\r\n"
GET = b"GET /Greeter/greet HTTP/1.1\r\nhost: localhost\r\n\r\n"


def ask(app: object, **request: Any) -> Answer:
    return run(Asked(app, **request).answer())  # type: ignore[arg-type] # what a test says


# ---- sizes, in any server -----------------------------------------------------------------------


def test_a_body_that_says_it_is_too_long_is_refused_as_restate_does() -> None:
    app = guarded(limits=Limits(body_bytes=10))
    refused = ask(app, headers=[(b"content-length", b"11")])
    assert (refused.status, refused.body) == (413, b"length limit exceeded")
    assert refused.headers[b"content-type"].startswith(b"text/plain")
    assert ask(app, headers=[(b"content-length", b"9" * 30)]).status == 413
    assert ask(app, headers=[(b"content-length", b"10")], body=[b"0123456789"]).body == b"10"


def test_a_body_that_turns_out_too_long_is_refused_and_the_app_sees_its_client_go() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await body_of(receive))
        await answer(send, b"of the app")

    refused = ask(guarded(app, limits=Limits(body_bytes=10)), body=[b"01234", b"56789", b"x"])
    assert (refused.status, refused.body) == (413, b"length limit exceeded")
    assert seen == [None]


def test_a_body_that_turns_out_too_long_in_the_middle_of_an_answer_ends_like_a_disconnect() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert await body_of(receive) is None

    assert ask(guarded(app, limits=Limits(body_bytes=10)), body=[b"0" * 11]).status == 200


def test_headers_that_are_too_long_together_are_refused() -> None:
    app = guarded(limits=Limits(header_bytes=100))
    assert ask(app, headers=[(b"x-one", b"1" * 45), (b"x-two", b"2" * 45)]).status == 200
    assert ask(app, headers=[(b"x-one", b"1" * 45), (b"x-two", b"2" * 46)]).status == 431


def test_a_path_with_its_query_that_is_too_long_is_refused() -> None:
    app = guarded(limits=Limits(target_bytes=20))
    assert ask(app, path="/" + "a" * 9, query=b"b" * 10).status == 200
    assert ask(app, path="/" + "a" * 10, query=b"b" * 10).status == 414


def test_limits_must_be_positive() -> None:
    for each in fields(Limits):
        with pytest.raises(ValueError, match=f"{each.name} must be positive"):
            Limits(**{each.name: 0})


# ---- numbers ------------------------------------------------------------------------------------


class Door:
    """An app whose requests stay in it until it is opened, working or waiting."""

    def __init__(self, *, waiting: bool) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self._waiting = waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        if self._waiting and scope["path"] != "/work":
            with Waiting(scope):
                await self.open.wait()
        else:
            await self.open.wait()
        await answer(send, b"out")


async def crowd(door: Door, guard: App, count: int, path: str = "/") -> list[asyncio.Task[Any]]:
    """*count* requests that are inside, or have been refused."""
    before = door.inside
    asked = Asked(guard, path=path)
    tasks = [asyncio.ensure_future(asked.answer()) for _ in range(count)]
    await until(lambda: door.inside - before + sum(each.done() for each in tasks) == count)
    return tasks


def test_more_requests_than_are_worked_on_at_a_time_are_told_to_come_again() -> None:
    async def main() -> None:
        door = Door(waiting=False)
        guard = guarded(door, limits=Limits(working=2))
        inside = await crowd(door, guard, 2)
        refused = await Asked(guard).answer()
        assert (refused.status, refused.headers[b"retry-after"]) == (429, b"1")
        door.open.set()
        assert [(await each).status for each in inside] == [200, 200]
        assert (await Asked(guard).answer()).status == 200

    run(main())


def test_requests_that_wait_leave_room_for_those_that_are_worked_on() -> None:
    async def main() -> None:
        door = Door(waiting=True)
        guard = guarded(door, limits=Limits(working=2, waiting=1_000))
        waiting = await crowd(door, guard, 500)
        working = await crowd(door, guard, 3, "/work")
        assert [each.done() for each in working] == [False, False, True]
        door.open.set()
        assert {(await each).status for each in waiting} == {200}
        assert [(await each).status for each in working] == [200, 200, 429]

    run(main())


def test_of_more_requests_than_may_wait_nothing_is_accepted_and_what_ends_the_waits_is(
    place: Place,
) -> None:
    async def main() -> None:
        async with place.engine(Greeter(), Signup()) as engine:
            app = ingress(engine, limits=Limits(waiting=2))
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as on:
                runs = [
                    asyncio.ensure_future(on.post(f"/Signup/{key}/run", json=key)) for key in "ab"
                ]
                await until(lambda: len(app.traffic.waiting) == 2)
                attached = "/restate/workflow/Signup/a/attach"
                for refused in (await on.post("/Signup/c/run", json="c"), await on.get(attached)):
                    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert (await on.get("/restate/workflow/Signup/c/output")).status_code == 404
                assert (await on.get("/restate/health")).status_code == 200
                for key in "ab":
                    path = f"/perdure/promises/Signup/{key}/approval/resolve"
                    assert (await on.post(path, json="yes")).status_code == 200
                assert [(await each).json() for each in runs] == ["a:yes", "b:yes"]
                assert (await on.get(attached)).json() == "a:yes"

    run(main())


def test_a_request_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        with Waiting(scope):
            raise RuntimeError

    async def main() -> None:
        guard = guarded(failing, limits=Limits(working=1))
        assert [(await Asked(guard).answer()).status for _ in range(3)] == [500, 500, 500]
        door = Door(waiting=True)
        guard = guarded(door, limits=Limits(working=1))
        (waiting,) = await crowd(door, guard, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (guard.traffic.working, guard.traffic.waiting) == (0, set())

    run(main())


def test_a_stop_tells_who_waits_to_come_again_and_lets_work_end() -> None:
    async def main() -> None:
        door = Door(waiting=True)
        guard = guarded(door)
        waiting = await crowd(door, guard, 3)
        working = await crowd(door, guard, 1, "/work")
        guard.traffic.stop()
        told = [await each for each in waiting]
        assert [each.status for each in told] == [503, 503, 503]
        assert [each.cancelling() for each in waiting] == [0, 0, 0]  # it is dealt with
        assert [each.headers[b"retry-after"] for each in told] == [b"1", b"1", b"1"]
        assert (await Asked(guard).answer()).status == 503  # one that comes later
        door.open.set()
        assert [(await each).status for each in working] == [200]

    run(main())


def test_work_that_begins_to_wait_after_a_stop_is_told_the_same() -> None:
    async def main() -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            reached.set()
            await go_on.wait()
            with Waiting(scope):
                await asyncio.Event().wait()

        guard = guarded(app)
        asked = asyncio.ensure_future(Asked(guard).answer())
        await reached.wait()
        guard.traffic.stop()
        go_on.set()
        await until(asked.done)
        assert (await asked).status == 503

    run(main())


# ---- times and memory, on real sockets -------------------------------------------------------


def test_headers_that_do_not_come_in_time_end_the_connection() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(header_seconds=SHORT)) as slow:
            await slow.send(POST)
            assert (await slow.answer()).status == 408
            assert await slow.is_closed()
        async with client_of(limits=Limits(header_seconds=SHORT)) as silent:
            assert await silent.is_closed()

    run(main())


@pytest.mark.parametrize("drop", [b"\r\n", b"P"])
def test_a_second_request_has_as_long_for_its_headers_from_its_first_byte(drop: bytes) -> None:
    async def main() -> None:
        async with client_of(limits=Limits(header_seconds=SHORT)) as slow:
            await slow.send(GET)
            assert (await slow.answer()).status == 200
            await slow.send(drop)
            assert (await slow.answer()).status == 408
            assert await slow.is_closed()

    run(main())


def test_headers_without_end_are_refused_while_they_come() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(header_bytes=1_000)) as endless:
            await endless.send(POST, b"x-endless: ")
            answered = asyncio.ensure_future(endless.answer())
            while not answered.done():
                await endless.send(b"x" * 100)
                await asyncio.wait({answered}, timeout=0.01)
            assert (await answered).status == 431
            assert await endless.is_closed()

    run(main())


def test_a_body_that_does_not_come_in_time_is_refused() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(body_seconds=SHORT)) as slow:
            await slow.send(POST, b"content-length: 10\r\n\r\n12345")
            refused = await slow.answer()
            assert (refused.status, refused.json["code"]) == (408, 408)
            assert refused.headers[b"x-content-type-options"] == b"nosniff"
            assert await slow.is_closed()

    run(main())


def test_the_app_of_a_body_that_does_not_come_sees_its_client_go() -> None:
    seen = asyncio.Queue[bytes | None]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.put_nowait(await body_of(receive))

    async def main() -> None:
        async with client_of(app, Limits(body_seconds=SHORT)) as slow:
            await slow.send(POST, b"content-length: 10\r\n\r\n12345")
            assert await seen.get() is None

    run(main())


def test_a_body_is_taken_as_slowly_as_the_limit_allows() -> None:
    async def main() -> None:
        async with client_of() as client:
            await client.send(POST, b"content-length: 4\r\n\r\n")
            for byte in b"body":
                await client.send(bytes([byte]))
            assert (await client.answer()).body == b"4"

    run(main())


def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(body_bytes=1_000)) as client:
            await client.send(POST, b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(6):
                await client.send(b"c8\r\n", b"x" * 200, b"\r\n")
            assert (await client.answer()).body == b"length limit exceeded"

    run(main())


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for_longer_than_a_body() -> None:
    async def main() -> None:
        limits = Limits(body_bytes=1_000, body_seconds=SHORT)
        async with client_of(limits=limits) as client:
            await client.send(POST, b"content-length: 2000\r\n\r\n")
            assert (await client.answer()).status == 413
            await client.send(b"x" * 1_999)
            assert await client.is_closed()

    run(main())


def test_a_client_that_sends_all_of_a_body_that_was_refused_may_ask_again() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(body_bytes=1_000)) as client:
            await client.send(POST, b"content-length: 2000\r\n\r\n")
            assert (await client.answer()).status == 413
            await client.send(b"x" * 2_000, GET)
            assert (await client.answer()).status == 200

    run(main())


def test_the_time_without_a_request_begins_when_all_of_a_refused_body_has_come() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(body_bytes=1_000, idle_seconds=1)) as client:
            await client.send(POST, b"content-length: 2000\r\n\r\n")
            assert (await client.answer()).status == 413
            await client.send(b"x" * 2_000)
            assert await client.is_closed()

    run(main())


def test_what_stands_behind_a_body_does_not_become_a_header() -> None:
    async def main() -> None:
        async with client_of(headers_app) as client:
            await client.send(POST, b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            await client.send(b"0\r\nauthorization: Bearer late\r\n\r\n")
            assert (await client.answer()).json == ["host", "transfer-encoding"]

    run(main())


def test_what_frames_a_body_may_not_be_without_end() -> None:
    async def main() -> None:
        limits = Limits(header_bytes=10_000)
        async with client_of(limits=limits) as client:
            await client.send(POST, b"transfer-encoding: chunked\r\n\r\n0\r\nx-endless: ")
            with pytest.raises(ConnectionError):
                await flood(client)

    run(main())


async def flood(client: Raw) -> None:
    for _ in range(1_000):
        await client.send(b"x" * 10_000)
        await asyncio.sleep(0)


async def long_app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, bytes(64 * MIB))


async def slow_app(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(SHORT)
    await length_app(scope, receive, send)


async def endless_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        await asyncio.sleep(0)


async def short_app(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, bytes(60_000))


@pytest.mark.parametrize("app", [long_app, endless_app, short_app])
def test_a_client_that_does_not_take_its_answer_is_cut_off(app: App) -> None:
    async def main() -> None:
        async with listening(app, Limits(send_seconds=SHORT)) as listener:
            listener.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000)
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_000)
                client.connect(("127.0.0.1", listener.port))
                client.sendall(GET[:-2] + b"connection: close\r\n\r\n")
                await until(lambda: not listener.watch.closed.is_set())
                await listener.watch.closed.wait()

    run(main())


def test_a_client_that_takes_its_answer_gets_all_of_it() -> None:
    async def main() -> None:
        async with client_of(long_app) as client:
            await client.send(GET)
            assert len((await client.answer()).body) == 64 * MIB

    run(main())


def test_a_connection_without_a_request_is_closed() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(idle_seconds=1)) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200
            assert await client.is_closed()

    run(main())


def test_a_request_may_wait_longer_than_any_limit_of_time() -> None:
    limits = Limits(
        header_seconds=SHORT / 4, body_seconds=SHORT / 4, send_seconds=SHORT / 4, idle_seconds=1
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await body_of(receive)
        with Waiting(scope):
            await asyncio.sleep(1.2)
        await answer(send, body or b"")

    async def main() -> None:
        async with client_of(app, limits) as client:
            await client.send(POST, b"content-length: 4\r\n\r\nbody")
            assert (await client.answer()).body == b"body"

    run(main())


def test_requests_sent_at_once_are_answered_in_their_order() -> None:
    async def main() -> None:
        async with client_of(limits=Limits(body_seconds=SHORT)) as client:
            await client.send(
                *(POST + b"content-length: %d\r\n\r\n" % each + b"x" * each for each in range(5)),
            )
            assert [(await client.answer()).body for _ in range(5)] == [
                *(b"0", b"1", b"2", b"3", b"4")
            ]
            await client.send(POST, b"content-length: 1\r\n\r\n")  # limits hold afterwards
            assert (await client.answer()).status == 408

    run(main())


def test_a_request_behind_one_that_waits_is_not_late_for_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            with Waiting(scope):
                await asyncio.sleep(3 * SHORT)
        await length_app(scope, receive, send)

    async def main() -> None:
        limits = Limits(body_seconds=SHORT)
        async with client_of(app, limits) as client:
            await client.send(b"GET /wait HTTP/1.1\r\n\r\n", POST, b"content-length: 4\r\n\r\nbo")
            assert (await client.answer()).body == b"0"
            await client.send(b"dy")
            assert (await client.answer()).body == b"4"
            await client.send(GET, POST, b"content-length: 4\r\n\r\nbo")
            assert (await client.answer()).body == b"0"
            assert (await client.answer()).status == 408

    run(main())


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
@pytest.mark.parametrize("cut", [0, 30, 140])
def test_an_offer_to_speak_another_protocol_is_passed_over(offer: bytes, cut: int) -> None:
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %s\r\nhttp2-settings: A\r\n" % offer
    asked = POST + offer + b"content-length: 4\r\n\r\nbody"

    async def main() -> None:
        async with client_of() as client:
            for _ in range(2):
                await client.send(asked[:cut])
                await asyncio.sleep(0)
                await client.send(asked[cut:], GET)
                assert (await client.answer()).body == b"4"
                assert (await client.answer()).body == b"0"

    run(main())


def test_an_offer_of_a_client_that_wants_no_further_answer_is_its_last_request() -> None:
    async def main() -> None:
        async with client_of() as client:
            await client.send(GET[:-2], b"connection: Upgrade, close\r\nupgrade: h2c\r\n\r\n")
            assert (await client.answer()).headers[b"connection"] == b"close"
            assert await client.is_closed()

    run(main())


def test_bytes_behind_a_request_do_not_become_its_answer() -> None:
    async def main() -> None:
        async with client_of(slow_app) as client:
            await client.send(GET, b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert await client.is_closed()

    run(main())


def test_a_server_is_no_proxy() -> None:
    async def main() -> None:
        async with client_of() as client:
            await client.send(b"CONNECT site.example:443 HTTP/1.1\r\nhost: site.example\r\n\r\n")
            assert (await client.answer()).status == 400
            assert await client.is_closed()

    run(main())


def test_one_connection_too_many_is_told_so_and_closed() -> None:
    async def main() -> None:
        async with (
            listening(limits=Limits(connections=2)) as listener,
            connected(listener) as first,
            connected(listener) as second,
        ):
            await first.send(GET)
            assert (await first.answer()).status == 200
            async with connected(listener) as third:
                assert (await third.answer()).status == 503
                assert await third.is_closed()
            await second.send(GET)
            assert (await second.answer()).status == 200

    run(main())


def test_bytes_that_are_no_request_are_refused() -> None:
    async def main() -> None:
        async with client_of(length_app) as client:
            await client.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert (await client.answer()).status == 400
            assert await client.is_closed()

    run(main())


@pytest.mark.parametrize("target", [b"http://", b"http://localhost", b"http://localhost:99999/x"])
def test_a_target_without_a_path_is_no_request_and_no_failure_of_the_server(
    target: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening() as listener:
            async with connected(listener) as client:
                await client.send(b"GET ", target, b" HTTP/1.1\r\n\r\n")
                assert (await client.answer()).status == 400
                assert await client.is_closed()
            async with connected(listener) as client:
                await client.send(GET)
                assert (await client.answer()).status == 200
                await client.send(b"GET ", target, b" HTTP/1.1\r\n\r\n")
                assert (await client.answer()).status == 400

    run(main())
    assert caplog.records == []


def test_any_number_of_offers_at_once_are_passed_over() -> None:
    offer = GET[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"

    async def main() -> None:
        async with client_of() as client:
            await client.send(offer * 1_500)
            for _ in range(1_500):
                assert (await client.answer()).status == 200

    run(main())


@pytest.mark.parametrize("behind", [GET, POST + b"content-length: 100000\r\n\r\n" + b"x" * 100_000])
@pytest.mark.parametrize("abort", [False, True])
def test_a_client_that_leaves_with_a_request_behind_one_that_waits_ends_the_wait(
    behind: bytes, abort: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        await request.body()
        with contextlib.suppress(ClientGone):
            await request.unless_gone(asyncio.get_running_loop().create_future())

    async def main() -> None:
        limits = Limits(header_seconds=SHORT)
        async with listening(app, limits) as listener:
            state, traffic = listener.watch.state, listener._app.traffic
            async with connected(listener) as client:
                await client.send(GET, behind)
                await until(lambda: len(traffic.waiting) == 1)
                if abort:
                    client.writer.transport.abort()
            await until(lambda: not (traffic.waiting or state.tasks or state.connections))
            assert traffic.working == 0

    run(main())
