"""P8: how many calls a second does the ingress answer in one process, beside Restate's, fsync on?

One client, in a process of its own, asks perdure's server and then a real restate-server: the same
requests, over the same number of connections, each with one request under way. What is called is a
service that greets and an object that counts, 1,000 keys at random, each a line or two. Value and
raw are of the one of them with the smaller ratio; both are in config. The servers run one after the
other, in each round anew, so that none takes the processors of the other. Restate runs as its
defaults are, with fsync of its log, but for what was among the fastest of the settings tried: 4
partitions, and its Python SDK on hypercorn with ``request_response``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import _servers
from benchmarks._http_client import Load, Measured, measured
from benchmarks._measure import Result, Scalar, Setting

GOAL = 5
CONNECTIONS = 64
SECONDS = 4.0
ROUNDS = 3

LOADS = {"greet": ("/Greeter/greet", '"Bob"'), "add": ("/Counter/{key}/add", "1")}

Server = Callable[[Path], AbstractContextManager[int]]


def measure(setting: Setting) -> Result:
    servers: dict[str, Server] = {"perdure": _servers.perdure, "restate": _servers.restate}
    found: dict[tuple[str, str], list[Measured]] = {}
    config: dict[str, Scalar] = {
        "connections": CONNECTIONS,
        "payload": '"Bob" and 1',
        "rounds": ROUNDS,
        "seconds": SECONDS / 10 if setting.quick else SECONDS,
    }
    with setting.directory() as directory:
        with _servers.plain() as port:
            ceiling = measured(_load("greet", port, setting))
        config["client_alone_per_s"] = round(ceiling.calls_per_s)
        for number in range(1 if setting.quick else ROUNDS):
            for name, server in list(servers.items()):
                try:
                    with server(directory / f"{name}{number}") as port:
                        for called in LOADS:
                            seen = measured(_load(called, port, setting))
                            found.setdefault((called, name), []).append(seen)
                except _servers.Skipped as missing:
                    config["restate"] = f"skipped: {missing}"
                    del servers[name]
    for (called, name), rounds in found.items():
        config |= _described(f"{called}_{name}", rounds)
    if "restate" not in servers:
        slowest = min(LOADS, key=lambda called: _rate(found[called, "perdure"]))
        value = round(_rate(found[slowest, "perdure"]))
        return Result("P8", value, "calls/s", None, None, _goal(), None, config)
    config |= {
        "restate": _servers.version_of(_servers.restate_server()),
        "restate_partitions": _servers.PARTITIONS,
        "restate_endpoint": "restate-sdk, hypercorn, uvloop, request_response, one process",
    }
    for called in LOADS:
        config[f"{called}_ratio"] = round(_ratio(found, called), 2)
    worst = min(LOADS, key=lambda called: _ratio(found, called))
    return Result(
        "P8",
        round(_rate(found[worst, "perdure"])),
        "calls/s",
        round(_rate(found[worst, "restate"])),
        round(_ratio(found, worst), 2),
        _goal(),
        _ratio(found, worst) >= GOAL,
        config,
    )


def _goal() -> str:
    return f">= {GOAL} x Restate's"


def _load(called: str, port: int, setting: Setting) -> Load:
    path, body = LOADS[called]
    seconds, warm_up = (SECONDS / 10, 0.1) if setting.quick else (SECONDS, 1.0)
    return Load(port, path, body, CONNECTIONS, seconds, warm_up)


def _rate(rounds: list[Measured]) -> float:
    return statistics.median(one.calls_per_s for one in rounds)


def _ratio(found: dict[tuple[str, str], list[Measured]], called: str) -> float:
    return _rate(found[called, "perdure"]) / _rate(found[called, "restate"])


def _described(name: str, rounds: list[Measured]) -> dict[str, Scalar]:
    if any(one.other for one in rounds):
        raise SystemExit(f"P8: {name} has answered with something else than 200: {rounds}")
    return {
        f"{name}_per_s": round(_rate(rounds)),
        f"{name}_fastest": round(max(one.calls_per_s for one in rounds)),
        f"{name}_ms_p50": statistics.median(one.ms_p50 for one in rounds),
        f"{name}_ms_p99": statistics.median(one.ms_p99 for one in rounds),
    }
