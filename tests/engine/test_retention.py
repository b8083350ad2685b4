"""What has completed stays for as long as is declared, and goes whole."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    rows_left,
    run,
    until_idle,
    until_status,
)

from perdure import (
    Accepted,
    AlreadyCompleted,
    Context,
    NotFound,
    Pending,
    RetryPolicy,
    Service,
    Status,
    TerminalError,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MOMENT = timedelta(milliseconds=1)

KILLED = RetryPolicy(max_attempts=1, on_exhausted="kill")


class Loan(Workflow, abstract=True):
    """Leaves state and a promise, and ends as its argument says."""

    async def run(self, ctx: WorkflowContext, how: str) -> str:
        ctx.set("how", how)
        await ctx.promise("decided").resolve(how)
        await ctx.run("step", lambda: None)
        if how == "waits":
            return await ctx.promise("go", str)
        if how == "fails":
            raise TerminalError("no money", 402)
        if how == "is killed":
            raise ValueError("again and again")
        return how

    @handler
    async def how(self, ctx: WorkflowSharedContext) -> str | None:
        return await ctx.get("how", str)

    @handler
    async def peek(self, ctx: WorkflowSharedContext, name: str) -> bool:
        return await ctx.promise(name, str).peek() is not Pending

    @handler
    async def resolve(self, ctx: WorkflowSharedContext, name: str) -> None:
        await ctx.promise(name, str).resolve("resolved")

    @handler
    async def waits_for(self, ctx: WorkflowSharedContext, name: str) -> str:
        try:
            return await ctx.promise(name, str)
        except NotFound as purged:
            return f"{purged.code}: {purged}"


class ByDefault(Loan, retry=KILLED):
    pass


class ByClass(Loan, retention=2 * HOUR, retry=KILLED):
    pass


class ByHandler(Loan, retention=2 * HOUR, retry=KILLED):
    @handler(retention=HOUR)
    async def run(self, ctx: WorkflowContext, how: str) -> str:
        return await super().run(ctx, how)


class NotAtAll(Loan, retention=0, retry=KILLED):
    pass


RETENTION = {ByDefault: DAY, ByClass: 2 * HOUR, ByHandler: HOUR}


@pytest.mark.parametrize("how", ["returns", "fails", "is killed"])
@pytest.mark.parametrize("loan", RETENTION)
def test_all_that_a_workflow_leaves_goes_when_its_retention_is_over(
    place: Place, loan: type[Loan], how: str
) -> None:
    quiet_log()
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(loan(), clock=clock) as engine:
            handle = await engine.send(loan.run, how, key="k")
            await until_status(engine, handle, Status.COMPLETED)
            clock.advance(RETENTION[loan] - MOMENT)
            await until_idle(engine)
            assert (await engine.send(loan.run, "again", key="k")).accepted is Accepted.EXISTING
            assert await engine.call(loan.how, key="k") == how
            assert await engine.call(loan.peek, "decided", key="k")
            assert (await engine.describe(handle.id)).journal_kept
            clock.advance(MOMENT)
            await until_idle(engine)
            for ask in (engine.output, engine.attach, engine.describe, engine.resume):
                with pytest.raises(NotFound, match=f"no invocation {handle.id}"):
                    await ask(handle.id)
            assert await engine.call(loan.how, key="k") is None
            assert not await engine.call(loan.peek, "decided", key="k")

    run(main())
    assert rows_left(place.path) == {}


def test_a_completed_run_is_one_row_of_each_kind_but_of_the_journal(place: Place) -> None:
    async def main() -> None:
        async with place.engine(ByDefault()) as engine:
            await engine.submit(ByDefault.run, "returns", key="k")

    run(main())
    assert rows_left(place.path) == {
        **dict.fromkeys(("INVOCATIONS", "OUTPUTS", "TARGETS", "STATE", "PROMISES", "EXPIRY"), 1),
        "JOURNAL": 2,
    }


def test_a_key_runs_again_once_its_retention_is_over(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(ByDefault(), clock=clock) as engine:
            first = await engine.send(ByDefault.run, "first", key="k")
            await first.result()
            clock.advance(DAY)
            await until_idle(engine)
            second = await engine.send(ByDefault.run, "second", key="k")
            assert second.accepted is Accepted.NEW
            assert second.id != first.id
            assert await second.result() == "second"
            assert await engine.call(ByDefault.how, key="k") == "second"

    run(main())


def test_what_goes_leaves_other_keys_alone(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(ByDefault(), ByClass(), clock=clock) as engine:
            await engine.submit(ByClass.run, "x", key="k")
            await engine.submit(ByDefault.run, "stays", key="k")
            for key in ("", "j", "kk", "l"):
                await engine.submit(ByDefault.run, f"stays {key}", key=key)
            clock.advance(2 * HOUR)
            await until_idle(engine)
            assert await engine.call(ByClass.how, key="k") is None
            assert await engine.call(ByDefault.how, key="k") == "stays"
            for key in ("", "j", "kk", "l"):
                assert await engine.submit(ByDefault.run, "x", key=key) == f"stays {key}"
                assert await engine.call(ByDefault.peek, "decided", key=key)

    run(main())


def test_what_expired_while_no_engine_was_there_goes_once_one_is(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(ByDefault(), clock=clock) as engine:
            for number in range(200):  # more than a turn removes
                await engine.send(ByDefault.run, "x", key=str(number))
            await until_idle(engine)
        clock.advance(7 * DAY)
        async with place.engine(ByDefault(), clock=clock) as engine:
            await until_idle(engine)

    run(main())
    assert rows_left(place.path) == {}


def test_an_expiry_is_seen_to_by_an_engine_without_the_service(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(ByDefault(), clock=clock) as engine:
            await engine.submit(ByDefault.run, "x", key="k")
        clock.advance(DAY)
        async with place.engine(clock=clock) as engine:
            await until_idle(engine)

    run(main())
    assert rows_left(place.path) == {}


class Mail(Service):
    """Sends, with results and journals kept for as long as each handler says."""

    @handler
    async def plain(self, ctx: Context) -> str:
        await ctx.run("step", lambda: None)
        return "sent"

    @handler(journal_retention=HOUR / 2)
    async def short(self, ctx: Context) -> str:
        return await self.plain(ctx)

    @handler(journal_retention=2 * HOUR)
    async def long(self, ctx: Context) -> str:
        return await self.plain(ctx)


@pytest.mark.parametrize(
    ("name", "journal", "output"),
    [
        ("plain", timedelta(0), HOUR),
        ("short", HOUR / 2, HOUR),
        ("long", 2 * HOUR, 2 * HOUR),  # a journal goes with its record
    ],
)
def test_the_result_of_a_send_stays_for_an_hour_and_its_journal_as_declared(
    place: Place, name: str, journal: timedelta, output: timedelta
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Mail(), clock=clock) as engine:
            handle = await engine.send(f"Mail.{name}")
            assert await handle.result() == "sent"
            if journal:
                clock.advance(journal - MOMENT)
                await until_idle(engine)
                assert (await engine.describe(handle.id)).journal_kept
                clock.advance(MOMENT)
                await until_idle(engine)
            if journal < output:
                description = await engine.describe(handle.id)
                assert not description.journal_kept
                assert description.timeline() == "(journal not kept)"
                clock.advance(output - journal - MOMENT)
                await until_idle(engine)
                assert await handle.output() == "sent"
                clock.advance(MOMENT)
                await until_idle(engine)
            with pytest.raises(NotFound):
                await handle.output()

    run(main())
    assert rows_left(place.path) == {}


def test_the_journal_of_a_called_handler_stays_with_its_result_as_declared(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Mail(), clock=clock) as engine:
            assert await engine.call(Mail.short) == "sent"
        assert rows_left(place.path)["JOURNAL"] == 2
        async with place.engine(Mail(), clock=clock) as engine:
            clock.advance(HOUR / 2)
            await until_idle(engine)

    run(main())
    assert rows_left(place.path) == {}


@pytest.mark.parametrize("declared", [HOUR, 3 * HOUR], ids=["shorter", "longer"])
def test_the_journal_of_a_run_stays_as_declared_and_never_longer_than_its_key(
    place: Place, declared: timedelta
) -> None:
    class Both(Loan, retention=2 * HOUR, journal_retention=declared):
        pass

    clock = ManualClock()

    async def main() -> None:
        async with place.engine(Both(), clock=clock) as engine:
            handle = await engine.send(Both.run, "x", key="k")
            await handle.result()
            clock.advance(HOUR)
            await until_idle(engine)
            assert (await engine.describe(handle.id)).journal_kept == (declared > HOUR)
            assert await handle.output() == "x"
            assert await engine.call(Both.how, key="k") == "x"
            clock.advance(HOUR)
            await until_idle(engine)
            assert (await engine.send(Both.run, "y", key="k")).accepted is Accepted.NEW
            with pytest.raises(NotFound):
                await engine.describe(handle.id)

    run(main())


# -- no retention -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["returns", "fails", "is killed"])
def test_without_retention_all_goes_at_completion_and_who_waits_has_the_answer(
    place: Place, how: str
) -> None:
    quiet_log()

    async def answer(waiting: Any) -> str:
        try:
            return str(await waiting)
        except TerminalError as failure:
            return str(failure)

    async def main() -> None:
        async with place.engine(NotAtAll()) as engine:
            handle = await engine.send(NotAtAll.run, how, key="k")
            answers = await asyncio.gather(
                answer(handle.result()),
                answer(engine.attach(handle.id)),
                answer(engine.submit(NotAtAll.run, how, key="k")),
            )
            assert len(set(answers)) == 1
            with pytest.raises(NotFound):
                await handle.output()
            assert await engine.call(NotAtAll.how, key="k") is None
            assert not await engine.call(NotAtAll.peek, "decided", key="k")
            again = await engine.send(NotAtAll.run, how, key="k")
            assert again.accepted is Accepted.NEW
            await answer(again.result())

    run(main())
    assert rows_left(place.path) == {}


def test_without_retention_a_run_of_one_activation_leaves_nothing_either(place: Place) -> None:
    class Short(Workflow, retention=0):
        async def run(self, ctx: WorkflowContext) -> str:
            ctx.set("state", 1)
            await ctx.promise("of its own", str).resolve("x")
            early = await ctx.promise("early", str).peek()
            return "pending" if early is Pending else early

        @handler
        async def resolve(self, ctx: WorkflowSharedContext) -> None:
            await ctx.promise("early", str).resolve("early")

    async def main() -> None:
        async with place.engine(Short()) as engine:
            await engine.call(Short.resolve, key="k")
            assert await engine.call(Short.run, key="k") == "early"
            await engine.call(Short.resolve, key="k")  # the promise is a new one

    run(main())
    assert set(rows_left(place.path)) == {"PROMISES", "WAITERS", "EXPIRY"}


# -- promises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loan", [ByDefault, NotAtAll])
@pytest.mark.parametrize("begins", ["before the run", "after it", "as it ends"])
def test_who_waits_for_a_promise_of_a_key_that_goes_is_failed(
    place: Place, loan: type[Loan], begins: str
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(loan(), clock=clock) as engine:

            async def wait() -> str:
                waiting = await engine.send(loan.waits_for, "never", key="k")
                return await waiting.result()

            waiting = asyncio.create_task(wait()) if begins == "before the run" else None
            await until_idle(engine)
            handle = await engine.send(loan.run, "waits", key="k")
            await until_idle(engine)
            waiting = waiting or asyncio.create_task(wait())
            if begins == "after it":
                await until_idle(engine)
            await engine.call(loan.resolve, "go", key="k")
            clock.advance(DAY)
            await until_idle(engine)
            with pytest.raises(NotFound):
                await engine.describe(handle.id)
            assert await waiting == (
                f"404: key 'k' of workflow {loan.__name__} was purged while this waited for its "
                "promise 'never'"
            )

    run(main())


def test_promises_of_a_key_that_never_ran_go_after_the_retention(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(ByClass(), clock=clock) as engine:
            await engine.call(ByClass.resolve, "first", key="k")
            clock.advance(HOUR)
            await engine.call(ByClass.resolve, "second", key="k")
            with pytest.raises(AlreadyCompleted):
                await engine.call(ByClass.resolve, "first", key="k")
            waiting = await engine.send(ByClass.waits_for, "third", key="k")
            clock.advance(HOUR - MOMENT)
            await until_idle(engine)
            assert await engine.call(ByClass.peek, "first", key="k")
            clock.advance(MOMENT)  # from the first completion
            await until_idle(engine)
            assert not await engine.call(ByClass.peek, "first", key="k")
            assert not await engine.call(ByClass.peek, "second", key="k")
            assert "was purged" in await waiting.result()
            clock.advance(HOUR)

    run(main())
    assert set(rows_left(place.path)) == {"OUTPUTS", "INVOCATIONS", "EXPIRY"}  # of the send


@pytest.mark.parametrize("loan", [ByClass, NotAtAll])
def test_promises_of_a_key_that_ran_later_go_with_the_run(place: Place, loan: type[Loan]) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(loan(), clock=clock) as engine:
            await engine.call(loan.resolve, "early", key="k")
            clock.advance(HOUR)
            handle = await engine.send(loan.run, "waits", key="k")
            clock.advance(10 * DAY)
            await until_idle(engine)
            assert await engine.call(loan.peek, "early", key="k")
            await engine.call(loan.resolve, "go", key="k")
            await until_idle(engine)
            assert await engine.call(loan.peek, "early", key="k") == (loan is ByClass)
            clock.advance(2 * HOUR)
            await until_idle(engine)
            assert not await engine.call(loan.peek, "early", key="k")
            with pytest.raises(NotFound):
                await handle.output()

    run(main())
    assert rows_left(place.path) == {}


def test_an_expiry_of_promises_that_went_with_a_run_does_not_touch_later_ones(
    place: Place,
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(NotAtAll(), clock=clock) as engine:
            await engine.call(NotAtAll.resolve, "early", key="k")
            clock.advance(HOUR)
            await engine.submit(NotAtAll.run, "x", key="k")
            await engine.call(NotAtAll.resolve, "early", key="k")
            clock.advance(DAY - HOUR)
            await until_idle(engine)
            assert await engine.call(NotAtAll.peek, "early", key="k")
            clock.advance(HOUR)
            await until_idle(engine)
            assert not await engine.call(NotAtAll.peek, "early", key="k")

    run(main())
    assert rows_left(place.path) == {}


def test_waiting_alone_makes_no_expiry(place: Place) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with place.engine(ByDefault(), clock=clock) as engine:
            waiting = await engine.send(ByDefault.waits_for, "event", key="k")
            clock.advance(30 * DAY)
            await until_idle(engine)
            await engine.call(ByDefault.resolve, "event", key="k")
            assert await waiting.result() == "resolved"

    run(main())
