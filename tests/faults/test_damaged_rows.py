"""Rows with a flipped bit under an engine: they are named with what to do, and others go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
from engine_support import QUICK, run, until_status

from perdure import (
    Engine,
    InvocationFilter,
    Status,
    StoreCorrupt,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._ids import parse_id
from perdure._runtime._layout import key_group

REMEDY = "the checksum does not match; `perdure doctor --deep` tells more, a backup helps"


class Order(Workflow):
    """Runs a step, waits for a promise, then for a while."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs

    async def run(self, ctx: WorkflowContext, value: str) -> str:
        ctx.set("state", value)
        await ctx.run("step", self.step)
        answer = await ctx.promise("answer", str)
        await ctx.sleep(0.05)
        return f"{value} {answer}"

    async def step(self) -> None:
        if self._hangs:
            await asyncio.Event().wait()

    @handler
    async def answer(self, ctx: WorkflowSharedContext, answer: str) -> None:
        await ctx.promise("answer", str).resolve(answer)

    @handler
    async def state(self, ctx: WorkflowSharedContext) -> str:
        return await ctx.get("state", str, "none")


def engine_on(path: Path, **options: Any) -> Engine:
    options = {"durability": "os", "default_retry": QUICK, "max_resident": 0, **options}
    return Engine(path, [Order(hangs="drain_timeout" in options)], **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)


def begin(path: Path, *, ended: bool = False) -> str:
    """An order on the key "damaged"; its id."""

    async def main() -> str:
        async with engine_on(path) as engine:
            handle = await engine.send(Order.run, "bread", key="damaged")
            await until_status(engine, handle, Status.SUSPENDED)
            if ended:
                await engine.call(Order.answer, "yes", key="damaged")
                assert await handle.result() == "bread yes"
            return handle.id

    return run(main())


class Damage:
    """While entered, a bit of each row under *prefix* is flipped; then they are whole again."""

    def __init__(self, path: Path, database: str, prefix: bytes) -> None:
        self._path, self._database, self._prefix = path, database.encode(), prefix

    def __enter__(self) -> str:
        keys = self._flip()
        return f"database '{self._database.decode()}', key {keys[0].hex()}: {REMEDY}"

    def __exit__(self, *_: object) -> None:
        self._flip()

    def _flip(self) -> list[bytes]:
        keys = []
        with (
            lmdb.open(str(self._path), max_dbs=20) as other,
            other.begin(write=True, db=other.open_db(self._database, create=False)) as rows,
        ):
            for key, value in list(rows.cursor()):
                if key.startswith(self._prefix):
                    rows.put(key, bytes([value[0] ^ 0x10]) + value[1:])
                    keys.append(key)
        assert keys
        return keys


async def others_go_on(engine: Engine) -> None:
    handle = await engine.send(Order.run, "milk", key="sound")
    await engine.call(Order.answer, "yes", key="sound")
    assert await handle.result() == "milk yes"
    assert await engine.call(Order.state, key="sound") == "milk"


@pytest.mark.parametrize("key", ["magic", "schema", "file_size"])
def test_a_damaged_row_of_meta_is_refused_when_the_engine_opens(path: Path, key: str) -> None:
    begin(path)

    async def main() -> None:
        with Damage(path, "meta", key.encode()):
            text = f"database 'meta', key {key.encode().hex()}: .*; restore it from a backup"
            with pytest.raises(StoreCorrupt, match=text):
                await engine_on(path).open()
        async with engine_on(path) as engine:
            await others_go_on(engine)

    run(main())


def describe(engine: Engine, invocation_id: str) -> Awaitable[Any]:
    return engine.describe(invocation_id)


def attach(engine: Engine, invocation_id: str) -> Awaitable[Any]:
    return engine.attach(invocation_id)


@pytest.mark.parametrize("ask", [describe, attach])
@pytest.mark.parametrize("database", ["outputs", "invocations"])
def test_a_damaged_value_is_named_with_what_to_do_and_others_go_on(
    path: Path, database: str, ask: Callable[[Engine, str], Awaitable[Any]]
) -> None:
    ended = begin(path, ended=True)

    async def main() -> None:
        with Damage(path, database, parse_id(ended)) as named:
            async with engine_on(path) as engine:
                with pytest.raises(StoreCorrupt) as refusal:
                    await ask(engine, ended)
                assert named in str(refusal.value)
                assert str(path) in str(refusal.value)
                await others_go_on(engine)
        async with engine_on(path) as engine:
            assert await engine.attach(ended) == "bread yes"

    run(main())


