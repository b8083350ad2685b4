"""P9: how many bytes does a step cost on the disk, at 1,000 concurrent workflows of 10 steps?

What the process sends towards the disk (``write_bytes`` of /proc/self/io), and how much the file
grows. Raw: the same for LMDB when each step is a commit of its own.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks._measure import (
    Result,
    Setting,
    mean_journal_row,
    raw_commits,
    run,
    written_bytes,
)
from benchmarks._steps import PAYLOAD, STEPS, Load

GOAL = 4096
ROUNDS = 5


def file_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def measure(setting: Setting) -> Result:
    if written_bytes() is None:
        raise SystemExit("P9 needs /proc/self/io, which is there on Linux only")
    concurrent = setting.size(1000)
    commits = setting.size(1000)
    written = grown = 0
    with setting.directory() as directory:
        load = Load(directory / "engine")

        async def rounds() -> None:
            nonlocal written, grown
            async with load.engine:
                await load.run(concurrent)  # a young file grows by leaps
                written -= written_bytes() or 0
                grown -= file_bytes(directory / "engine")
                for _ in range(ROUNDS):
                    await load.run(concurrent)
                written += written_bytes() or 0
                grown += file_bytes(directory / "engine")

        run(rounds)
        _, row_bytes = mean_journal_row(directory / "engine")
        raw_commits(directory / "raw", bytes(row_bytes), 10)
        raw = -(written_bytes() or 0)
        raw_commits(directory / "raw", bytes(row_bytes), commits)
        raw += written_bytes() or 0
    steps = concurrent * STEPS * ROUNDS
    value = written / steps
    return Result(
        "P9",
        round(value),
        "bytes/step",
        round(raw / commits),
        round(value / (raw / commits), 4),
        f"<= {GOAL} bytes/step",
        value <= GOAL,
        {
            "concurrent": concurrent,
            "steps_each": STEPS,
            "rounds": ROUNDS,
            "payload": repr(PAYLOAD),
            "journal_row_bytes": row_bytes,
            "file_growth_bytes_per_step": round(grown / steps),
        },
    )
