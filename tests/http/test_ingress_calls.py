"""Calls and sends over HTTP: requests and the answers that Restate's ingress gave them."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from engine_support import ManualClock, Place, run, until_idle
from http_support import JSON, error, wire

FAMILIES = ["", "/restate/call"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_answers_with_the_result_and_the_id(resident_place: Place, family: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.call(f"{family}/Greeter/greet", "Bob")
            assert (answer.status_code, answer.json()) == (200, "hi Bob")
            assert answer.headers["content-type"] == "application/json"
            assert re.fullmatch(r"inv_[0-9a-v]{26}", answer.headers["x-restate-id"])
            assert "idempotency-expires" not in answer.headers

    run(main())


def test_nothing_is_an_empty_body_without_a_type(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.call("/Greeter/void", "x")
            assert (answer.status_code, answer.content) == (200, b"")
            assert "content-type" not in answer.headers
            assert "x-restate-id" in answer.headers

    run(main())


def test_a_handler_without_argument_takes_get_and_post(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert (await on.ingress.get("/Greeter/noargs")).json() == "noargs"
            assert (await on.call("/Greeter/noargs")).json() == "noargs"

    run(main())


def test_bytes_go_in_and_out_as_they_are(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.ingress.post("/Greeter/raw", content=b"\x00\xff{")
            assert (answer.status_code, answer.content) == (200, b"{\xff\x00")
            assert answer.headers["content-type"] == "application/octet-stream"
            nothing = await on.ingress.post("/Greeter/raw")
            assert (nothing.status_code, nothing.content) == (200, b"")
            assert "content-type" not in nothing.headers

    run(main())


def test_a_slash_at_the_end_says_nothing(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert (await on.call("/Greeter/greet/", "Bob")).json() == "hi Bob"
            assert (await on.call("/Counter//add/", 2)).json() == 2
            assert (await on.call("/Counter//add", 2)).json() == 4
            assert error(await on.call("/Greeter/", 1)) == (400, "bad path: /Greeter", "ingress")

    run(main())


def test_an_argument_that_may_be_left_out_may_be_left_out(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert (await on.call("/Greeter/maybe")).json() == "nobody"
            assert (
                await on.ingress.post("/Greeter/maybe", content=b"null", headers=JSON)
            ).json() is None

    run(main())


def test_records_are_typed_both_ways(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            item = {"name": "tea", "price": 1.5, "due": "2026-01-01T00:00:00Z"}
            answer = await on.call("/Greeter/price", item)
            assert answer.json() == {**item, "price": 3.0}

    run(main())


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    (
        "/Greeter/noargs",
        {"json": 1},
        400,
        (
            "input validation error: Expected body and content-type to be empty, but wasn't with "
            "content-type 'Some(\"application/json\")'"
        ),
    ),
    ("/Greeter/greet", {"content": b'"x"'}, 400, "input validation error: Empty content-type"),
    (
        "/Greeter/greet",
        {"data": {"a": "b"}},
        400,
        (
            "input validation error: Content-type 'application/x-www-form-urlencoded' "
            "does not match 'application/json'"
        ),
    ),
    ("/Greeter/greet", {}, 400, "input validation error: Empty body not allowed"),
    (
        "/Greeter/greet",
        {"content": b"{bad", "headers": JSON},
        400,
        "argument of Greeter.greet: expected `str`, got `object`",
    ),
    (
        "/Greeter/greet",
        {"content": b"'x'", "headers": JSON},
        400,
        "argument of Greeter.greet: JSON is malformed: invalid character (byte 0)",
    ),
    ("/Greeter/greet", {"json": 12}, 400, "argument of Greeter.greet: expected `str`, got `int`"),
    (
        "/Greeter/price",
        {"json": {"name": "tea", "price": "much"}},
        400,
        "argument of Greeter.price: expected `float`, got `str` - at `$.price`",
    ),
    (
        "/Nope/greet",
        {"json": 1},
        404,
        "service 'Nope' not found, make sure to register the service before calling it.",
    ),
    (
        "/Greeter/nope",
        {"json": 1},
        404,
        (
            "the service 'Greeter' exists, but the handler 'nope' was not found, check that the "
            "handler exists in the latest registered service version."
        ),
    ),
    ("/Greeter", {"json": 1}, 400, "bad path: /Greeter"),
    (
        "/Greeter/greet/x/y",
        {"json": 1},
        400,
        (
            "bad path: /Greeter/greet/x/y, expected either /:service-name/:handler or "
            "/:object-name/:object-key/:handler"
        ),
    ),
    (
        "/Counter/add",
        {"json": 1},
        400,
        "bad path: Counter has keys, expected /:object-name/:object-key/:handler",
    ),
    (
        "/Greeter/k/nope",
        {"json": 1},
        400,
        "bad path: Greeter has no keys, expected /:service-name/:handler",
    ),
    (
        "/restate/call/Greeter/greet/send",
        {"json": 1},
        400,
        "bad path: Greeter has no keys, expected /:service-name/:handler",
    ),
    ("/Greeter/secret", {}, 400, "the invoked service is not public"),
    (
        "/Greeter/greet?delay=2s",
        {"json": "x"},
        400,
        "cannot use the delay query parameter with calls. The delay is supported only with sends",
    ),
    (
        "/Signup/w/run",
        {"json": "A", "headers": {"idempotency-key": "i"}},
        400,
        (
            "cannot use the idempotency key with workflow handlers. The handler invocation will "
            "already be idempotent by the workflow key itself."
        ),
    ),
    (
        "/restate/scope/s/call/Greeter/greet",
        {"json": "x"},
        400,
        "there are no scopes here: leave the scope out of the path",
    ),
    ("/restate/nonsense", {}, 404, "not found"),
    ("/restate", {}, 400, "bad path: /restate"),
    ("/restate/workflow/Signup/k", {}, 400, "bad path: /restate/workflow/Signup/k"),
    ("/restate/workflow/Signup/k/nonsense", {}, 404, "not found"),
    ("/restate/awakeables/foo", {}, 400, "bad path: /restate/awakeables/foo"),
    ("/restate/awakeables/foo/nonsense", {}, 404, "not found"),
    ("/perdure/nonsense", {}, 404, "not found"),
    (
        "/restate/output",
        {
            "json": {
                "target": "idempotentInvocation",
                "service": "Counter",
                "handler": "add",
                "idempotencyKey": "i",
            }
        },
        400,
        "bad path: Counter has keys",
    ),
    ("/Greeter/%ff", {}, 400, "bad path: /Greeter/%ff is not UTF-8"),
]


@pytest.mark.parametrize(
    ("path", "request_parts", "status", "message"),
    REFUSED,
    ids=[f"{r[0]} {r[3][:30]}" for r in REFUSED],
)
def test_what_can_not_be_is_refused_with_restates_texts(
    resident_place: Place, path: str, request_parts: dict[str, Any], status: int, message: str
) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.ingress.post(path, **request_parts)
            assert error(answer) == (status, message, "ingress")
            assert (await on.engine.invocations()).items == []

    run(main())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
def test_other_methods_are_405(resident_place: Place, method: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.ingress.request(method, "/Greeter/greet")
            assert answer.status_code == 405
            if method != "HEAD":
                assert error(answer) == (405, "method not allowed", "ingress")

    run(main())


def test_a_terminal_error_has_its_own_status_and_metadata(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.call("/Greeter/fail", 418)
            assert answer.json() == {
                "code": 418,
                "message": "my msg",
                "source": "invocation",
                "metadata": {"k": "v"},
            }
            assert error(answer) == (418, "my msg", "invocation")
            assert error(await on.call("/Greeter/fail", 0)) == (500, "my msg", "invocation")
            assert error(await on.call("/Greeter/fail", 200))[0] == 500

    run(main())


@pytest.mark.parametrize("family", ["/Greeter/greet/send", "/restate/send/Greeter/greet"])
def test_a_send_is_accepted(resident_place: Place, family: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.call(family, "Bob")
            assert answer.status_code == 202
            sent = answer.json()
            assert sent == {
                "invocationId": answer.headers["x-restate-id"],
                "status": "Accepted",
            }
            assert await on.engine.attach(sent["invocationId"]) == "hi Bob"

    run(main())


@pytest.mark.parametrize(
    ("delay", "ms"),
    [
        ("2s", 2000),
        ("2500ms", 2500),
        ("PT2S", 2000),
        ("1h 30m", 5_400_000),
        ("1h, 30m", 5_400_000),
        ("2,5s", 2500),
        ("PT2,5S", 2500),
        ("P1DT0.5S", 86_400_500),
    ],
)
def test_a_send_with_a_delay_tells_when_it_runs(resident_place: Place, delay: str, ms: int) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with wire(resident_place, clock=clock) as on:
            answer = await on.ingress.post(
                "/Greeter/greet/send", params={"delay": delay}, json="Bob"
            )
            assert answer.status_code == 202
            sent = answer.json()
            due = datetime.fromisoformat(sent["executionTime"])
            assert due == datetime.fromtimestamp((clock.now_ms() + ms) / 1000, UTC)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", sent["executionTime"])
            clock.advance(ms / 1000)
            assert await on.engine.attach(sent["invocationId"]) == "hi Bob"

    run(main())


@pytest.mark.parametrize(
    "delay",
    ["2000", "", "2 parsecs", "1M", "1s,", "1s,2s", "-2s", "P", "PT", "1e400s", "9" * 18 + "w"],
)
def test_a_delay_without_unit_or_sense_is_refused(resident_place: Place, delay: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.ingress.post(
                "/Greeter/greet/send", params={"delay": delay}, json="Bob"
            )
            status, message, _ = error(answer)
            assert (status, message[:48]) == (
                400,
                "bad delay query parameter, must be a ISO8601 dur",
            )

    run(main())


def test_the_first_of_two_with_one_idempotency_key_counts(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            first = await on.call("/Counter/k1/add", 5, idempotency_key="i1")
            again = await on.call("/Counter/k1/add", 7, idempotency_key="i1")
            assert (first.json(), again.json()) == (5, 5)
            assert "idempotency-expires" not in first.headers
            expires = datetime.fromisoformat(again.headers["idempotency-expires"])
            assert 86_000 < (expires - datetime.now(UTC)).total_seconds() < 86_401
            sent = await on.call("/Counter/k1/add/send", 9, idempotency_key="i1")
            assert sent.json() == {
                "invocationId": first.headers["x-restate-id"],
                "status": "PreviouslyAccepted",
            }
            assert (await on.call("/Counter/k1/total")).json() == 5

    run(main())


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_an_idempotency_key_is_the_one_of_the_path(resident_place: Place, encoding: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            headers = {b"idempotency-key": "clé".encode(encoding)}
            called = await on.ingress.post("/Counter/k/add", json=5, headers=headers)
            assert called.json() == 5
            path = "/restate/invocation/Counter/k/add/clé/output"
            assert (await on.ingress.get(path)).json() == 5

    run(main())


def test_a_second_call_with_the_key_waits_for_the_first(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            calls = [
                asyncio.ensure_future(on.call("/Greeter/wait", idempotency_key="i"))
                for _ in range(2)
            ]
            found = await _only_invocation(on)
            await on.call(f"/perdure/signals/{found}/go", "went")
            answers = await asyncio.gather(*calls)
            assert [each.json() for each in answers] == ["went", "went"]

    run(main())


def test_keys_are_one_unquoted_segment_and_may_be_empty(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert (await on.call("/Counter/a%2Fb%20c/add", 1)).json() == 1
            assert (await on.call("/Counter//add", 2)).json() == 2
            assert await on.engine.state("Counter", "a/b c") == {"total": 1}
            assert await on.engine.state("Counter", "") == {"total": 2}
            key = "k" * 257
            assert error(await on.call(f"/Counter/{key}/add", 1))[0] == 400

    run(main())


def test_a_handler_sees_the_headers_without_the_secret_ones(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.ingress.get(
                "/Greeter/headers?a=b",
                headers=[
                    ("x-a", "1"),
                    ("x-a", "2"),
                    ("authorization", "Bearer x"),
                    ("cookie", "y"),
                ],
            )
            seen = answer.json()
            assert seen["x-a"] == "1, 2"
            assert seen["x-restate-ingress-path"] == "/Greeter/headers?a=b"
            assert {"authorization", "cookie", "host", "content-length"}.isdisjoint(seen)

    run(main())


def test_a_client_that_goes_ends_its_wait_and_nothing_else(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            waiting = asyncio.ensure_future(on.call("/Greeter/wait"))
            found = await _only_invocation(on)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await on.engine.describe(found)).status == "suspended"
            await on.engine.cancel(found)
            await until_idle(on.engine)

    run(main())


def test_browsers_of_other_origins_may_call(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            asked = {"origin": "http://shop", "access-control-request-method": "POST"}
            preflight = await on.ingress.options("/Greeter/greet", headers=asked)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == "*"
            answer = await on.call("/Greeter/greet", "x", origin="http://shop")
            assert answer.headers["access-control-allow-origin"] == "*"

    run(main())


async def _only_invocation(on: Any) -> str:
    found: list[Any] = []

    async def look() -> None:
        found[:] = (await on.engine.invocations()).items

    for _ in range(500):
        await look()
        if found and found[0].status == "suspended":
            return str(found[0].id)
        await asyncio.sleep(0.001)
    raise AssertionError(f"nothing waits: {found}")


def test_an_answer_needs_an_engine_that_is_open(resident_place: Place) -> None:
    async def main() -> httpx.Response:
        async with wire(resident_place) as on:
            await on.engine.close()
            return await on.call("/Greeter/greet", "x")

    status, message, _ = error(run(main()))
    assert (status, message) == (503, "the engine is closed; make another Engine to go on")
