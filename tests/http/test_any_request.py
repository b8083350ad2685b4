"""Whatever bytes a request is made of, it is answered, without a 5xx; refused, it does nothing."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import pytest
from engine_support import Place, scheduler_of, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_support import Basket, Leaf, Shop, Visit

from perdure import Engine
from perdure._binding import register
from perdure._store import Db
from perdure.http import admin, ingress
from perdure.http._openapi_admin import admin_document
from perdure.http._openapi_ingress import ingress_document

METHODS: Final = [
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "",
    "p\x00st",
]
SEGMENTS: Final = [
    *("restate", "perdure", "call", "send", "attach", "output", "lookup", "health", "invocation"),
    *("workflow", "awakeables", "a", "resolve", "reject", "submit", "promises", "signals"),
    *("scope", "openapi", "Shop", "Basket", "Visit", "number", "anything", "content", "nothing"),
    *("put", "articles", "run", "seen", "welcome", "x", "", "..", "%2F", "%00", "%ff", "%", "*"),
    *("services", "handlers", "state", "workflows", "invocations", "query", "check", "version"),
    *("cancel", "kill", "pause", "resume", "purge", "restart-as-new", "fly", "k%C3%A9y"),
    *("k" * 257, "é" * 200, "inv_", "inv_" + "7" * 26, "inv_" + "0" * 26, "sign_x", "prom_1"),
    *("ID", "ID"),  # of an invocation that there is
]
PARAMETERS: Final = [
    *("delay", "code", "all", "limit", "cursor", "from", "mode", "status", "older_than", "key"),
    *("created_before", "created_after", "journal_from", "journal_limit", "service", "handler"),
]
VALUES: Final = [
    *("", "0", "1", "true", "10s", "-1", "1e9", "9" * 30, "0" * 5000, "0500" + "0" * 5000, "500"),
    *("P1D", "PT1H", "P" + "9" * 18 + "W", "9" * 18 + "d", "2026-01-01", "9999-12-31T23:59:59Z"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "paused", "%ff", "%ED%A0%80"),
    *("Shop", "²", "٣", "NaN", "1d", "0" * 17 + "1ms", "aW52", "\x00", "cancel", "kill"),
]
BODIES: Final = [
    *(b"", b"1", b'"x"', b"null", b"{}", b"[]", b"[1,2", b"\xff\xfe", b'"\\ud800"', b"NaN"),
    *(b"1e999", b"-0.0", b"9" * 400, b"[" * 100_000, b'{"a":' * 5000, b'"\\u0000"', b"1 2"),
    *(b'{"name":"leaf"}', b'{"name":1}', b'{"x":1e400}', b"18446744073709551616", b"[" * 200),
    b"[" * 200 + b"]" * 200,
    b'{"target":"workflow","workflowName":"Visit","workflowKey":"1"}',
    b'{"target":"workflow","workflowName":"Shop","workflowKey":"' + b"k" * 300 + b'"}',
    b'{"target":"invocation","invocationId":"\\u0000"}',
    b'{"target":"idempotentInvocation","service":"Shop","handler":"x","idempotencyKey":""}',
    b'{"target":"idempotentInvocation","service":"Shop","handler":"'
    + b"h" * 600
    + b'","idempotencyKey":"i"}',
    b'{"object_key":"k","new_state":{"a":[49],"b":[123]}}',
    b'{"object_key":"k","new_state":{"":[49]}}',
    b'{"object_key":"k","new_state":{"a":[1000000000000000000000000]}}',
    b'{"object_key":"k","new_state":{"a":[' + b",".join([b"91"] * 2000) + b"]}}",
    b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"' + b"n" * 200 + b'":1}',
]
HEADERS: Final = [
    *((b"content-type", b"application/json"),) * 8,
    (b"content-type", b"application/json; charset=utf-16"),
    (b"content-type", b"APPLICATION/JSON ; x"),
    (b"content-type", b"application/octet-stream"),
    (b"content-type", b"\xff\x00"),
    (b"content-type", b""),
    (b"content-length", b"banana"),
    (b"idempotency-key", b"i1"),
    (b"idempotency-key", b""),
    (b"idempotency-key", b"\xff"),
    (b"idempotency-key", "é".encode() * 200),
    (b"x-y", b"\x00\xff"),
    (b"x-long", b"v" * 70_000),
    (b"origin", b"\xff"),
    (b"origin", b"https://elsewhere.test"),
    (b"access-control-request-method", b"POST"),
    (b"", b""),
]

any_bytes = st.binary(max_size=20)
text_bytes = st.sampled_from(VALUES).map(str.encode) | any_bytes
segment = st.sampled_from(SEGMENTS).map(str.encode) | any_bytes
pair = st.tuples(st.sampled_from(PARAMETERS).map(str.encode) | any_bytes, text_bytes)
any_path = st.lists(segment, max_size=7).map(lambda parts: b"".join(b"/" + each for each in parts))


there_or_not = st.sampled_from([b"Visit", b"Basket"]) | st.just(b"Shop") | segment
THERE: Final = {
    **dict.fromkeys(("{service}", "{workflow}"), there_or_not),
    **dict.fromkeys(("{id}", "{invocation_id}"), st.just(b"ID") | segment),
}


def one_in_ten(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 9)) == 9  # not 0, which is drawn far more often


@st.composite
def requests(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A request, most often on a path of *document*, with anything in the place of its names."""
    operations = [
        (path, method, operation)
        for path, each in document["paths"].items()
        for method, operation in each.items()
    ]
    method, path = draw(st.sampled_from(METHODS)), draw(any_path | st.just(b"*"))
    pairs = draw(st.lists(pair, max_size=1)) if one_in_ten(draw) else []
    if not one_in_ten(draw):
        template, known, operation = draw(st.sampled_from(operations))
        taken = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
        if taken:
            pairs.append((draw(st.sampled_from(taken))["name"].encode(), draw(text_bytes)))
        parts = [
            draw(THERE.get(part, segment)) if part.startswith("{") else part.encode()
            for part in template.split("/")
        ]
        path = b"/".join(parts)
        method = method if one_in_ten(draw) else known.upper()
    return {
        "method": method,
        "path": path,
        "query": b"&".join(b"=".join(each) for each in pairs),
        "headers": draw(
            st.lists(st.sampled_from(HEADERS) | st.tuples(any_bytes, any_bytes), max_size=3)
        ),
        "body": draw(st.sampled_from(BODIES) | st.binary(max_size=100)),
        "raw": draw(st.booleans()),
        "root": draw(st.sampled_from(["", "", "/mounted"])),
    }


