"""Cancellation, failures and retries mean the same whoever drives the handler."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from engine_support import until
from scripted import Plain, Script, Thing, named
from worlds import World

import perdure
from perdure import (
    Cancelled,
    Context,
    NotFound,
    ObjectContext,
    RetryableError,
    TerminalError,
    WorkflowContext,
)


async def _value(value: Any) -> Any:
    return value


class Seen(list[str]):
    """What steps have told."""

    async def tell(self, what: str) -> str:
        self.append(what)
        return what

    async def until(self, what: str) -> None:
        await until(lambda: what in self, what)


def cancelled(world: World, body: Any, seen: Seen, when: str, times: int = 1) -> Any:
    """What *body* ends with, cancelled once *seen* has *when*: its result, or the failure."""

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await seen.until(when)
        await asyncio.sleep(0.02)
        for _ in range(times):
            await verbs.cancel(begun.id)
        try:
            return await begun.result()
        except TerminalError as failure:
            return [type(failure).__name__, failure.code]

    return world.play(story)


# -- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["timer", "sleep", "promise", "awakeable", "signal", "call"])
def test_whatever_a_handler_waits_for_a_cancellation_ends_it(world: World, wait: str) -> None:
    seen = Seen()

    async def other(ctx: ObjectContext) -> Any:
        await ctx.sleep(20)

    named_other = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "begun")
        if wait == "timer":
            await ctx.after(20)
        elif wait == "sleep":
            await asyncio.sleep(20)
        elif wait == "promise":
            await ctx.promise("never")
        elif wait == "awakeable":
            await ctx.awakeable()
        elif wait == "signal":
            await ctx.signal("never")
        else:
            await ctx.call(Thing.act, named_other, key=ctx.key)

    assert cancelled(world, body, seen, "begun") == ["Cancelled", 409]


def test_a_cancelled_handler_compensates_durably_and_may_return(world: World) -> None:
    seen = Seen()

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "begun")
        try:
            await ctx.promise("never")
        except asyncio.CancelledError:
            await ctx.run("undo", seen.tell, "undone")
            await ctx.sleep(0.01)
            await ctx.run("undo", seen.tell, "slept")
            return "compensated"

    assert cancelled(world, body, seen, "begun") == "compensated"
    assert seen == ["begun", "undone", "slept"]


def test_a_cancellation_stops_the_step_that_runs_and_it_never_starts_again(world: World) -> None:
    seen = Seen()

    async def slow() -> None:
        seen.append("slow")
        try:
            await asyncio.sleep(world.step_s)
        except asyncio.CancelledError:
            seen.append("stopped")
            raise

    async def body(ctx: WorkflowContext) -> Any:
        try:
            await ctx.run("slow", slow)
            await ctx.sleep(20)  # where the cancellation came too late for the step
        except asyncio.CancelledError:
            await ctx.run("undo", seen.tell, "undone")
            raise

    assert cancelled(world, body, seen, "slow") == ["Cancelled", 409]
    assert [what for what in seen if what != "stopped"] == ["slow", "undone"]
    assert world.step_s < 1 or "stopped" in seen


def test_what_was_called_is_cancelled_with_its_caller_and_what_was_sent_is_not(
    world: World,
) -> None:
    seen = Seen()

    def other(name: str, seconds: float) -> str:
        async def act(ctx: ObjectContext) -> Any:
            await ctx.run("tell", seen.tell, f"{name} begun")
            try:
                await ctx.sleep(seconds)
            except asyncio.CancelledError:
                await ctx.run("tell", seen.tell, f"{name} cancelled")
                raise
            await ctx.run("tell", seen.tell, f"{name} done")

        return named(act)

    called, sent = other("called", 600), other("sent", 0.2)

    async def body(ctx: WorkflowContext) -> Any:
        ref = ctx.send(Thing.act, sent, key=f"{ctx.key}-sent")
        call = ctx.call(Thing.act, called, key=f"{ctx.key}-called")
        for name in ("called", "sent"):
            await ctx.run("both", seen.until, f"{name} begun")
        await ctx.run("tell", seen.tell, "both begun")
        try:
            await call
        except asyncio.CancelledError:
            try:
                await call
            except (TerminalError, asyncio.CancelledError) as failure:
                return [type(failure).__name__, await _id_is_text(ref)]

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await seen.until("both begun")
        await verbs.cancel(begun.id)
        result = await begun.result()
        await seen.until("sent done")
        await seen.until("called cancelled")
        return result

    assert world.play(story) == ["CancelledError", True]
    assert "called done" not in seen


async def _id_is_text(ref: Any) -> bool:
    return isinstance(await ref.invocation_id(), str)


def test_a_second_cancellation_ends_the_compensation_too(world: World) -> None:
    seen = Seen()

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "begun")
        caught = 0
        for _ in range(3):
            try:
                await ctx.sleep(20 if caught < 2 else 0.01)
            except asyncio.CancelledError:
                caught += 1
                await ctx.run("tell", seen.tell, f"caught {caught}")
        return caught

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        for when in ("begun", "caught 1"):
            await seen.until(when)
            await asyncio.sleep(0.05)
            await verbs.cancel(begun.id)
        return await begun.result()

    assert world.play(story) == 2


def test_shield_keeps_a_cancellation_from_what_it_guards(world: World) -> None:
    seen = Seen()

    async def body(ctx: WorkflowContext) -> Any:
        async def guarded() -> str:
            await ctx.sleep(1)
            return await ctx.run("tell", seen.tell, "guarded")

        task = asyncio.ensure_future(guarded())
        await ctx.run("tell", seen.tell, "begun")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            return ["cancelled", await task]

    assert cancelled(world, body, seen, "begun") == ["cancelled", "guarded"]


def test_a_handler_that_catches_a_cancellation_and_goes_on_ends_well(world: World) -> None:
    seen = Seen()

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "begun")
        try:
            await ctx.sleep(20)
        except asyncio.CancelledError:
            times = [ctx.now()]
            await ctx.sleep(0.01)
            times.append(ctx.now())
            return [times == sorted(times), await ctx.get("nothing", default="read")]

    assert cancelled(world, body, seen, "begun") == [True, "read"]


@pytest.mark.parametrize("verb", ["call.cancel", "ref.cancel", "ctx.cancel"])
def test_a_handler_cancels_others(world: World, verb: str) -> None:
    seen = Seen()

    async def other(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "begun")
        try:
            await ctx.sleep(20)
        except asyncio.CancelledError:
            await ctx.run("tell", seen.tell, "cancelled")
            raise

    named_other = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        key = f"{ctx.key}-other"
        if verb == "call.cancel":
            begun: Any = ctx.call(Script.run, named_other, key=key)
        else:
            begun = ctx.send(Script.run, named_other, key=key)
        await ctx.run("it has begun", seen.until, "begun")
        if verb == "ctx.cancel":
            ctx.cancel(await begun.invocation_id())
        else:
            begun.cancel()
        if verb == "call.cancel":
            try:
                await begun
            except asyncio.CancelledError:
                return "CancelledError"
        try:
            await ctx.attach(await begun.invocation_id())
        except Cancelled as failure:
            return type(failure).__name__

    async def story(verbs: Any) -> Any:
        result = await verbs.submit(Script.run, named(body), key=world.key)
        await seen.until("cancelled")
        return result

    expected = "CancelledError" if verb == "call.cancel" else "Cancelled"
    assert world.play(story) == expected


def test_a_call_given_up_at_once_is_cancelled(world: World) -> None:
    seen = Seen()

    async def other(ctx: ObjectContext) -> Any:
        try:
            await ctx.sleep(0.3)
        except asyncio.CancelledError:
            await ctx.run("tell", seen.tell, "cancelled")
            raise
        await ctx.run("tell", seen.tell, "not cancelled")

    named_other = named(other)

    async def body(ctx: WorkflowContext) -> Any:
        ctx.call(Thing.act, named_other, key=ctx.key).cancel()
        try:
            await ctx.call(Plain.echo, "other")
        finally:
            await ctx.sleep(0.5)
        return "done"

    assert world.result(body) == "done"
    assert "not cancelled" not in seen


def test_a_cancellation_while_the_handler_reads_comes_at_the_next_await(world: World) -> None:
    """Reads, times and ids are waited for by the driver: none of them loses a cancellation."""
    seen = Seen()

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "begun")
        try:
            for number in range(2000):
                ctx.now()
                await ctx.get(f"n{number % 3}")
                await ctx.promise(f"p{number}").peek()
                await ctx.sleep(0.001)
        except asyncio.CancelledError:
            return await ctx.run("tell", seen.tell, "cancelled")

    assert cancelled(world, body, seen, "begun") == "cancelled"


# -- failures -------------------------------------------------------------------------------------


def test_a_terminal_error_is_the_answer_with_code_and_metadata(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.sleep(0.001)
        raise TerminalError("no stock", 422, {"sku": "4711"})

    async def story(verbs: Any) -> Any:
        with pytest.raises(TerminalError) as failure:
            await verbs.submit(Script.run, named(body), key=world.key)
        return [str(failure.value), failure.value.code, failure.value.metadata.get("sku")]

    assert world.play(story) == ["no stock", 422, "4711"]


class _OutOfStock(TerminalError):
    default_code = 422


def test_a_subclass_of_terminal_error_arrives_as_one(world: World) -> None:
    async def fails(ctx: Context) -> Any:
        raise _OutOfStock("none left")

    name = named(fails)

    async def body(ctx: WorkflowContext) -> Any:
        try:
            await ctx.call(Plain.act, name)
        except TerminalError as failure:
            return [type(failure) is TerminalError, str(failure), failure.code]

    assert world.result(body) == [True, "none left", 422]


def test_any_other_exception_is_retried_over_the_same_journal(world: World) -> None:
    seen = Seen()
    attempts: list[int] = []

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.run("tell", seen.tell, "once")
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return "at last"

    assert world.result(body) == "at last"
    assert seen == ["once"]


def test_a_retryable_error_of_a_handler_is_retried(world: World) -> None:
    attempts: list[int] = []

    async def body(ctx: WorkflowContext) -> Any:
        attempts.append(1)
        if len(attempts) < 2:
            raise RetryableError("not yet", retry_after=0.05)
        return "at last"

    assert world.result(body) == "at last"


def test_a_group_of_terminal_errors_is_terminal(world: World) -> None:
    async def fails(text: str) -> None:
        raise NotFound(text)

    async def body(ctx: WorkflowContext) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails("one"))
            group.create_task(fails("two"))

    async def story(verbs: Any) -> Any:
        with pytest.raises(TerminalError) as failure:
            await verbs.submit(Script.run, named(body), key=world.key)
        return [str(failure.value), failure.value.code]

    assert world.play(story) == ["one", 404]


def test_a_result_that_has_no_form_to_go_in_is_refused_for_good(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return object()

    async def story(verbs: Any) -> Any:
        with pytest.raises(TerminalError) as failure:
            await verbs.submit(Script.run, named(body), key=world.key)
        return failure.value.code

    assert world.play(story) == 400


def test_io_on_the_loop_of_a_handler_is_refused(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        try:
            await asyncio.open_connection("127.0.0.1", 9)
        except perdure.NondeterministicOperationError as refused:
            return "ctx.run" in str(refused)

    assert world.result(body) is True


def test_a_context_used_in_a_step_is_refused(world: World) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async def misused() -> Any:
            return await ctx.get("a")

        try:
            await ctx.run("misuse", misused)
        except TerminalError as refused:
            return refused.code == 400

    assert world.result(body) is True


def test_what_was_logged_is_not_logged_again_in_a_replay(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "perdure.handler")

    async def body(ctx: WorkflowContext) -> Any:
        for number in range(3):
            ctx.log.info("line %d of %s", number, world.key)
            await ctx.run("step", _value, number)
            ctx.log.info("step %d of %s", number, world.key)
            await ctx.sleep(0.002)
        return "done"

    assert world.result(body) == "done"
    lines = [r.getMessage().partition("] ")[2] for r in caplog.records if world.key in r.message]
    assert lines == [f"{w} {n} of {world.key}" for n in range(3) for w in ("line", "step")]


def test_a_saga_undoes_in_reverse_what_was_done(world: World) -> None:
    seen = Seen()

    async def body(ctx: WorkflowContext) -> Any:
        try:
            async with perdure.Saga(ctx) as saga:
                for what in ("flight", "hotel"):
                    await saga.step(f"book {what}", seen.tell, what, undo=_undo(seen, what))
                raise TerminalError("no car")
        except TerminalError as failure:
            return str(failure)

    assert world.result(body) == "no car"
    assert seen == ["flight", "hotel", "no hotel", "no flight"]


def _undo(seen: Seen, what: str) -> Any:
    async def undo(*_: Any) -> None:
        seen.append(f"no {what}")

    return undo


def test_a_handler_that_waits_for_nothing_that_can_happen_does_not_complete(
    world: World,
) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await asyncio.Event().wait()

    async def story(verbs: Any) -> Any:
        begun = await verbs.send(Script.run, named(body), key=world.key)
        await asyncio.sleep(0.3)
        with pytest.raises(perdure.NotReady):
            await begun.output()
        await verbs.kill(begun.id)
        with pytest.raises(TerminalError) as failure:
            await begun.result()
        return type(failure.value).__name__

    assert world.play(story) == "Killed"
