"""What `describe` says: what is waited for and where, and the journal, in parts."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_support import (
    ManualClock,
    Place,
    quiet_log,
    run,
    scheduler_of,
    until_idle,
    until_status,
)
from introspection_support import LOOP_TURN_MAX_S, Counter, Echo, Gate, longest_turn_s

from perdure import (
    Description,
    Engine,
    InvalidInput,
    InvocationFilter,
    NotFound,
    PromiseNameError,
    RetryPolicy,
    Status,
    StoreClosed,
    TerminalError,
    Workflow,
    WorkflowContext,
)
from perdure._core._entries import Entry, Kind
from perdure._ids import format_id, parse_id
from perdure._runtime import _stacks, _waiting
from perdure._store import Store

HERE = Path(__file__).name


async def nothing() -> None:
    """A step."""


async def fails() -> None:
    raise ValueError("not yet")


async def waits_for(ctx: WorkflowContext, name: str) -> Any:
    return await ctx.promise(name)  # the line of the promise


class Waits(Workflow):
    """Runs what *body* it is given."""

    def __init__(self, body: Any) -> None:
        self.body = body

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.body(ctx)


def described(place: Place, body: Any, **options: Any) -> Description:
    """What is said of a workflow that runs *body*, once it is suspended, and the clock stands."""

    async def main() -> Description:
        clock = ManualClock()
        async with place.engine(Waits(body), clock=clock, **options) as engine:
            handle = await engine.send(Waits.run, key="k")
            await until_idle(engine)
            return await engine.describe(handle.id)

    return run(main())


# -- what it waits for ----------------------------------------------------------------------------


def test_each_thing_waited_for_has_its_kind_name_time_and_line(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.run("first", nothing)
        await asyncio.gather(ctx.after(90), waits_for(ctx, "paid"))

    found = described(place, body)
    began = datetime.fromtimestamp(ManualClock().now_ms() / 1000, UTC)
    timer, promise = found.waiting_on
    assert (timer.kind, timer.name, timer.since) == ("timer", "", began)
    assert timer.deadline == began + timedelta(seconds=90)
    assert str(timer) == timer.text == f"timer due {timer.deadline:%Y-%m-%d %H:%M:%S} UTC"
    assert (promise.kind, promise.name, promise.deadline) == ("promise", "paid", None)
    assert (str(promise), promise.attempt, promise.target_id) == ("promise 'paid'", None, None)
    assert promise.site.endswith(" in waits_for")
    assert HERE in promise.site
    assert [found.journal[each.index or 0].kind for each in found.waiting_on] == [
        "timer",
        "wait for promise",
    ]
    assert found.waiting_count == 2


def test_calls_attachments_awakeables_and_signals_name_whom_they_wait_for(place: Place) -> None:
    other: list[str] = []

    async def body(ctx: WorkflowContext) -> None:
        call, attached = ctx.call(Gate.run, 1, key="called"), ctx.attach(other[0], int)
        await ctx.wait_first(call, attached, ctx.awakeable(str), ctx.signal("news", str))

    async def main() -> None:
        async with place.engine(Waits(body), Gate()) as engine:
            attached = await engine.send(Gate.run, 1, key="attached")
            other.append(attached.id)
            handle = await engine.send(Waits.run, key="k")
            await until_idle(engine)
            found = await engine.describe(handle.id)
            call, attachment, awakeable, signal = found.waiting_on
            run_of_call = InvocationFilter(key="called")
            (child,) = (await engine.invocations(run_of_call)).items
            assert (call.kind, call.name, call.target_id) == ("call", "Gate.run/called", child.id)
            assert str(call) == f"call 'Gate.run/called', {child.id}"
            assert (attachment.kind, attachment.target_id) == ("attachment", attached.id)
            assert str(attachment) == f"attachment to {attached.id}"
            assert (awakeable.kind, str(awakeable)) == ("awakeable", f"awakeable {awakeable.name}")
            assert (signal.kind, signal.name, str(signal)) == ("signal", "news", "signal 'news'")
            assert found.waits_without_timeout
            assert found.journal[call.index or 0].value == 1
            await engine.resolve_awakeable(awakeable.name, "done")
            await until_status(engine, handle, Status.COMPLETED)
            for key in ("called", "attached"):
                await engine.call(Gate.go, 1, key=key)

    run(main())


def test_a_step_that_backs_off_says_when_it_is_tried_again_and_why(place: Place) -> None:
    quiet_log()

    async def body(ctx: WorkflowContext) -> None:
        await ctx.run("charge", fails)

    found = described(place, body, default_retry=RetryPolicy(initial=60))
    (step,) = found.waiting_on
    assert found.status is Status.BACKING_OFF
    assert (step.kind, step.name, step.attempt) == ("step", "charge", 2)
    assert step.last_failure == "ValueError: not yet"
    assert step.next_attempt_at is not None
    assert step.since is not None
    assert step.next_attempt_at > step.since
    assert str(step).startswith("step 'charge', attempt 2 at ")


def test_an_attempt_that_has_failed_says_when_the_next_begins_and_why(place: Place) -> None:
    quiet_log()

    async def body(ctx: WorkflowContext) -> None:
        raise ValueError("not yet")

    found = described(place, body, default_retry=RetryPolicy(initial=60))
    (retry,) = found.waiting_on
    assert (found.status, found.waiting_count) == (Status.BACKING_OFF, 1)
    assert (retry.kind, retry.attempt, retry.last_failure) == ("retry", 2, "ValueError: not yet")
    assert retry.next_attempt_at is not None
    assert retry.since is not None
    assert 50 < (retry.next_attempt_at - retry.since).total_seconds() <= 61
    assert str(retry).startswith("attempt 2, due ")


def test_what_was_sent_with_a_delay_says_when_it_begins(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Counter()) as engine:
            sent = await engine.send(Counter.hold, key="k", delay=3600)
            found = await engine.describe(sent.id)
            (start,) = found.waiting_on
            assert (found.status, start.kind) == (Status.SCHEDULED, "start")
            assert start.deadline is not None
            assert 3590 < (start.deadline - found.created_at).total_seconds() <= 3601
            await engine.cancel(sent.id)

    run(main())


def test_a_step_that_runs_is_waited_for_in_its_first_attempt(place: Place) -> None:
    async def main() -> None:
        counter = Counter()
        async with place.engine(counter) as engine:
            held = await engine.send(Counter.hold, key="k")
            await counter.holding.wait()
            found = await engine.describe(held.id)
            (step,) = found.waiting_on
            assert (step.attempt, step.next_attempt_at, str(step)) == (1, None, "step 'hold'")
            assert not found.waits_without_timeout
            counter.let_go.set()
            await until_status(engine, held, Status.COMPLETED)

    run(main())


def test_a_blocked_invocation_waits_for_its_registration_too(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            handle = await engine.send(Gate.run, 1, key="k")
            await until_idle(engine)
        async with place.engine(Echo()) as engine:
            found = await engine.describe(handle.id)
            blocked, promise = found.waiting_on
            assert (blocked.kind, promise.kind) == ("registration", "promise")
            assert str(blocked) == "service 'Gate' is not registered here"
            assert (blocked.index, blocked.since, found.waiting_count) == (None, None, 2)

    run(main())


async def for_ever(ctx: WorkflowContext) -> None:
    await ctx.promise("paid")


async def for_a_while(ctx: WorkflowContext) -> None:
    async with asyncio.timeout(60):
        await ctx.promise("paid")


async def asleep(ctx: WorkflowContext) -> None:
    await ctx.sleep(60)


async def at_once(ctx: WorkflowContext) -> int:
    ctx.after(60)  # and nobody waits for it
    return 7


@pytest.mark.parametrize(
    ("body", "without"), [(for_ever, True), (for_a_while, False), (asleep, False), (at_once, False)]
)
def test_waiting_without_a_timeout_is_seen(place: Place, body: Any, without: bool) -> None:
    assert described(place, body).waits_without_timeout is without


def test_of_very_many_things_waited_for_some_are_shown_and_all_counted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_waiting, "WAITING_SHOWN_MAX", 3)

    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(*[waits_for(ctx, f"p{number}") for number in range(5)])

    found = described(place, body)
    assert [str(each) for each in found.waiting_on] == [f"promise 'p{n}'" for n in range(3)]
    assert found.waiting_count == 5


# -- where it waits -------------------------------------------------------------------------------


def test_the_stack_of_a_handler_in_memory_leads_from_run_to_the_line_that_waits(
    resident_place: Place,
) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await waits_for(ctx, "paid")

    stack = described(resident_place, body).await_stack
    assert [frame.function.rpartition(".")[2] for frame in stack] == ["run", "body", "waits_for"]
    assert {frame.task for frame in stack} == {"handler"}
    assert stack[-1].source == "return await ctx.promise(name)  # the line of the promise"
    assert str(stack[-1]) == f"{__file__}:{stack[-1].line} in waits_for"


def test_the_stack_has_the_tasks_of_a_handler(resident_place: Place) -> None:
    async def body(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for(ctx, "a"), name="for a")
            group.create_task(waits_for(ctx, "b"), name="for b")

    stack = described(resident_place, body).await_stack
    of = {
        task: [frame.function for frame in frames]
        for task, frames in itertools.groupby(stack, lambda frame: frame.task)
    }
    assert list(of) == ["handler", "for a", "for b"]
    assert of["handler"][-1] == "TaskGroup.__aexit__"
    assert of["for a"] == of["for b"] == ["waits_for"]


def test_of_a_handler_that_is_not_in_memory_the_stack_is_the_lines_of_its_commands(
    tmp_path: Path,
) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.after(90), waits_for(ctx, "a"), waits_for(ctx, "b"))

    stack = described(Place(tmp_path / "data", 0), body).await_stack
    assert [frame.function.rpartition(".")[2] for frame in stack] == ["body", "waits_for"]
    assert {frame.task for frame in stack} == {""}
    assert stack[1].source == "return await ctx.promise(name)  # the line of the promise"


def test_a_stack_is_cut_at_its_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stacks, "FRAMES_MAX", 2)

    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.after(90), ctx.after(90), waits_for(ctx, "a"))

    assert len(described(place, body).await_stack) == 2


def test_what_has_completed_waits_nowhere(place: Place) -> None:
    found = described(place, at_once)
    assert (found.status, found.await_stack, found.waiting_on) == (Status.COMPLETED, [], [])
    assert found.completed_at is not None


# -- the journal ----------------------------------------------------------------------------------


def test_journal_entries_have_their_values_and_failures(place: Place) -> None:
    async def numbers() -> list[int]:
        return [1, 2]

    async def refuses() -> None:
        raise PromiseNameError("no")

    async def body(ctx: WorkflowContext) -> None:
        await ctx.run("numbers", numbers)
        try:
            await ctx.run("refuses", refuses)
        except TerminalError:
            ctx.set("nothing", None)
        ctx.set("much", "x" * 5_000)
        await ctx.get("absent")
        assert await ctx.state_keys() == ["much", "nothing"]
        await ctx.run("long", long)
        await ctx.sleep(60)

    async def long() -> str:
        return "y" * 70_000

    journal = described(place, body).journal
    start, step, done, _, refused, none, much, absent, keys, _, long_done, timer = journal
    assert (start.kind, start.has_value, start.answers) == ("start", False, None)
    assert (step.has_value, step.value, step.answers) == (False, None, None)
    assert (done.has_value, done.value, done.answers) == (True, [1, 2], step.index)
    assert (refused.has_value, refused.value) == (False, None)
    assert isinstance(refused.failure, PromiseNameError)
    assert str(refused.failure) == "no"
    assert (none.has_value, none.value) == (True, None)
    assert (much.has_value, much.text) == (False, "set state 'much': 5003 bytes")
    assert (absent.has_value, absent.name) == (False, "absent")
    assert keys.value == ["much", "nothing"]
    assert (long_done.has_value, long_done.value) == (False, None)
    assert long_done.text.endswith(": 70005 bytes")
    assert (timer.is_command, timer.time) == (True, long_done.time)


def test_a_journal_entry_that_looked_for_an_invocation_has_its_id(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> None:
        for _ in range(2):
            ctx.send(Echo.say, 1, idempotency_key="once")

    async def main() -> None:
        async with place.engine(Waits(body), Echo()) as engine:
            handle = await engine.send(Waits.run, key="k")
            await handle.result()
            journal = (await engine.describe(handle.id)).journal
            (said,) = (await engine.invocations(InvocationFilter(service=Echo))).items
            values = [entry.value for entry in journal if entry.kind == "look up"]
            assert values == [None, said.id]

    run(main())


def test_a_journal_is_shown_in_parts(place: Place) -> None:
    async def body(ctx: WorkflowContext) -> None:
        for number in range(10):
            await ctx.run(f"step {number}", nothing)
        await ctx.promise("end")

    async def main() -> None:
        async with place.engine(Waits(body)) as engine:
            handle = await engine.send(Waits.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            whole = await engine.describe(handle.id)
            assert (whole.journal_length, whole.journal_next) == (22, None)
            assert [entry.index for entry in whole.journal] == list(range(22))
            parts = []
            position: int | None = 0
            while position is not None:
                part = await engine.describe(handle.id, journal_from=position, journal_limit=5)
                parts.append(part.journal)
                assert part.waiting_on == whole.waiting_on
                position = part.journal_next
            assert [len(part) for part in parts] == [5, 5, 5, 5, 2]
            assert [entry for part in parts for entry in part] == whole.journal
            part = await engine.describe(handle.id, journal_from=3, journal_limit=2)
            assert part.timeline().splitlines()[:2] == whole.timeline().splitlines()[3:5]
            assert part.timeline().splitlines()[2].strip() == "… 17 more, from entry 5"
            none = await engine.describe(handle.id, journal_limit=0)
            assert (none.journal, none.journal_next, none.journal_kept) == ([], 0, True)
            beyond = await engine.describe(handle.id, journal_from=99)
            assert (beyond.journal, beyond.journal_next) == ([], None)

    run(main())


def lengthen(path: Path, invocation_id: bytes, chunks: int) -> None:
    """Add so many activations of two entries to a journal that has two."""
    store = Store(path, durability="os")
    try:
        for number in range(chunks):
            entries = (Entry(Kind.TIMER_FIRED, time_ms=1), Entry(Kind.STATE_CLEAR, name="x"))
            store.put_journal(invocation_id, 2 + 2 * number, entries)
            if number % 1_000 == 0:
                store.seal()
        store.wait_committed(store.seal())
    finally:
        store.close()


def test_a_journal_of_100_000_entries_is_read_without_holding_up_the_loop(tmp_path: Path) -> None:
    place = Place(tmp_path / "data", 10_000)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.promise("end")

    async def begin() -> str:
        async with place.engine(Waits(body)) as engine:
            handle = await engine.send(Waits.run, key="k")
            await until_idle(engine)
            return handle.id

    async def look(invocation_id: str) -> None:
        async with place.engine(Waits(body)) as engine:
            found, longest, turns = await longest_turn_s(engine.describe(invocation_id))
            assert longest < LOOP_TURN_MAX_S
            assert turns > 5
            assert (found.journal_length, found.journal_next) == (100_002, 1_000)
            assert [str(each) for each in found.waiting_on] == ["promise 'end'"]
            found, longest, turns = await longest_turn_s(
                engine.describe(invocation_id, journal_from=10, journal_limit=100_000)
            )
            assert longest < LOOP_TURN_MAX_S
            assert turns > 50
            assert (len(found.journal), found.journal_next) == (99_992, None)
            asked = asyncio.create_task(engine.describe(invocation_id))
            await asyncio.sleep(0)
        with pytest.raises(StoreClosed):
            await asked

    invocation_id = run(begin())
    lengthen(place.path, parse_id(invocation_id), 50_000)
    run(look(invocation_id))


def test_what_completes_while_its_journal_is_read_is_described_as_completed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(Gate, journal_retention=0):
        pass

    async def main() -> None:
        async with place.engine(Short()) as engine:
            handle = await engine.send(Short.run, 1, key="k")
            await until_idle(engine)
            store = scheduler_of(engine).store
            read = store.journal
            looks: list[int] = []

            def journal(*args: Any, **options: Any) -> Any:
                looks.append(args[1])
                return read(*args, **options)

            async def complete(_: object) -> None:
                if looks == [0]:
                    looks.append(-1)
                    await engine.call(Short.go, 1, key="k")
                    await handle.result()

            monkeypatch.setattr(store, "journal", journal)
            monkeypatch.setattr("perdure._runtime._slices.Slices.turn", complete)
            found = await engine.describe(handle.id)
            assert found.status is Status.COMPLETED
            assert (found.journal, found.journal_kept, found.waiting_on) == ([], False, [])
            assert found.timeline() == "(journal not kept)"

    run(main())


# -- before it begins -----------------------------------------------------------------------------


def test_what_was_sent_with_a_delay_is_scheduled_and_who_waits_for_its_key_is_pending(
    place: Place,
) -> None:
    clock = ManualClock()

    async def statuses(engine: Engine) -> dict[str, Status]:
        listed = [each async for each in engine.all_invocations(InvocationFilter(key="k"))]
        for each in listed:
            assert (await engine.describe(each.id)).status is each.status
        return {each.id: each.status for each in listed}

    async def main() -> None:
        counter = Counter()
        async with place.engine(counter, clock=clock) as engine:
            delayed = await engine.send(Counter.add, 1, key="k", delay=60)
            holder = await engine.send(Counter.hold, key="k")
            waiting = await engine.send(Counter.add, 1, key="k")
            await counter.holding.wait()
            assert await statuses(engine) == {
                delayed.id: Status.SCHEDULED,
                holder.id: Status.RUNNING,
                waiting.id: Status.PENDING,
            }
            pending = InvocationFilter(status=["pending", "scheduled"])
            listed = [each.id async for each in engine.all_invocations(pending)]
            assert listed == [delayed.id, waiting.id]
            counter.let_go.set()
            await until_status(engine, waiting, Status.COMPLETED)
            clock.advance(60)
            await until_status(engine, delayed, Status.COMPLETED)

    run(main())


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 1 << 32, 1.0, True, "0", None])
def test_a_part_of_a_journal_that_can_not_be_is_refused(resident_place: Place, bad: Any) -> None:
    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            handle = await engine.send(Gate.run, 1, key="k")
            with pytest.raises(InvalidInput, match="journal_from must be an int from 0 to 4,294"):
                await engine.describe(handle.id, journal_from=bad)
            with pytest.raises(InvalidInput, match="journal_limit must be an int from 0 to 100,0"):
                await engine.describe(handle.id, journal_limit=bad)

    run(main())


def test_an_unknown_invocation_has_no_description(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Gate()) as engine:
            with pytest.raises(NotFound, match="there is no invocation inv_0000"):
                await engine.describe(format_id(bytes(16)))

    run(main())
