"""What the workloads share: results, raw LMDB to compare with, and where it is measured."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import lmdb

T = TypeVar("T")
Scalar = str | int | float | bool | None

MAP_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Result:
    """What one workload measured.

    Attributes:
      value: The figure, in *unit*; None where what it takes is not to be had.
      raw: What raw LMDB does in the same terms, or None where there is no such thing.
      ratio: *value* in units of *raw*, as DESIGN's goals are stated.
      goal: In words; *met*: whether the figure is within it, None where there is none.
      config: All that is needed to judge the figure.
    """

    id: str
    value: float | None
    unit: str
    raw: float | None
    ratio: float | None
    goal: str
    met: bool | None
    config: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Setting:
    """How to measure.

    Attributes:
      scratch: Directory for stores, on the disk to be measured.
      quick: Smaller sizes, to see that everything works; the figures mean little.
    """

    scratch: Path
    quick: bool

    def size(self, full: int) -> int:
        """*full*, or a tenth of it."""
        return max(1, full // 10) if self.quick else full

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """A new directory on the disk that is measured, removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            yield Path(directory)


def run(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run *work* on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def loop_name() -> str:
    """The kind of loop that :func:`run` uses."""
    try:
        import uvloop
    except ImportError:
        return "asyncio"
    return f"uvloop {importlib.metadata.version(uvloop.__name__)}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of *values* that *percent* of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def raw_commits(directory: Path, value: bytes, count: int, *, key_bytes: int = 20) -> list[float]:
    """Seconds that each of *count* raw LMDB commits takes: one new row of *value*, fsync on."""
    directory.mkdir(exist_ok=True)
    seconds: list[float] = []
    with lmdb.open(str(directory), map_size=MAP_BYTES, max_dbs=1) as environment:
        rows = environment.open_db(b"rows")
        with environment.begin() as transaction:
            first = transaction.stat(rows)["entries"]
        for number in range(first, first + count):
            key = number.to_bytes(key_bytes, "big")
            begin = time.perf_counter()
            with environment.begin(write=True, db=rows) as transaction:
                transaction.put(key, value)
            seconds.append(time.perf_counter() - begin)
    return seconds


def mean_journal_row(directory: Path) -> tuple[int, int]:
    """Rows of the journal in a closed store, and the mean size of their values in bytes."""
    with lmdb.open(str(directory), readonly=True, max_dbs=32, lock=False) as environment:
        journal = environment.open_db(b"journal", create=False)
        with environment.begin(db=journal) as transaction:
            sizes = [len(value) for _, value in transaction.cursor()]
    return len(sizes), round(statistics.fmean(sizes))


def written_bytes() -> int | None:
    """Bytes that this process has sent towards the disk so far; None where no one counts."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def private_mb(process: int | str = "self") -> float:
    """Anonymous memory of a process: what it has of its own, a mapped store apart."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()
    except OSError as error:
        raise SystemExit(f"this needs Linux, where processes have smaps_rollup: {error}") from None
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Anonymous:"))


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 4)


def environment_of(setting: Setting) -> dict[str, Scalar]:
    """The part of a result's config that is the same for all workloads."""
    return {
        "durability": "fsync",
        "python": platform.python_version(),
        "loop": loop_name(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "disk": _disk(setting.scratch),
        "lmdb": ".".join(map(str, lmdb.version())),
        "commit": _commit(),
        "quick": setting.quick,
    }


def _disk(directory: Path) -> str:
    """File system and device of *directory*."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return sys.platform
    path = str(directory.resolve()) + "/"
    holding = [mount for mount in mounts if path.startswith(mount[1].rstrip("/") + "/")]
    device, _, kind, *_ = max(holding, key=lambda mount: len(mount[1]))
    return f"{kind} on {device}"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
