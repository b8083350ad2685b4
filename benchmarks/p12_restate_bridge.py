"""P12: what does a step cost through the bridge to Restate, beside restate-sdk itself?

One restate-server, and two processes of handlers on it: written directly on restate-sdk, and the
same as perdure handlers through ``perdure.restate.app``. They are measured in turns, and each
figure is a median over the rounds. *Sequential*: one invocation of 1,000 steps, one after the
other, from the end of a step to the end of the next; and in all, less the time of an invocation
with one step, which is measured as well. *Concurrent*: 50 invocations of 10 steps under way at any
time, what an invocation costs beside its steps included. Value and raw are of what differs more:
p50 of a sequential step, or the processor time of the handlers' process for a concurrent one, which
is what bounds the steps a second, and depends less on who else is on the machine than they do.

Then the replay: a workflow with 1,000 steps in its journal, which is suspended, is woken once, less
the same with one step. And memory: what the handlers' process has of its own while 1,000 and then
2,000 workflows are suspended. The server is as its defaults are, fsync included, but for 4
partitions and a shorter wait before it suspends.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks import _servers
from benchmarks._http_client import Load, Measured, measured
from benchmarks._measure import Result, Scalar, Setting, private_mb
from benchmarks._p12_client import Client, cpu_s

GOAL = 1.25
STEPS = 1000
CONCURRENT, STEPS_EACH = 50, 10
SECONDS = 1.0
SHORT = 30
ROUNDS, REPLAYS, WAKES = 9, 5, 10
SUSPENDED = 1000
INACTIVITY = "1s"


@dataclass
class Side:
    """One way of writing the handlers, and what was measured of it, a value a round.

    Attributes:
      found: By figure; times in ms.
    """

    name: str
    process: int
    found: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figure: str, value: float) -> None:
        self.found.setdefault(figure, []).append(value)

    def median(self, figure: str) -> float:
        return statistics.median(self.found[figure])


def measure(setting: Setting) -> Result:
    apps = {
        f"benchmarks._p12_{name}:app": (f"/{name.title()}Steps/run", 1)
        for name in ("direct", "bridge")
    }
    with setting.directory() as directory:
        try:
            with _servers.restate_with(directory / "it", apps, inactivity=INACTIVITY) as it:
                client = Client(it.ingress, it.admin)
                sides = Side("direct", it.handlers[0]), Side("bridge", it.handlers[1])
                _rounds(setting, client, it.ingress, sides)
                client.close()
        except _servers.Skipped as missing:
            why = {"restate": f"skipped: {missing}"}
            return Result("P12", None, "ms/step", None, None, _goal(), None, why)
    direct, bridge = sides
    ratios = {figure: bridge.median(figure) / direct.median(figure) for figure in bridge.found}
    worst = max(("sequential_ms_p50", "concurrent_cpu_ms"), key=lambda figure: ratios[figure])
    return Result(
        "P12",
        round(bridge.median(worst), 4),
        "ms/step",
        round(direct.median(worst), 4),
        round(ratios[worst], 3),
        _goal(),
        ratios[worst] <= GOAL,
        _config(setting, sides),
    )


def _rounds(setting: Setting, client: Client, ingress: int, sides: tuple[Side, Side]) -> None:
    for side in sides:  # to warm up
        _sequential(side, client, setting.size(STEPS))
        side.found.clear()
    for _ in range(1 if setting.quick else ROUNDS):
        for side in sides:
            _sequential(side, client, setting.size(STEPS))
        for side in sides:
            _concurrent(side, ingress)
    for number in range(1 if setting.quick else REPLAYS):
        for side in sides:
            _replay(side, client, setting.size(STEPS), number)
    for side in sides:
        _memory(side, client, setting.size(SUSPENDED))


def _sequential(side: Side, client: Client, steps: int) -> None:
    path = f"/{side.name.title()}Steps/run"
    short_ms = statistics.median(_timed_ms(lambda: client.call(path, 1)) for _ in range(SHORT))
    cpu = cpu_s(side.process)
    intervals: list[float] = []
    long_ms = _timed_ms(lambda: intervals.extend(client.call(path, steps)))
    side.add("sequential_cpu_ms", (cpu_s(side.process) - cpu) * 1000 / steps)
    side.add("invocation_of_1_step_ms", short_ms)
    side.add("sequential_ms", (long_ms - short_ms) / (steps - 1))
    side.add("sequential_ms_p50", intervals[0])
    side.add("sequential_ms_p99", intervals[1])


def _concurrent(side: Side, ingress: int) -> None:
    path = f"/{side.name.title()}Steps/run"
    load = Load(ingress, path, str(STEPS_EACH), CONCURRENT, SECONDS, 0.5)
    cpu = cpu_s(side.process)
    seen: Measured = measured(load)
    if seen.other:
        raise SystemExit(f"P12: {path} has answered with something else than 200: {seen}")
    side.add("concurrent_ms", 1000 / (seen.calls_per_s * STEPS_EACH))
    side.add("concurrent_cpu_ms", (cpu_s(side.process) - cpu) * 1000 / (seen.accepted * STEPS_EACH))
    side.add("concurrent_call_ms_p50", seen.ms_p50)
    side.add("concurrent_call_ms_p99", seen.ms_p99)


def _replay(side: Side, client: Client, steps: int, number: int) -> None:
    """Suspend workflows with 1 and one with *steps* steps in the journal, and wake each."""
    workflow = f"{side.name.title()}Waits"
    short = [f"short-{number}-{each}" for each in range(WAKES)]
    long = f"long-{number}"
    for key in (*short, long):
        client.call(f"/{workflow}/{key}/run/send", steps if key == long else 1)
    client.until_suspended(workflow, WAKES + 1)

    def wake_ms(key: str) -> float:
        def wake() -> None:
            client.call(f"/{workflow}/{key}/end")
            client.attach(workflow, key)

        return _timed_ms(wake)

    cpu = cpu_s(side.process)
    short_ms = statistics.median(map(wake_ms, short))
    middle_cpu = cpu_s(side.process)
    long_ms = wake_ms(long)
    long_cpu = cpu_s(side.process) - middle_cpu
    side.add("wake_of_1_step_ms", short_ms)
    side.add("replay_ms", (long_ms - short_ms) / (steps - 1))
    side.add("replay_cpu_ms", (long_cpu - (middle_cpu - cpu) / WAKES) * 1000 / (steps - 1))


def _memory(side: Side, client: Client, count: int) -> None:
    workflow = f"{side.name.title()}Waits"
    for total in (count, 2 * count):
        for number in range(total - count, total):
            client.call(f"/{workflow}/waits-{number}/run/send", 1)
        client.until_suspended(workflow, total)
        figure = "private_mb_suspended" if total == count else "private_mb_twice_as_many"
        side.add(figure, private_mb(side.process))


def _timed_ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _goal() -> str:
    return f"<= {GOAL} x restate-sdk's"


def _config(setting: Setting, sides: tuple[Side, Side]) -> dict[str, Scalar]:
    config: dict[str, Scalar] = {
        "restate": _servers.version_of(_servers.restate_server()),
        "restate_partitions": _servers.PARTITIONS,
        "endpoints": "hypercorn, uvloop, bidi, a process each",
        "payload": "a dict of 3 entries",
        "steps": setting.size(STEPS),
        "concurrent": f"{CONCURRENT} x {STEPS_EACH}",
        "rounds": len(sides[0].found["sequential_ms"]),
    }
    direct, bridge = sides
    for figure in direct.found:
        for side in sides:
            config[f"{figure}_{side.name}"] = round(side.median(figure), 4)
        pairs = zip(bridge.found[figure], direct.found[figure], strict=True)
        ratios = [mine / its for mine, its in pairs if its]
        config[f"{figure}_ratio"] = round(bridge.median(figure) / direct.median(figure), 3)
        config[f"{figure}_ratios"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return config
