"""What type checkers make of the verbs of a client: the same as of those of an engine.

Nothing runs this module: mypy and pyright check it, and that what is ignored here is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_type

import perdure
from perdure import (
    CheckReport,
    Client,
    Description,
    InvocationFilter,
    InvocationHandle,
    InvocationPage,
    InvocationSummary,
    PromiseInfo,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


@dataclass
class Document:
    title: str


@dataclass
class Result:
    status: str


class Approval(Workflow):
    decision = perdure.promise(Result)
    moment = perdure.signal(datetime)

    async def run(self, ctx: WorkflowContext, doc: Document) -> Result:
        raise NotImplementedError

    @handler
    async def status(self, ctx: WorkflowSharedContext) -> str:
        raise NotImplementedError


async def connect_gives_a_client() -> None:
    async with perdure.connect("http://127.0.0.1:8080", admin_url="http://127.0.0.1:9070") as it:
        assert_type(it, Client)
    perdure.connect()  # type: ignore[call-arg]
    perdure.connect("http://127.0.0.1:8080", "http://127.0.0.1:9070")  # type: ignore[call-arg]


async def invoking_has_the_types_of_the_handler(client: Client) -> None:
    assert_type(await client.call(Approval.status, key="k"), str)
    assert_type(await client.call("Approval.status", key="k", returns=str), Any)
    assert_type(await client.submit(Approval.run, Document("a"), key="k"), Result)
    handle = await client.send(Approval.run, Document("a"), key="k", delay=1)
    assert_type(handle, InvocationHandle[Result])
    assert_type(await handle.result(), Result)
    assert_type(await handle.output(), Result)
    assert_type(await handle.cancel(), bool)


async def what_does_not_fit_is_an_error(client: Client) -> None:
    await client.call(Approval.run, "a", key="k")  # type: ignore[arg-type]
    await client.send(Approval.run, key="k")  # type: ignore[arg-type]
    await client.submit(Approval.run, None, key="k")  # type: ignore[misc]
    await client.call(Approval.missing, key="k")  # type: ignore[attr-defined]
    await client.resolve(Approval.decision, "a", key="k")  # type: ignore[misc]
    await client.resolve(Approval.decision, Result("a"))  # type: ignore[call-overload]
    await client.signal("inv", Approval.moment, "now")  # type: ignore[misc]
    await client.cancel(7)  # type: ignore[call-overload]


async def completing_takes_what_is_declared(client: Client) -> None:
    await client.resolve(Approval.decision, Result("a"), key="k")
    await client.resolve("Approval.decision", {"status": "a"}, key="k")
    await client.reject(Approval.decision, "no", key="k", code=451)


async def operating_gives_what_it_did(client: Client) -> None:
    assert_type(await client.cancel("inv"), bool)
    assert_type(await client.cancel(InvocationFilter()), int)
    assert_type(await client.purge(InvocationFilter()), int)
    assert_type(await client.restart("inv"), InvocationHandle[Any])
    assert_type(await client.restart(InvocationFilter()), int)


async def inspecting_gives_records(client: Client) -> None:
    assert_type(await client.describe("inv"), Description)
    assert_type(await client.invocations(), InvocationPage)
    assert_type(client.all_invocations(), AsyncIterator[InvocationSummary])
    assert_type(await client.promises(Approval, "k"), list[PromiseInfo])
    assert_type(await client.state("Approval", "k"), dict[str, Any])
    assert_type(await client.check(), CheckReport)
    assert_type(await client.query("select 1"), perdure.QueryResult)
