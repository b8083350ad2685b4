"""A disk too slow for the load: memory stays bounded, new calls wait, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_support import Place, run, scheduler_of, until, until_idle, until_status
from stalled_disk import StalledDisk

from perdure import (
    Accepted,
    Conflict,
    Engine,
    NotFound,
    Status,
    StoreClosed,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure import _reading as reading_module
from perdure._ids import format_id
from perdure._runtime._scheduler import Scheduler
from perdure._store import Db, _store

MIB = 1 << 20


class Keep(Workflow):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.steps: list[str] = []

    async def run(self, ctx: WorkflowContext, value: bytes) -> int:
        self.begun.append(ctx.key)
        ctx.set("value", value)
        await ctx.run("step", self.steps.append, ctx.key)
        return len(value)

    @handler
    async def size(self, ctx: WorkflowSharedContext) -> int:
        return len(await ctx.get("value", bytes, b""))


async def settle() -> None:
    """Let the loop turn until whatever can go on has."""
    for _ in range(50):
        await asyncio.sleep(0)


async def congest(engine: Engine, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """On a stalled disk: have too much, or something too old, uncommitted."""
    if how == "age":
        monkeypatch.setattr(_store, "UNCOMMITTED_NS_MAX", 1)
    else:
        monkeypatch.setattr(_store, "UNCOMMITTED_BYTES_MAX", 1)


@pytest.mark.parametrize("how", ["age", "bytes"])
def test_new_calls_wait_and_no_activation_starts_until_a_commit_lands(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def main() -> None:
        service = Keep()
        async with resident_place.engine(service) as engine:
            store = scheduler_of(engine).store
            with StalledDisk(resident_place.path):
                first = asyncio.create_task(engine.send(Keep.run, b"x", key="first"))
                await until(lambda: service.begun == ["first"])
                await congest(engine, monkeypatch, how)
                assert store.congested()
                sealed = store.sealed
                later = [
                    asyncio.create_task(engine.send(Keep.run, b"x", key=str(number)))
                    for number in range(100)
                ]
                called = asyncio.create_task(engine.call(Keep.size, key="first"))
                await settle()
                assert service.begun == ["first"]
                assert store.sealed == sealed
                assert service.steps == []
                assert not any(task.done() for task in [first, called, *later])
                assert len(scheduler_of(engine).residents.by_id) == 1  # they are not even queued
            monkeypatch.undo()
            handles = await asyncio.gather(first, *later)
            assert await called == 1
            assert [await handle.result() for handle in handles] == [1] * 101

    run(main())


def test_of_calls_that_came_at_once_only_a_few_begin_before_a_commit_lands(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        service = Keep()
        async with resident_place.engine(service) as engine:
            with StalledDisk(resident_place.path):
                await congest(engine, monkeypatch, "bytes")
                # In one turn of the loop: when they asked for room, there was some.
                sending = [
                    asyncio.create_task(engine.send(Keep.run, b"x", key=str(number)))
                    for number in range(200)
                ]
                await settle()
                assert 0 < len(service.begun) <= 16
            monkeypatch.undo()
            handles = await asyncio.gather(*sending)
            assert [await handle.result() for handle in handles] == [1] * 200

    run(main())


def test_memory_is_bounded_by_what_may_be_uncommitted(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "UNCOMMITTED_BYTES_MAX", 4 * MIB)
    monkeypatch.setattr(_store, "UNCOMMITTED_NS_MAX", 1 << 62)

    async def main() -> None:
        service = Keep()
        value = bytes(MIB)
        async with resident_place.engine(service) as engine:
            store = scheduler_of(engine).store
            with StalledDisk(resident_place.path):
                sending = []
                for number in range(40):
                    sending.append(
                        asyncio.create_task(engine.send(Keep.run, value, key=str(number)))
                    )
                    await asyncio.sleep(0)
                await settle()
                # What one slice of the pump adds (16 activations) may come on top.
                assert store.uncommitted_bytes < 4 * MIB + 16 * 2.5 * MIB
                assert len(service.begun) < 20
            handles = await asyncio.gather(*sending)
            assert [await handle.result() for handle in handles] == [MIB] * 40

    run(main())


def test_no_answer_leaves_before_its_commit(resident_place: Place) -> None:
    async def main() -> None:
        service = Keep()
        async with resident_place.engine(service) as engine:
            await engine.submit(Keep.run, b"abc", key="k")
            handle = await engine.send(Keep.run, b"", key="k")
            await until_idle(engine)
            with StalledDisk(resident_place.path) as disk:
                asyncio.create_task(engine.send(Keep.run, b"", key="other"))  # noqa: RUF006
                await until(lambda: len(service.begun) == 2)
                asked: list[asyncio.Task[Any]] = [
                    asyncio.create_task(engine.call(Keep.size, key="k")),
                    asyncio.create_task(handle.output()),
                    asyncio.create_task(handle.result()),
                    asyncio.create_task(engine.describe(handle.id)),
                    asyncio.create_task(engine.resume(handle.id)),
                    asyncio.create_task(engine.send(Keep.run, b"", key="k")),
                ]
                refused = asyncio.create_task(engine.call(Keep.run, b"", key="k"))
                await settle()
                assert not any(task.done() for task in [*asked, refused])
                disk.release()
                answers = await asyncio.gather(*asked)
                assert answers[:3] == [3, 3, 3]
                with pytest.raises(Conflict):
                    await refused

    run(main())


def test_no_refusal_leaves_before_its_commit(resident_place: Place) -> None:
    unknown = format_id(bytes(16))

    async def main() -> None:
        async with resident_place.engine(Keep()) as engine:
            with StalledDisk(resident_place.path) as disk:
                begun = asyncio.create_task(engine.send(Keep.run, b"", key="k"))
                await settle()
                asked: list[asyncio.Task[Any]] = [
                    asyncio.create_task(engine.output(unknown, int)),
                    asyncio.create_task(engine.attach(unknown, int)),
                    asyncio.create_task(engine.describe(unknown)),
                    asyncio.create_task(engine.resume(unknown)),
                ]
                await settle()
                answered = [task for task in asked if task.done()]
                disk.release()
                assert not answered
                for refused in asked:
                    with pytest.raises(NotFound):
                        await refused
                await begun

    run(main())


def test_a_description_waits_for_the_commit_of_what_it_shows(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = StalledDisk(resident_place.path)

    async def describe(scheduler: Scheduler, **asked: Any) -> Any:
        disk.__enter__()
        scheduler.store.put(Db.STATE, b"\0\x01S\0\x01k", b"name", b"\x01")
        scheduler.store.seal()
        return "described"

    monkeypatch.setattr(reading_module, "describe_invocation", describe)

    async def main() -> None:
        async with resident_place.engine(Keep()) as engine:
            asked = asyncio.create_task(engine.describe(format_id(bytes(16))))
            await settle()
            was_answered = asked.done()
            disk.release()
            assert not was_answered
            answer: Any = await asked
            assert answer == "described"

    run(main())


def test_a_second_send_of_run_is_not_acknowledged_before_the_first_is_durable(
    resident_place: Place,
) -> None:
    async def main() -> None:
        service = Keep()
        async with resident_place.engine(service) as engine:
            with StalledDisk(resident_place.path) as disk:
                # Before the first has been written at all: the loop has not turned.
                tasks = [asyncio.create_task(engine.send(Keep.run, b"", key="k")) for _ in "ab"]
                refused = asyncio.create_task(engine.call(Keep.run, b"", key="k"))
                await settle()
                assert not any(task.done() for task in [*tasks, refused])
                disk.release()
                first, second = await asyncio.gather(*tasks)
                assert (first.accepted, second.accepted) == (Accepted.NEW, Accepted.EXISTING)
                assert first.id == second.id
                with pytest.raises(Conflict):
                    await refused
            await until_status(engine, first, Status.COMPLETED)

    run(main())


def test_a_step_does_not_start_before_its_command_is_durable(resident_place: Place) -> None:
    async def main() -> None:
        service = Keep()
        async with resident_place.engine(service) as engine:
            with StalledDisk(resident_place.path):
                sending = asyncio.create_task(engine.send(Keep.run, b"", key="k"))
                await until(lambda: service.begun == ["k"])
                await settle()
                assert service.steps == []
            await (await sending).result()
            assert service.steps == ["k"]

    run(main())


def test_calls_that_wait_for_room_are_told_when_the_engine_closes(
    resident_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        service = Keep()
        disk = StalledDisk(resident_place.path)
        async with resident_place.engine(service) as engine:
            disk.__enter__()
            first = asyncio.create_task(engine.send(Keep.run, b"", key="first"))
            await until(lambda: service.begun == ["first"])
            await congest(engine, monkeypatch, "bytes")
            waits = asyncio.create_task(engine.send(Keep.run, b"", key="waits"))
            await settle()
            closing = asyncio.create_task(engine.close())
            await settle()
            disk.release()
            await closing
        assert (await first).accepted is Accepted.NEW
        with pytest.raises(StoreClosed):
            await waits

    run(main())
