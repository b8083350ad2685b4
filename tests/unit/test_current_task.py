"""A handler runs on its own loop inside whatever the host runs, a task of the host's included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from core_support import Driver

from perdure import WorkflowContext
from perdure._core import _loop, _task


def nothing() -> None:
    """A step."""


class OneCurrentTask:
    """The current task as Python 3.14 keeps it: one for a thread, of the loop that runs."""

    def __init__(self) -> None:
        self.task: Any = asyncio.current_task()

    def enter(self, loop: Any, task: Any) -> None:
        if asyncio._get_running_loop() is not loop:
            raise RuntimeError(f"loop {loop!r} is not the running loop")
        if self.task is not None:
            raise RuntimeError(f"Cannot enter into task {task!r} while another is being executed")
        self.task = task

    def leave(self, loop: Any, task: Any) -> None:
        if asyncio._get_running_loop() is not loop:
            raise RuntimeError(f"loop {loop!r} is not the running loop")
        if self.task is not task:
            raise RuntimeError(f"Invalid attempt to leave task {task!r}")
        self.task = None

    def current(self, loop: Any = None) -> Any:
        return self.task

    @contextlib.contextmanager
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            for module in (_loop, _task):
                patch.setattr(module, "enter_task", self.enter)
                patch.setattr(module, "leave_task", self.leave)
            patch.setattr(_loop, "current_task", self.current)
            patch.setattr(asyncio.tasks, "current_task", self.current)
            yield


async def waits_in_tasks(ctx: WorkflowContext) -> str:
    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(_waits(ctx, name))
    return "done"


async def _waits(ctx: WorkflowContext, name: str) -> None:
    try:
        await ctx.run(name, nothing)
    finally:
        await asyncio.sleep(0)


def test_a_task_of_the_host_may_drive_a_handler_where_a_thread_has_one_current_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        one = OneCurrentTask()
        host = one.task
        with one.installed(monkeypatch):
            driver = Driver(waits_in_tasks)
            driver.start()
            assert one.task is host
            driver.crash()
            assert one.task is host
            assert driver.finish() == "done"
            driver.evict()
            assert one.task is host

    asyncio.run(main())


def test_the_host_has_its_loop_and_task_back_after_a_handler_has_run() -> None:
    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        driver = Driver(waits_in_tasks)
        driver.start()
        driver.evict()
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task

    asyncio.run(main())


def test_a_handler_sees_its_own_task_as_the_current_one() -> None:
    async def handler(ctx: WorkflowContext) -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        return [await name(), await asyncio.create_task(name(), name="child")]

    async def main() -> Any:
        driver = Driver(handler)
        driver.start()
        driver.evict()
        return driver.result()

    assert asyncio.run(main()) == ["handler", "child"]
