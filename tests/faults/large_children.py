"""A program that runs in a child: many values of 32 MiB at once, on a slow disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perdure import Engine, InvocationHandle, Workflow, WorkflowContext

LARGEST = 32 * 1024 * 1024 - 5
"""Bytes that are encoded in 32 MiB: a head of five bytes says how many they are."""

SENDERS = 2
"""Who send at a time, one invocation after the other."""


class Hoard(Workflow):
    """Gets a large value, and makes one in a step."""

    async def run(self, ctx: WorkflowContext, value: bytes) -> int:
        made = await ctx.run("make", bytes, len(value), returns=bytes)
        return len(value) + len(made)


def hoard(path: str, count: str) -> None:
    """Begin *count* at once, and print how much memory the process has had at most, in MiB."""
    print(asyncio.run(_hoard(Path(path), int(count))) // 1024)


def _memory_kib() -> int:
    """What this process has to itself; pages of the data file, which it only maps, not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return int(kib)


async def _hoard(path: Path, count: int) -> int:
    value = bytes(LARGEST)
    most = before = _memory_kib()

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, _memory_kib())
            await asyncio.sleep(0.002)

    async with Engine(path, [Hoard()], max_resident=0, step_threads=2) as engine:

        async def begin(sender: int) -> None:
            for number in range(sender, count, SENDERS):
                key = str(number)
                handles[key] = await engine.send(Hoard.run, value, key=key)

        handles: dict[str, InvocationHandle[int]] = {}
        looking = asyncio.create_task(look())
        async with asyncio.TaskGroup() as group:
            for sender in range(SENDERS):
                group.create_task(begin(sender))
        for handle in handles.values():
            assert await handle.result() == 2 * LARGEST
        looking.cancel()
    return most - before