def test_a_damaged_journal_pauses_its_invocation_until_it_is_whole_again(path: Path) -> None:
    waits = begin(path)

    async def main() -> None:
        with Damage(path, "journal", parse_id(waits)) as named:
            async with engine_on(path) as engine:
                with pytest.raises(StoreCorrupt) as refusal:
                    await engine.describe(waits)
                assert named in str(refusal.value)
                await engine.call(Order.answer, "yes", key="damaged")
                paused = InvocationFilter(status=Status.PAUSED)
                while not (  # noqa: ASYNC110 - nothing tells of a pause
                    page := await engine.invocations(paused)
                ).items:
                    await asyncio.sleep(0.001)
                assert named in str(page.items[0].last_failure)
                await others_go_on(engine)
        async with engine_on(path) as engine:
            await engine.resume(waits)
            assert await engine.attach(waits) == "bread yes"

    run(main())


def test_what_reads_damaged_state_pauses_with_the_row_and_others_go_on(path: Path) -> None:
    begin(path)
    group = key_group("Order", "damaged")

    async def main() -> None:
        with Damage(path, "state", group) as named:
            async with engine_on(path) as engine:
                reads = await engine.send(Order.state, key="damaged")
                await until_status(engine, reads, Status.PAUSED)
                assert named in str((await engine.describe(reads.id)).last_failure)
                with pytest.raises(StoreCorrupt) as refusal:
                    await engine.state(Order, "damaged")
                assert named in str(refusal.value)
                await others_go_on(engine)
        async with engine_on(path) as engine:
            await engine.resume(reads.id)
            assert await engine.attach(reads.id) == "bread"

    run(main())


def test_what_a_damaged_record_is_told_waits_until_it_is_whole_and_others_go_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = begin(path)

    async def main() -> None:
        with Damage(path, "invocations", parse_id(waits)) as named:
            async with engine_on(path) as engine:
                await engine.call(Order.answer, "yes", key="damaged")
                await others_go_on(engine)
            assert f"{waits} is left alone: " in caplog.text
            assert named in caplog.text
        async with engine_on(path) as engine:
            assert await engine.attach(waits) == "bread yes"

    caplog.set_level(logging.ERROR, logger="perdure")
    run(main())


def test_an_engine_opens_beside_damaged_records_of_what_is_ready_and_what_is_due(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def prepare() -> list[str]:
        async with engine_on(path, drain_timeout=0.0) as engine:
            due = await engine.send(Order.run, "bread", key="due", delay=0.05)
            ready = await engine.send(Order.run, "bread", key="ready")
            return [due.id, ready.id]

    ids = run(prepare())

    async def main() -> None:
        with Damage(path, "invocations", b""):
            await asyncio.sleep(0.05)  # the delay of the first
            async with engine_on(path) as engine:
                await others_go_on(engine)
            for each in ids:
                assert f"{each} is left alone: " in caplog.text
        async with engine_on(path) as engine:
            for each, key in zip(ids, ("due", "ready"), strict=True):
                await engine.call(Order.answer, "yes", key=key)
                assert await engine.attach(each) == "bread yes"

    caplog.set_level(logging.ERROR, logger="perdure")
    run(main())


def test_a_row_damaged_where_a_unit_is_written_stops_the_engine_and_nothing_is_lost(
    path: Path,
) -> None:
    waits = begin(path)

    async def main() -> None:
        with Damage(path, "waiters", b"p") as named:
            engine = engine_on(path)
            await engine.open()
            for _ in range(2):
                with pytest.raises(StoreCorrupt) as refusal:
                    await engine.call(Order.answer, "yes", key="damaged")
                assert named in str(refusal.value)
            assert not engine.is_open
            await engine.close()
        async with engine_on(path) as engine:
            await engine.call(Order.answer, "yes", key="damaged")
            assert await engine.attach(waits) == "bread yes"

    run(main())
