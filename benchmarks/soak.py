"""A server under load for half an hour: do memory, file, descriptors and latency stay flat?

``make soak``, or ``python -m benchmarks.soak --seconds 1800``. A server on loopback, fsync on, in a
process of its own; clients in this one, each of which does one thing after the other: orders that
wait for an approval, approvals, orders that are cancelled, calls of objects. What is completed goes
after five seconds, so all that is kept is bounded. A line is printed every so many seconds. In the
end the second quarter of the time is compared with the last one: the first is for warming up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import perdure
from benchmarks import _servers
from benchmarks._measure import Setting, milliseconds, percentile
from benchmarks._soak_services import Account, Order

CLIENTS = 16
TEXT = "x" * 500
GROWTH_MAX = 1.10
"""Of what is kept, from the second quarter to the last."""
SLOWER_MAX = 1.5
"""Of latencies, on a machine that others use as well."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen in one interval; *ms* are of calls of an object, over HTTP, with fsync."""

    at_s: int
    operations_per_s: float
    memory_mib: float
    file_mib: float
    descriptors: int
    threads: int
    ms_p50: float
    ms_p99: float


class Soak:
    """The clients, and what they have measured since the last sample."""

    def __init__(self, client: perdure.Client) -> None:
        self._client = client
        self._numbers = itertools.count()
        self.lasting: list[float] = []
        self.operations = 0
        self.ending = False

    async def work(self) -> None:
        """One client, until the end."""
        while not self.ending:
            number = next(self._numbers)
            key = f"order {number}"
            order = await self._client.send(Order.run, TEXT, key=key)
            for step in range(4):
                begin = time.perf_counter()
                await self._client.call(Account.add, 1, key=f"{(number + step) % 1000}")
                self.lasting.append(time.perf_counter() - begin)
            if number % 10 == 0:
                await order.cancel()
                with contextlib.suppress(perdure.Cancelled):
                    await order.result()
            else:
                await self._client.call(Order.approve, "Ann", key=key)
                assert await order.result() == TEXT.upper()
            self.operations += 7

    def taken(self) -> tuple[int, list[float]]:
        """Operations and latencies since the last call."""
        found = self.operations, self.lasting
        self.operations, self.lasting = 0, []
        return found


def sample(at_s: int, over_s: float, soak: Soak, pid: int, directory: Path) -> Sample:
    """What there is to see now."""
    operations, lasting = soak.taken()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    )
    return Sample(
        at_s=at_s,
        operations_per_s=round(operations / over_s, 1),
        memory_mib=round(int(status["RssAnon"].split()[0]) / 1024, 1),
        file_mib=round((directory / "data.mdb").stat().st_size / 1024 / 1024, 2),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
        ms_p50=milliseconds(percentile(lasting, 50)),
        ms_p99=milliseconds(percentile(lasting, 99)),
    )


async def run(
    directory: Path, ports: list[int], pid: int, seconds: float, every: float
) -> list[Sample]:
    """Put the load on the server and look at it, a line for each look."""
    samples: list[Sample] = []
    print("".join(f"{field.name:>18}" for field in fields(Sample)), flush=True)
    url, admin_url = (f"http://127.0.0.1:{port}" for port in ports)
    connected = perdure.connect(url, admin_url=admin_url)
    async with connected as client, asyncio.TaskGroup() as group:
        soak = Soak(client)
        for _ in range(CLIENTS):
            group.create_task(soak.work())
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            await asyncio.sleep(every)
            samples.append(sample(round(time.monotonic() - begin), every, soak, pid, directory))
            print("".join(f"{value:>18}" for value in asdict(samples[-1]).values()), flush=True)
        soak.ending = True
    return samples


def judged(samples: list[Sample]) -> Iterator[tuple[str, float, float, bool]]:
    """(what, in the second quarter, in the last one, whether that is flat)."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    for field in fields(Sample)[1:]:
        before, after = (
            round(statistics.median(getattr(one, field.name) for one in part), 2)
            for part in (early, late)
        )
        if field.name == "operations_per_s":
            yield field.name, before, after, after * SLOWER_MAX >= before
        else:
            limit = SLOWER_MAX if field.name.startswith("ms") else GROWTH_MAX
            yield field.name, before, after, after <= before * limit


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--every", type=float, default=15, help="seconds between two looks")
    parser.add_argument("--scratch", type=Path, default=Path("build"))
    parser.add_argument("--json", action="store_true", help="the samples as JSON at the end")
    options = parser.parse_args()
    if options.seconds < 8 * options.every:
        parser.error("a soak takes at least eight looks")
    options.scratch.mkdir(exist_ok=True)
    with Setting(options.scratch, quick=False).directory() as scratch:
        data = scratch / "data"
        ports = _servers.free_ports(2)
        command = [sys.executable, "-m", "benchmarks._soak_services", str(data), *map(str, ports)]
        with _servers.ended_at_last(command, None) as process:
            _servers.wait_for_port(ports[0], process)
            samples = asyncio.run(run(data, ports, process.pid, options.seconds, options.every))
        if process.returncode != 0:
            print(f"the server ended with {process.returncode}")
            return 1
    if options.json:
        print(json.dumps([asdict(one) for one in samples]))
    flat = True
    for name, before, after, is_flat in judged(samples):
        print(f"{name:>18}: {before:>10} -> {after:>10}  {'flat' if is_flat else 'NOT FLAT'}")
        flat = flat and is_flat
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
