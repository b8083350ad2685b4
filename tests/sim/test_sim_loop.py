"""The loop of a simulation: asyncio's promises, in simulated time."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from perdure.testing import SimulationStuck
from perdure.testing._sim_loop import SimLoop


def run(main: Coroutine[Any, Any, Any], seed: int = 0) -> Any:
    loop = SimLoop(random.Random(seed))
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_a_year_of_sleep_takes_no_time_at_all() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(365 * 86_400)
        return loop.time() - before

    started = time.monotonic()
    assert run(main()) == pytest.approx(365 * 86_400, abs=0.001)
    assert time.monotonic() - started < 5


def test_callbacks_run_first_in_first_out_and_timers_in_the_order_of_their_times() -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        for number, delay in ((4, 0.2), (3, 0.1), (5, 0.3)):
            loop.call_later(delay, seen.append, number)
        for number in range(3):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)
        return seen

    assert run(main()) == [0, 1, 2, 3, 4, 5]


def test_a_timer_that_was_cancelled_never_fires() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(1, pytest.fail).cancel()
        await asyncio.sleep(2)

    run(main())


def test_timeouts_gather_queues_and_task_groups_work() -> None:
    async def main() -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def put(number: int) -> int:
            await asyncio.sleep(number)
            await queue.put(number)
            return number

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(put(2), name="two")
            group.create_task(put(1))
        return [await asyncio.gather(put(3), put(0)), *[await queue.get() for _ in range(4)]]

    assert run(main()) == [[3, 0], 1, 2, 0, 3]


def test_what_runs_in_a_thread_takes_simulated_time_and_sees_no_loop() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await asyncio.to_thread(asyncio._get_running_loop) is None
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        assert await asyncio.to_thread(threading.current_thread) is threading.main_thread()
        return loop.time() - before

    assert run(main()) > 0


def test_different_seeds_give_threads_other_orders() -> None:
    async def main() -> tuple[int, ...]:
        order: list[int] = []
        await asyncio.gather(*(asyncio.to_thread(order.append, number) for number in range(4)))
        return tuple(order)

    assert len({run(main(), seed) for seed in range(20)}) > 5
    assert run(main(), 7) == run(main(), 7)


def test_what_can_never_happen_is_an_error_and_no_hang() -> None:
    with pytest.raises(SimulationStuck, match="can never happen"):
        run(asyncio.Event().wait())


def test_there_is_no_network() -> None:
    async def main() -> None:
        with pytest.raises(NotImplementedError, match="no network"):
            await asyncio.open_connection("localhost", 80)

    run(main())