class Fuzzed:
    """An app that is asked without a server between."""

    def __init__(self, app: Any, engine: Engine, known_id: str) -> None:
        self._app = app
        self._engine = engine
        self._known_id = known_id

    async def ask(self, request: dict[str, Any]) -> tuple[int, dict[bytes, bytes], bytes]:
        raw = request["path"].replace(b"/ID", b"/" + self._known_id.encode())
        path = request["root"] + unquote(raw.decode("latin-1"))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request["method"],
            "scheme": "http",
            "path": path,
            "root_path": request["root"],
            "query_string": request["query"],
            "headers": request["headers"],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        if request["raw"]:
            scope["raw_path"] = request["root"].encode() + raw
        bodies = [{"type": "http.request", "body": request["body"]}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if bodies:
                return bodies.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async with asyncio.timeout(5):
            await self._app(scope, receive, send)
        assert sent[0]["type"] == "http.response.start"
        assert not sent[-1].get("more_body")
        body = b"".join(each.get("body", b"") for each in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), body

    async def invocations(self) -> int:
        """How many were accepted and are kept."""
        scheduler = scheduler_of(self._engine)
        await until(lambda: scheduler.store.committed == scheduler.store.sealed)
        return scheduler.store.count_committed(Db.INVOCATIONS)


def fuzz(place: Place, name: str, examples: int) -> None:
    """Ask the app of that name at random; what the ingress refuses leaves no invocation."""
    services = [Shop(), Basket(), Visit()]
    is_ingress = name == "ingress"
    document = ingress_document(register(services)) if is_ingress else admin_document()
    with asyncio.Runner() as runner:
        engine = place.engine(*services)
        runner.run(engine.open())
        sent = runner.run(engine.send("Visit.run", Leaf(name="leaf"), key="1"))
        fuzzed = Fuzzed((ingress if is_ingress else admin)(engine), engine, sent.id)

        async def one(request: dict[str, Any]) -> None:
            before = await fuzzed.invocations() if is_ingress else 0
            status, headers, body = await fuzzed.ask(request)
            assert 200 <= status < 500, (status, body)
            if headers.get(b"content-type") == b"application/json":
                msgspec.json.decode(body)
            if status == 405:
                assert headers[b"allow"]
            if status >= 400 and is_ingress:
                assert await fuzzed.invocations() == before, body

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(requests(document))
        def examine(request: dict[str, Any]) -> None:
            runner.run(one(request))

        try:
            examine()
        finally:
            runner.run(engine.close())


@pytest.mark.parametrize("app", ["ingress", "admin"])
def test_any_request_is_answered_and_nothing_is_accepted_when_refused(
    resident_place: Place, app: str
) -> None:
    fuzz(resident_place, app, 600)


@pytest.mark.long
@pytest.mark.parametrize("app", ["ingress", "admin"])
def test_many_requests_are_answered_and_nothing_is_accepted_when_refused(
    resident_place: Place, app: str
) -> None:
    fuzz(resident_place, app, 5_000)
