"""Sagas: what was done is undone at each final exit, and at no other."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import anyio
import pytest
from engine_support import QUICK, Place, quiet_log, run, until, until_idle, until_status
from primitive_support import Body, Primitive

from perdure import (
    Cancelled,
    Engine,
    InvalidInput,
    InvocationHandle,
    RetryPolicy,
    Saga,
    Status,
    TerminalError,
    WorkflowContext,
)

LONG_ENOUGH_S = 0.2
"""For a step to begin, on a machine under load too."""

ONCE = RetryPolicy(max_attempts=1)
UNDONE = ["un-c", "un-b", "un-a"]


class World:
    """What actions and compensations have done; those in *held* wait until they are let go."""

    def __init__(self, *held: str) -> None:
        self.seen: list[str] = []
        self.cut_short: list[str] = []
        self.held = set(held)
        self.broken: dict[str, Exception] = {}

    async def act(self, name: str) -> str:
        self.seen.append(name)
        try:
            while name in self.held:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cut_short.append(name)
            raise
        if name in self.broken:
            raise self.broken[name]
        return name.upper()

    async def undo(self, name: str) -> None:
        await self.act(f"un-{name}")

    async def until(self, name: str) -> None:
        await until(lambda: name in self.seen, name)

    def trip(self, end: Exception | None = None, undo_retry: RetryPolicy | None = None) -> Body:
        """Three actions with a wait after each, and then, once, *end*."""

        async def body(ctx: WorkflowContext) -> str:
            async with Saga(ctx, undo_retry=undo_retry) as saga:
                for name in ("a", "b", "c"):
                    booked = await saga.step(name, self.act, name, undo=self.undo)
                    assert booked == name.upper()
                    await ctx.promise(f"after {name}")
                if end is not None and ctx.request.attempt == 1:
                    raise end
            return "all booked"

        return body


async def started(engine: Engine, *resolved: str) -> InvocationHandle[Any]:
    """A run whose promises *resolved* are resolved, gone on as far as it can."""
    trip = await engine.send(Primitive.run, key="k")
    for name in resolved:
        await engine.call(Primitive.resolve, name, key="k")
    return trip


AFTER_ALL = ("after a", "after b", "after c")


def test_a_saga_that_is_completed_undoes_nothing(place: Place) -> None:
    world = World()

    async def main() -> None:
        async with place.engine(Primitive(world.trip())) as engine:
            trip = await started(engine, *AFTER_ALL)
            assert await trip.result() == "all booked"

    run(main())
    assert world.seen == ["a", "b", "c"]


def test_a_terminal_error_undoes_the_last_first_and_goes_on_to_the_caller(place: Place) -> None:
    world = World()

    async def main() -> None:
        end = TerminalError("no seats", 410, {"seat": "12"})
        async with place.engine(Primitive(world.trip(end))) as engine:
            trip = await started(engine, *AFTER_ALL)
            with pytest.raises(TerminalError) as caught:
                await trip.result()
            assert (str(caught.value), caught.value.code) == ("no seats", 410)
            assert caught.value.metadata == {"seat": "12"}

    run(main())
    assert world.seen == ["a", "b", "c", *UNDONE]


def test_an_action_that_failed_for_good_is_undone_too_and_what_follows_it_is_not(
    place: Place,
) -> None:
    world = World()
    world.broken["b"] = TerminalError("full")

    async def main() -> None:
        async with place.engine(Primitive(world.trip())) as engine:
            trip = await started(engine, *AFTER_ALL)
            with pytest.raises(TerminalError, match="full"):
                await trip.result()

    run(main())
    assert world.seen == ["a", "b", "un-b", "un-a"]


def test_a_group_of_terminal_errors_undoes_and_one_with_another_error_does_not(
    place: Place,
) -> None:
    world = World()

    async def body(ctx: WorkflowContext) -> Any:
        async with Saga(ctx) as saga:
            await saga.step("a", world.act, "a", undo=world.undo)
            errors = [TerminalError("one", 410), TerminalError("two")]
            if ctx.request.attempt == 1:
                raise ExceptionGroup("mixed", [*errors, OSError("the net")])
            raise ExceptionGroup("all final", errors)

    async def main() -> None:
        quiet_log()
        async with place.engine(Primitive(body)) as engine:
            trip = await started(engine)
            with pytest.raises(TerminalError) as caught:
                await trip.result()
            assert (str(caught.value), caught.value.code) == ("one", 410)

    run(main())
    assert world.seen == ["a", "un-a"]


def test_a_failure_that_is_retried_undoes_nothing(place: Place) -> None:
    quiet_log()
    world = World()

    async def main() -> None:
        body = world.trip(OSError("the net is down"))
        async with place.engine(Primitive(body)) as engine:
            trip = await started(engine, *AFTER_ALL)
            assert await trip.result() == "all booked"

    run(main())
    assert world.seen == ["a", "b", "c"]


def test_caught_outside_the_block_the_error_is_an_ordinary_result(place: Place) -> None:
    world = World()
    trip_to = world.trip(TerminalError("no seats"))

    async def body(ctx: WorkflowContext) -> Any:
        try:
            return await trip_to(ctx)
        except TerminalError as error:
            return f"sorry: {error}"

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            trip = await started(engine, *AFTER_ALL)
            assert await trip.result() == "sorry: no seats"

    run(main())
    assert world.seen == ["a", "b", "c", *UNDONE]


# -- cancellation -----------------------------------------------------------------------------

# Where the trip waits when it is cancelled: what is held or not resolved yet, and what is undone.
AWAITS = [
    ("a", ["un-a"]),
    ("after a", ["un-a"]),
    ("b", ["un-b", "un-a"]),
    ("after b", ["un-b", "un-a"]),
    ("c", UNDONE),
    ("after c", UNDONE),
]


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
@pytest.mark.parametrize(("at", "undone"), AWAITS, ids=[at for at, _ in AWAITS])
def test_cancelled_at_any_await_it_undoes_what_may_have_begun(
    place: Place, at: str, undone: list[str], restart: bool
) -> None:
    world = World(at)
    resolved = AFTER_ALL[: [name for name, _ in AWAITS].index(at) // 2]

    async def main() -> None:
        async with place.engine(Primitive(world.trip()), drain_timeout=0.01) as engine:
            trip = await started(engine, *resolved)
            if at.startswith("after"):
                await until_idle(engine)
            else:
                await world.until(at)
            if not restart:
                await trip.cancel()
                with pytest.raises(Cancelled):
                    await trip.result()
                return
        async with place.engine(Primitive(world.trip())) as engine:
            await engine.cancel(trip.id)
            with pytest.raises(Cancelled):
                await engine.attach(trip.id)

    run(main())
    assert [name for name in world.seen if name.startswith("un-")] == undone
    assert ("c" in world.seen) == ("un-c" in undone)


def test_an_action_that_is_cut_short_has_ended_before_it_is_undone(place: Place) -> None:
    world = World("a")
    order: list[str] = []

    async def undo(name: str) -> None:
        order.extend([*world.cut_short, f"un-{name}"])

    async def body(ctx: WorkflowContext) -> None:
        async with Saga(ctx) as saga:
            await saga.step("a", world.act, "a", undo=undo)

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            trip = await started(engine)
            await world.until("a")
            await trip.cancel()
            with pytest.raises(Cancelled):
                await trip.result()

    run(main())
    assert order == ["a", "un-a"]


@pytest.mark.parametrize("end", [None, TerminalError("no seats")], ids=["cancelled", "failed"])
@pytest.mark.parametrize("at", UNDONE)
def test_cancelled_while_it_undoes_it_undoes_the_rest_and_is_cancelled_then(
    place: Place, end: Exception | None, at: str
) -> None:
    world = World(at)

    async def main() -> None:
        async with place.engine(Primitive(world.trip(end))) as engine:
            trip = await started(engine, *(AFTER_ALL if end else AFTER_ALL[:2]))
            if end is None:
                await world.until("c")
                await until_idle(engine)
                await trip.cancel()
            for _ in range(3):
                await world.until(at)
                await trip.cancel()
                await asyncio.sleep(0.005)
            world.held.clear()
            with pytest.raises(Cancelled):
                await trip.result()

    run(main())
    assert world.seen == ["a", "b", "c", *UNDONE]
    assert world.cut_short == []


def test_a_time_limit_around_a_saga_undoes_it(place: Place) -> None:
    world = World("a")

    async def body(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(LONG_ENOUGH_S), Saga(ctx) as saga:
                await saga.step("a", world.act, "a", undo=world.undo)
        except TimeoutError:
            return "too late"
        return "booked"

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            assert await (await started(engine)).result() == "too late"

    run(main())
    assert world.seen == ["a", "un-a"]


def test_a_cancel_scope_of_anyio_around_a_saga_undoes_it(place: Place) -> None:
    world = World("a")

    async def body(ctx: WorkflowContext) -> str:
        with anyio.CancelScope() as scope:
            async with Saga(ctx) as saga:
                await saga.step("b", world.act, "b", undo=world.undo)
                scope.deadline = anyio.current_time() + LONG_ENOUGH_S
                await saga.step("a", world.act, "a", undo=world.undo)
            return "booked"
        return "too late"

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            assert await (await started(engine)).result() == "too late"

    run(main())
    assert world.seen == ["b", "a", "un-a", "un-b"]


def test_cancelled_while_an_action_is_out_of_attempts_it_undoes_that_too(place: Place) -> None:
    quiet_log()
    world = World()
    world.broken["b"] = OSError("the net is down")

    async def main() -> None:
        async with place.engine(Primitive(world.trip()), default_retry=ONCE) as engine:
            trip = await started(engine, *AFTER_ALL)
            await until_status(engine, trip, Status.PAUSED)
            await trip.cancel()
            with pytest.raises(Cancelled):
                await trip.result()

    run(main())
    assert world.seen == ["a", "b", "un-b", "un-a"]


def test_a_saga_in_a_saga_is_undone_before_it(place: Place) -> None:
    world = World()

    async def body(ctx: WorkflowContext) -> None:
        async with Saga(ctx) as outer:
            await outer.step("a", world.act, "a", undo=world.undo)
            async with Saga(ctx) as inner:
                await inner.step("b", world.act, "b", undo=world.undo)
                raise TerminalError("no")

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            with pytest.raises(TerminalError, match="no"):
                await (await started(engine)).result()

    run(main())
    assert world.seen == ["a", "b", "un-b", "un-a"]


def test_actions_side_by_side_are_ended_before_any_is_undone(place: Place) -> None:
    world = World("a", "b")
    world.broken["c"] = TerminalError("full")
    order: list[list[str]] = []

    async def undo(name: str) -> None:
        order.append([*sorted(world.cut_short), f"un-{name}"])

    async def body(ctx: WorkflowContext) -> None:
        async with Saga(ctx) as saga:
            steps = [saga.step(name, world.act, name, undo=undo) for name in "abc"]
            await asyncio.gather(*steps)

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            with pytest.raises(TerminalError, match="full"):
                await (await started(engine)).result()

    run(main())
    assert order == [["a", "b", undone] for undone in UNDONE]


# -- restarts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", UNDONE)
def test_a_restart_in_between_goes_on_with_the_compensation_it_was_at(
    place: Place, at: str
) -> None:
    world = World(at)
    end = TerminalError("no seats")

    async def main() -> None:
        async with place.engine(Primitive(world.trip(end)), drain_timeout=0.01) as engine:
            trip = await started(engine, *AFTER_ALL)
            await world.until(at)
        world.held.clear()
        async with place.engine(Primitive(world.trip(end))) as engine:
            with pytest.raises(TerminalError, match="no seats"):
                await engine.attach(trip.id)

    run(main())
    again = [name for undone in UNDONE for name in [undone] * (2 if undone == at else 1)]
    assert world.seen == ["a", "b", "c", *again]


# -- compensations that fail --------------------------------------------------------------------


def test_a_compensation_that_fails_is_reported_and_the_others_follow(place: Place) -> None:
    quiet_log()
    world = World()
    world.broken = {"un-b": TerminalError("hotel closed"), "un-a": TerminalError("gone")}

    async def main() -> None:
        end = TerminalError("no seats", 410, {"seat": "12"})
        async with place.engine(Primitive(world.trip(end))) as engine:
            trip = await started(engine, *AFTER_ALL)
            with pytest.raises(TerminalError) as caught:
                await trip.result()
            assert (str(caught.value), caught.value.code) == ("no seats", 410)
            assert caught.value.metadata == {
                "seat": "12",
                "not_undone": "undo b: hotel closed; undo a: gone",
            }
            assert end.metadata == {"seat": "12"}

    run(main())
    assert world.seen == ["a", "b", "c", *UNDONE]


def test_a_cancelled_handler_learns_what_is_not_undone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "perdure")
    world = World("b")
    world.broken["un-b"] = TerminalError("hotel closed")

    async def body(ctx: WorkflowContext) -> list[tuple[str, str, int]]:
        saga = Saga(ctx)
        try:
            async with saga:
                await saga.step("a", world.act, "a", undo=world.undo)
                await saga.step("b", world.act, "b", undo=world.undo)
        except asyncio.CancelledError:
            await ctx.sleep(0)  # the replay of what is reported reports it once
            return [(name, str(error), error.code) for name, error in saga.not_undone]
        return []

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            trip = await started(engine)
            await world.until("b")
            await trip.cancel()
            assert await trip.result() == [["undo b", "hotel closed", 500]]

    run(main())
    assert world.seen == ["a", "b", "un-b", "un-a"]
    reports = [record.message for record in caplog.records if record.name == "perdure.handler"]
    assert len(reports) == 1
    assert "saga: 'undo b' failed, its action is not undone: hotel closed" in reports[0]


def test_a_compensation_is_retried_by_itself_as_the_saga_says(place: Place) -> None:
    quiet_log()
    world = World()
    world.broken["un-c"] = OSError("the net is down")

    async def main() -> None:
        body = world.trip(TerminalError("no seats"), undo_retry=QUICK)
        async with place.engine(Primitive(body), default_retry=ONCE) as engine:
            trip = await started(engine, *AFTER_ALL)
            with pytest.raises(TerminalError) as caught:
                await trip.result()
            assert "the net is down" in caught.value.metadata["not_undone"]

    run(main())
    assert world.seen == ["a", "b", "c", "un-c", "un-c", *UNDONE]


def test_without_a_policy_of_its_own_a_compensation_waits_for_a_person(place: Place) -> None:
    quiet_log()
    world = World()
    world.broken["un-c"] = OSError("the net is down")

    async def main() -> None:
        body = world.trip(TerminalError("no seats"))
        async with place.engine(Primitive(body), default_retry=ONCE) as engine:
            trip = await started(engine, *AFTER_ALL)
            await until_status(engine, trip, Status.PAUSED)
            world.broken.clear()
            await engine.resume(trip.id)
            with pytest.raises(TerminalError, match="no seats"):
                await trip.result()

    run(main())
    assert world.seen == ["a", "b", "c", "un-c", *UNDONE]


# -- what is refused, and what is shown -----------------------------------------------------------


def test_an_action_that_is_no_step_is_undone_by_a_step_that_is_added(place: Place) -> None:
    world = World()

    async def body(ctx: WorkflowContext) -> None:
        async with Saga(ctx) as saga:
            saga.add("forget it", world.act, "forgotten")
            await ctx.promise("it")
            raise TerminalError("no")

    async def main() -> None:
        async with place.engine(Primitive(body)) as engine:
            trip = await started(engine, "it")
            with pytest.raises(TerminalError, match="no"):
                await trip.result()

    run(main())
    assert world.seen == ["forgotten"]


def test_the_journal_names_the_lines_of_the_handler(resident_place: Place) -> None:
    world = World()

    async def main() -> None:
        body = world.trip(TerminalError("no seats"))
        async with resident_place.engine(Primitive(body)) as engine:
            trip = await started(engine, *AFTER_ALL)
            with pytest.raises(TerminalError):
                await trip.result()
            journal = (await engine.describe(trip.id)).journal
            sites = {entry.name: entry.site for entry in journal if entry.is_command}
            for name in ("a", "undo c", "undo a"):
                assert "test_saga.py" in sites[name]
                assert "in World.trip" in sites[name]

    run(main())


def returns_a_generator() -> Generator[int]:
    yield 1


async def refused(ctx: WorkflowContext, misuse: str) -> None:
    saga = Saga(ctx)
    step: Any = saga.step
    match misuse:
        case "no context":
            Saga(None)  # type: ignore[arg-type]
        case "no policy":
            Saga(ctx, undo_retry=3)  # type: ignore[arg-type]
        case "not entered":
            saga.add("undo", print)
        case "entered twice":
            async with saga, saga:
                pass
        case "after its end":
            async with saga:
                pass
            step("act", print, undo=print)
    async with saga:
        match misuse:
            case "no function":
                step("act", None, undo=print)
            case "no compensation":
                step("act", print, undo=None)
            case "no type":
                step("act", print, undo=returns_a_generator)
            case "no name":
                step(None, print, undo=print)
            case "empty name":
                saga.add("", print)
            case "long name":
                step("n" * 92, print, undo=print)
            case "bad policy":
                step("act", print, undo=print, retry=3)


MISUSES = {
    "no context": "Saga takes the context of its handler, not None",
    "no policy": "undo_retry= takes a RetryPolicy, not 3",
    "not entered": "'undo' is outside its block, which has not begun",
    "entered twice": "a saga is one block; make another",
    "after its end": "'undo act' is outside its block, which has ended",
    "no function": "step 'act': None is not callable",
    "no compensation": "step 'undo act': None is not callable",
    "no type": "Generator",
    "no name": "name",
    "empty name": "name",
    "long name": "97 bytes",
    "bad policy": "retry= takes a RetryPolicy, not 3",
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_refused_with_the_remedy(resident_place: Place, misuse: str) -> None:
    async def main() -> None:
        body: Body = lambda ctx: refused(ctx, misuse)  # noqa: E731
        async with resident_place.engine(Primitive(body)) as engine:
            with pytest.raises(InvalidInput) as caught:
                await (await started(engine)).result()
            assert MISUSES[misuse] in str(caught.value)

    run(main())


def test_the_longest_name_is_one_that_its_compensation_can_have(resident_place: Place) -> None:
    world = World()

    async def body(ctx: WorkflowContext) -> None:
        async with Saga(ctx) as saga:
            await saga.step("n" * 91, world.act, "a", undo=world.undo)
            raise TerminalError("no")

    async def main() -> None:
        async with resident_place.engine(Primitive(body)) as engine:
            with pytest.raises(TerminalError, match="no"):
                await (await started(engine)).result()

    run(main())
    assert world.seen == ["a", "un-a"]
