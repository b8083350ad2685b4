"""Restate's client for Python, as it comes: ``restate.create_client``."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import restate
import restate_services as services
from engine_support import Place, run
from http_support import wire
from loopback import served
from restate.client_types import HttpError

from perdure.http import ingress


async def what_the_client_sees(url: str) -> dict[str, Any]:
    """What each of the client's calls gives; the ids aside, the same on perdure and Restate."""
    seen: dict[str, Any] = {}

    async def note(name: str, asked: Awaitable[Any]) -> Any:
        try:
            seen[name] = await asked
        except HttpError as error:
            seen[name] = error.status_code, json.loads(error.body or "null")
        return seen[name]

    async with restate.create_client(url) as client:
        await note("service_call", client.service_call(services.greet, "Bob"))
        await note("no argument", client.service_call(services.noargs, None))
        await note("no result", client.service_call(services.nothing, "x"))
        await note("bytes", client.service_call(services.raw, b"abc"))
        item = {"name": "tea", "price": 1.5, "due": None}
        await note("record", client.service_call(services.price, item))
        await note("terminal error", client.service_call(services.fail, 418))
        await note("object_call", client.object_call(services.add, "k", 5))
        await note("shared", client.object_call(services.total, "k", None))
        for amount in (1, 2):
            called = client.object_call(services.add, "k", amount, idempotency_key="i")
            await note(f"idempotent {amount}", called)
        handed = await client.service_call(services.headers, None, headers={"x-mine": "1"})
        seen["header"] = handed["x-mine"]
        await note("generic_call", client.generic_call("Greeter", "untyped", b"[1]", headers=_JSON))
        await note("nobody", client.generic_call("Nope", "greet", b'"x"', headers=_JSON))

        sent = await client.object_send(services.add, "k", 10, idempotency_key="j")
        again = await client.object_send(services.add, "k", 10, idempotency_key="j")
        seen["sent twice"] = sent.invocation_id == again.invocation_id
        await note("after it", client.object_call(services.add, "k", 1))
        first = await client.workflow_send(services.run, "w", "A")
        second = await client.workflow_send(services.run, "w", "B")
        seen["started twice"] = first.invocation_id == second.invocation_id
        await note("called while it runs", client.workflow_call(services.run, "w", "C"))
        await note("workflow's other", client.workflow_call(services.approve, "w", "yes"))
        await note("completed twice", client.workflow_call(services.approve, "w", "no"))
        await note("workflow_call", _early(client))

        delay = timedelta(seconds=2)
        refused = await note("delay", client.service_send(services.greet, "x", send_delay=delay))
        # What is wrong with it each says with words of its own.
        refused[1]["message"] = refused[1]["message"].partition(":")[0]
    return seen


async def _early(client: restate.RestateClient) -> str:
    await client.workflow_call(services.approve, "early", "yes")
    return await client.workflow_call(services.run, "early", "A")


_JSON = {"Content-Type": "application/json"}


def test_the_client_works_as_it_comes(resident_place: Place) -> None:
    async def main() -> dict[str, Any]:
        async with wire(resident_place) as on, served(ingress(on.engine)) as url:
            return await what_the_client_sees(url)

    invoked = {"source": "invocation"}
    assert run(main()) == {
        "service_call": "hi Bob",
        "no argument": "noargs",
        "no result": None,
        "bytes": b"cba",
        "record": {"name": "tea", "price": 3.0, "due": None},
        "terminal error": (
            418,
            {"code": 418, "message": "my msg", "metadata": {"k": "v"}, **invoked},
        ),
        "object_call": 5,
        "shared": 5,
        "idempotent 1": 6,
        "idempotent 2": 6,
        "header": "1",
        "generic_call": b"[1]",
        "nobody": (
            404,
            {
                "code": 404,
                "message": "service 'Nope' not found, make sure to register the service before "
                "calling it.",
                "source": "ingress",
            },
        ),
        "sent twice": True,
        "after it": 17,
        "started twice": True,
        "called while it runs": (
            409,
            {"code": 409, "message": "the workflow method was already invoked", **invoked},
        ),
        "workflow's other": "resolved",
        "completed twice": (
            409,
            {"code": 409, "message": "promise was already completed", **invoked},
        ),
        "workflow_call": "A:yes",
        # It sends a number without a unit, which Restate refuses as well.
        "delay": (
            400,
            {
                "code": 400,
                "message": "bad delay query parameter, must be a ISO8601 duration",
                "source": "ingress",
            },
        ),
    }
