"""A view: what a data directory holds, without its engine and without its services."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until_idle, until_status
from introspection_support import Counter, Echo, Gate

from perdure import (
    DataDirectoryInUse,
    Engine,
    InvalidInput,
    InvocationFilter,
    NotFound,
    NotReady,
    RetryPolicy,
    Service,
    Status,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    TerminalError,
    Workflow,
    WorkflowContext,
)
from perdure._viewing import View


@dataclass
class Point:
    x: int
    y: int


class Plot(Workflow):
    """Has a record as its state and its result."""

    async def run(self, ctx: WorkflowContext, point: Point) -> Point:
        ctx.set("at", point)
        return Point(point.y, point.x)


SLOW = RetryPolicy(initial=60, max_attempts=5)


def files_of(path: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}


async def _fill(place: Place) -> tuple[dict[str, Status], dict[str, object]]:
    """A directory with an invocation in each place: their status, and their descriptions."""
    clock, counter = ManualClock(), Counter()
    services: tuple[Service | Counter | Workflow, ...] = (Gate(), Echo(), counter, Plot())
    engine = place.engine(*services, clock=clock, default_retry=SLOW, drain_timeout=0.01)
    async with engine:
        await engine.send(Gate.run, 1, key="waits")
        await engine.send(Gate.run, 2, key="done")
        await engine.send(Echo.say, 1, delay=1)
        paused = await engine.send(Gate.run, 3, key="paused")
        await until_idle(engine)
        await engine.pause(paused.id)
        await engine.call(Gate.go, 5, key="done")
        await engine.send(Counter.hold, key="k")
        await counter.holding.wait()
        await engine.send(Counter.add, 1, key="k")
        failing = await engine.send(Echo.fail)
        await until_status(engine, failing, Status.BACKING_OFF)
        await engine.submit(Plot.run, Point(1, 2), key="p")
        listed = [each async for each in engine.all_invocations()]
        statuses = {each.id: each.status for each in listed}
        assert set(statuses.values()) == set(Status) - {Status.BLOCKED, Status.READY}
        described = {each.id: asdict(await engine.describe(each.id)) for each in listed}
    return statuses, dict(described)


def test_a_view_shows_what_the_engine_showed_and_what_ran_as_ready(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        statuses, described = await _fill(place)
        async with View(place.path) as view:
            listed = [each async for each in view.all_invocations()]
            for each in listed:
                shown = asdict(await view.describe(each.id))
                expected = described[each.id]
                assert isinstance(expected, dict)
                if expected["status"] is Status.RUNNING:
                    expected = {**expected, "status": Status.READY}
                for frames in (shown, expected):
                    del frames["await_stack"]  # of the coroutine, where it is in memory
                assert shown == expected
                assert each.status is shown["status"]
            assert {each.id for each in listed} == set(statuses)

    run(main())


def test_nothing_is_blocked_in_a_view_for_it_has_no_services(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            waits = await engine.send(Gate.run, 1, key="waits")
            await until_idle(engine)
        async with place.engine(Echo()) as engine:
            assert (await engine.describe(waits.id)).status is Status.BLOCKED
        async with View(place.path) as view:
            assert (await view.describe(waits.id)).status is Status.SUSPENDED
            suspended = InvocationFilter(status=Status.SUSPENDED)
            assert [each.id for each in (await view.invocations(suspended)).items] == [waits.id]
            blocked = InvocationFilter(status=Status.BLOCKED)
            assert (await view.invocations(blocked)).items == []

    run(main())


def test_a_shared_handler_beside_the_holder_of_its_key_is_not_pending(
    resident_place: Place,
) -> None:
    counter = Counter()

    async def main() -> None:
        async with resident_place.engine(counter, drain_timeout=0.01) as engine:
            await engine.send(Counter.hold, key="k")
            await counter.holding.wait()
            shared = await engine.send(Counter.total, key="k", delay=1000)
            waits = await engine.send(Counter.add, 1, key="k")
        async with View(resident_place.path) as view:
            assert (await view.describe(shared.id)).status is Status.SCHEDULED
            description = await view.describe(waits.id)
            assert description.status is Status.PENDING
            assert "which inv_" in str(description.waiting_on[0])

    run(main())


def test_values_are_decoded_without_their_types(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Plot(), Gate()) as engine:
            plotted = await engine.send(Plot.run, Point(1, 2), key="p")
            assert await plotted.result() == Point(2, 1)
            gate = await engine.send(Gate.run, 1, key="g")
            await until_idle(engine)
            await engine.resolve("Gate.go", 4, key="early")
        async with View(place.path) as view:
            assert await view.output(plotted.id) == {"x": 2, "y": 1}
            assert await view.output(plotted.id, Point) == Point(2, 1)
            assert await view.state("Plot", "p") == {"at": {"x": 1, "y": 2}}
            assert await view.state("Plot", "nobody") == {}
            assert await view.state("Unheard", "of") == {}
            (early,) = await view.promises("Gate", "early")
            assert (early.name, early.status, early.value) == ("go", "resolved", 4)
            (waited_for,) = await view.promises(Gate, "g")
            assert (waited_for.status, waited_for.waiters) == ("pending", [gate.id])
            with pytest.raises(NotReady):
                await view.output(gate.id)
            with pytest.raises(NotFound):
                await view.output("inv_" + "0" * 26)
            with pytest.raises(InvalidInput, match="key"):
                await view.state("Plot", "k" * 300)
            with pytest.raises(InvalidInput, match="class or by name"):
                await view.promises("", "k")

    run(main())


def test_a_failure_is_raised_as_it_is_recorded(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Gate()) as engine:
            gate = await engine.send(Gate.run, 1, key="g")
            await engine.call(Gate.refuse, "not today", key="g")
            with pytest.raises(TerminalError):
                await gate.result()
        async with View(place.path) as view:
            with pytest.raises(TerminalError, match="not today"):
                await view.output(gate.id)

    run(main())


def test_no_byte_of_the_directory_changes(place: Place) -> None:
    quiet_log()

    async def main() -> None:
        statuses, _ = await _fill(place)
        (place.path / "lock.mdb").unlink()  # not even that is made
        before = files_of(place.path)
        async with View(place.path) as view:
            for invocation_id in statuses:
                await view.describe(invocation_id)
            await view.invocations()
            await view.state("Counter", "k")
            await view.promises("Gate", "waits")
            assert files_of(place.path) == before
        assert files_of(place.path) == before

    run(main())


def test_a_directory_that_an_engine_has_is_in_use_and_the_remedy_is_named(
    resident_place: Place,
) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            with pytest.raises(DataDirectoryInUse, match=r"by process \d+: ask the server .*--url"):
                await View(resident_place.path).open()
        async with View(resident_place.path):
            pass

    run(main())


def test_an_engine_waits_its_turn_while_the_directory_is_viewed(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            pass
        async with View(resident_place.path):
            with pytest.raises(DataDirectoryInUse, match="is being read just now"):
                await resident_place.engine(Echo()).open()
        async with resident_place.engine(Echo()) as engine:
            assert await engine.call(Echo.say, 1) == 1

    run(main())


def test_a_copied_data_file_without_a_lock_file_is_guarded_too(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            pass
        copy = resident_place.path.parent / "copy"
        copy.mkdir()
        shutil.copy(resident_place.path / "data.mdb", copy)
        async with View(copy):
            with pytest.raises(DataDirectoryInUse, match="is being read just now"):
                await Engine(copy, [Echo()]).open()
        async with Engine(copy, [Echo()]) as engine:
            assert await engine.call(Echo.say, 1) == 1

    run(main())


def test_what_is_no_data_directory_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(StoreError, match="there is no directory"):
            await View(tmp_path / "missing").open()
        assert not (tmp_path / "missing").exists()
        with pytest.raises(StoreError, match="is no data directory of perdure"):
            await View(tmp_path).open()
        assert os.listdir(tmp_path) == []
        (tmp_path / "data.mdb").write_text("a thesis")
        with pytest.raises(StoreError, match="not a perdure data directory"):
            await View(tmp_path).open()
        with pytest.raises(StoreError, match="is no directory"):
            await View(tmp_path / "data.mdb").open()
        assert (tmp_path / "data.mdb").read_text() == "a thesis"

    run(main())


def test_a_file_that_was_cut_short_is_corrupt(resident_place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            pass
        data = (resident_place.path / "data.mdb").read_bytes()
        copy = tmp_path / "cut"
        copy.mkdir()
        (copy / "data.mdb").write_bytes(data[:-4096])
        with pytest.raises(StoreCorrupt, match="cut short"):
            await View(copy).open()

    run(main())


def test_a_view_is_used_between_its_opening_and_its_close(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Echo()):
            pass
        view = View(resident_place.path)
        with pytest.raises(StoreClosed, match="the view is not open"):
            await view.invocations()
        async with view:
            assert (await view.invocations()).items == []
        with pytest.raises(StoreClosed, match="the view is not open"):
            await view.invocations()
        with pytest.raises(StoreClosed, match="opened before"):
            await view.open()

    run(main())
