"""``Engine(check_at_open=…)``: the code is checked against the journals before anything else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_status

from perdure import (
    CheckFailed,
    DataDirectoryInUse,
    Engine,
    PerdureError,
    Status,
    StoreClosed,
    Verdict,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure._runtime import _check
from perdure._store import Db, Store, _directory

STEPS: list[str] = []


def work(name: str) -> str:
    STEPS.append(name)
    return name


class Deal(Workflow):
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.run("charge", work, "charge")
        word = await ctx.promise("closed", str)
        await ctx.run("thank", work, "thank")
        return word

    @handler
    async def close(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("closed", str).resolve(word)


class Changed(Deal, name="Deal"):
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.run("bill", work, "bill")
        return "changed"


def begin(place: Place) -> str:
    """A deal that waits, and has a word that it was told while it was not there."""
    STEPS.clear()

    async def main() -> str:
        async with place.engine(Deal()) as engine:
            handle = await engine.send(Deal.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        other = type("Deal", (Deal,), {}, version=2)
        async with place.engine(other()) as engine:
            await engine.call("Deal.close", "done", key="k")
        return handle.id

    invocation_id = run(main())
    STEPS.clear()
    return invocation_id


def rows(place: Place) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that the closed directory holds, but for what says how it was opened and closed."""
    store = Store(place.path, durability="os")
    try:
        return {db.name: store.scan(db, b"") for db in Db if db is not Db.META}
    finally:
        store.close()


def finish(place: Place, invocation_id: str, **options: Any) -> None:
    """Code that fits goes on with it."""

    async def main() -> None:
        async with place.engine(Deal(), **options) as engine:
            assert await engine.attach(invocation_id) == "done"
        assert STEPS == ["thank"]

    run(main())


def test_refuse_raises_what_diverges_and_leaves_the_directory_as_it_was(place: Place) -> None:
    invocation_id = begin(place)
    before = rows(place)

    async def main() -> None:
        engine = place.engine(Changed(), check_at_open="refuse")
        for _ in range(2):  # refused, it can be tried again, and holds nothing
            with pytest.raises(CheckFailed) as refused:
                await engine.open()
            report = refused.value.report
            assert [problem.id for problem in report.problems] == [invocation_id]
            assert report.counts[Verdict.DIVERGES] == 1
            assert str(refused.value) == str(report)
            assert f"{invocation_id} (Deal.run, version 1, key 'k') diverges at entry 1" in str(
                refused.value
            )
            assert isinstance(refused.value, PerdureError)
        with pytest.raises(StoreClosed, match="the engine is not open"):
            await engine.describe(invocation_id)
        await engine.close()

    run(main())
    assert rows(place) == before
    assert STEPS == []
    finish(place, invocation_id, check_at_open="refuse")


def test_a_refusal_closes_the_directory_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place)

    async def main() -> None:
        with pytest.raises(CheckFailed):
            await place.engine(Changed(), check_at_open="refuse").open()

    run(main())
    monkeypatch.setattr(_directory, "read_boot_id", lambda: "of the next boot")
    store = Store(place.path, durability="os")
    store.close()
    assert store.warnings == []


def test_refuse_refuses_what_fails_too(place: Place) -> None:
    class Fails(Deal, name="Deal"):
        async def run(self, ctx: WorkflowContext) -> str:
            raise ValueError("no longer possible")

    invocation_id = begin(place)

    async def main() -> None:
        with pytest.raises(CheckFailed, match="fails: ValueError: no longer possible"):
            await place.engine(Fails(), check_at_open="refuse").open()

    run(main())
    finish(place, invocation_id)


def test_warn_logs_what_diverges_and_opens(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    invocation_id = begin(place)

    async def main() -> None:
        async with place.engine(Changed(), check_at_open="warn") as engine:
            await until_status(engine, invocation_id, Status.PAUSED)

    with caplog.at_level(logging.WARNING, "perdure"):
        run(main())
    first = caplog.records[0]
    assert first.levelno == logging.WARNING
    assert first.getMessage().startswith(
        "the code does not fit all journals: 1 unfinished invocations: 1 diverges\n"
    )
    assert "code:    step 'bill'" in first.getMessage()


@pytest.mark.parametrize("how", ["refuse", "warn"])
def test_nothing_is_said_of_code_that_fits(
    place: Place, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    invocation_id = begin(place)
    with caplog.at_level(logging.WARNING, "perdure"):
        finish(place, invocation_id, check_at_open=how)
    assert [record for record in caplog.records if record.name == "perdure"] == []


def test_what_is_not_covered_is_not_refused(place: Place) -> None:
    class Other(Workflow):
        async def run(self, ctx: WorkflowContext) -> str:
            return "other"

    quiet_log()
    invocation_id = begin(place)

    async def main() -> None:
        async with place.engine(Other(), check_at_open="refuse") as engine:
            assert await engine.submit(Other.run, key="k") == "other"

    run(main())
    finish(place, invocation_id)


def test_a_new_directory_opens(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Deal(), check_at_open="refuse") as engine:
            await engine.send(Deal.run, key="k")

    run(main())


def test_nothing_is_accepted_and_nothing_runs_before_the_check_has_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation_id = begin(place)
    monkeypatch.setattr(_check, "_SLICE_S", 0.0)

    async def main() -> None:
        engine = place.engine(Deal(), check_at_open="refuse")
        opening = asyncio.create_task(engine.open())
        turns = 0
        while not opening.done():
            await asyncio.sleep(0)
            if opening.done():
                break
            turns += 1
            assert STEPS == []
            with pytest.raises(StoreClosed, match="the engine is not open"):
                await engine.send(Deal.run, key="other")
            with pytest.raises(StoreClosed, match="opened before"):
                await engine.open()
            with pytest.raises(DataDirectoryInUse):
                await place.engine(Deal()).open()
        assert turns > 1
        await opening
        assert await engine.attach(invocation_id) == "done"
        with pytest.raises(StoreClosed, match="opened before"):
            await engine.open()
        await engine.close()

    run(main())


def test_a_check_at_open_that_is_cancelled_lets_go_of_the_directory(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation_id = begin(place)
    monkeypatch.setattr(_check, "_SLICE_S", 0.0)

    async def main() -> None:
        opening = asyncio.create_task(place.engine(Deal(), check_at_open="refuse").open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    run(main())
    finish(place, invocation_id)


@pytest.mark.parametrize("value", ["yes", "", True, False, 1])
def test_another_value_is_refused(resident_place: Place, value: Any) -> None:
    text = f"check_at_open must be 'refuse', 'warn' or None, not {value!r}"
    with pytest.raises(ValueError, match=text):
        Engine(resident_place.path, [Deal()], check_at_open=value)
