"""The harness runs wherever asyncio does, and types what it is given."""

from __future__ import annotations

import asyncio
import gc
import threading
import unittest
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import uvloop
from harness_services import Approval, Caller, Daily, Order, Payments, Receipt

import perdure
from perdure.testing import Harness, StepDouble, Stuck


async def order_that_times_out() -> None:
    async with Harness([Order()]) as h:
        h.step("charge card").returns(lambda amount: {"number": amount})
        assert await h.submit(Order.run, 5, key="1") == "5: nobody approved"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("debug", [False, True])
def test_it_runs_on_asyncios_loop_and_on_uvloop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], debug: bool
) -> None:
    with asyncio.Runner(loop_factory=new_loop, debug=debug) as runner:
        runner.run(order_that_times_out())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_runs_under_the_plugin_of_anyio(anyio_backend: str) -> None:
    await order_that_times_out()


class TestUnittest(unittest.IsolatedAsyncioTestCase):
    """Under unittest, opened in the test or before it."""

    async def asyncSetUp(self) -> None:
        self.harness = await self.enterAsyncContext(Harness([Order(), Approval()]))

    async def test_it_runs_in_a_test_case(self) -> None:
        assert await self.harness.submit(Order.run, 5, key="1") == "5: nobody approved"
        with pytest.raises(Stuck, match="promise 'approval'"):
            await self.harness.submit(Approval.run, key="1")


def test_two_harnesses_beside_each_other_have_times_of_their_own() -> None:
    async def test() -> None:
        async with Harness([Daily()]) as one, Harness([Daily()]) as other:
            await asyncio.gather(
                one.submit(Daily.run, 2, key="1"), other.submit(Daily.run, 40, key="1")
            )
            assert (one.now - other.now).days == -38

    asyncio.run(test())


def test_an_eager_task_factory_changes_nothing() -> None:
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("this Python has no eager tasks")

    async def test() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await order_that_times_out()

    asyncio.run(test())


def test_it_leaves_no_task_and_no_thread_behind() -> None:
    async def test() -> None:
        threads = threading.active_count()
        async with Harness([Approval()]) as h:
            h.step("x").optional()
            sent = await h.send(Approval.run, key="1")
            waiting = asyncio.ensure_future(sent.result())
            await asyncio.sleep(0)
        with pytest.raises(perdure.StoreClosed):
            await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert threading.active_count() == threads

    asyncio.run(test())
    gc.collect()


def test_it_is_an_engine_with_all_its_verbs() -> None:
    async def test() -> None:
        async with Harness([Order()]) as h:
            assert h.engine is h
            assert isinstance(h, perdure.Engine)
            assert h.is_open
            order = await h.send(Order.run, 5, key="1")
            await h.settle()
            assert [each.id for each in (await h.invocations()).items] == [order.id]
            rows = await h.query("SELECT id FROM sys_invocation")
            assert len(rows.rows) == 1
            await h.cancel(order.id)
            with pytest.raises(perdure.Cancelled):
                await order.result()
        assert not h.is_open

    asyncio.run(test())


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        Harness([], start=datetime(2026, 1, 1))  # noqa: DTZ001 - it is the point


@pytest.mark.parametrize(
    ("misuse", "says"),
    [
        (lambda double: double.raises("text"), "raises an error or a class of errors"),
        (lambda double: double.fails_times(0), "a whole number from 1"),
        (lambda double: double.fails_times(1, error=5), "raises an error or a class of errors"),
    ],
)
def test_a_double_that_is_told_nonsense_says_so(
    misuse: Callable[[StepDouble], object], says: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        misuse(Harness([]).step("x"))


def test_doubles_may_be_made_before_the_harness_is_opened() -> None:
    async def test() -> None:
        harness = Harness([Caller()])
        harness.call_to(Payments.charge).returns(Receipt(3))
        async with harness as h:
            assert await h.submit(Caller.run, 5, key="1") == "receipt 3"

    asyncio.run(test())
