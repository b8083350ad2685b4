"""Handlers and their Restate are killed again and again: each attempt replays what was seen."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from cluster_support import HANG_S, HERE, Process, answers, until
from restate_server import CONFIG, free_ports, server_binary
from worlds import SMALL, SUSPENDING

pytestmark = pytest.mark.long

STATEFUL = HERE.parent / "stateful"
INVOCATIONS = 40
STEPS = 6
COUNTERS = 3
KILLS_S = 9.0
RETRIES = """
[default-retry-policy]
initial-interval = "5ms"
exponentiation-factor = 1.0
max-interval = "20ms"
max-attempts = "unlimited"
"""


class Killed(NamedTuple):
    """What is left after the kills.

    Attributes:
      open: Rows of the invocations that have not ended.
      failures: What Restate said of attempts that had failed, while it said so.
      counts: Of the counters.
      added: What was acknowledged to have been added to each counter, and is.
      steps: Numbers of the steps of each invocation, in the order in which attempts began.
      seen: What each attempt of each program saw.
    """

    open: list[dict[str, Any]]
    failures: set[str]
    counts: list[int]
    added: list[int]
    steps: dict[str, list[int]]
    seen: dict[str, dict[str, list[str]]]


class Place:
    """One Restate, and the process of its handlers."""

    def __init__(self, directory: Path, extra: str) -> None:
        node, admin, ingress, port = free_ports(4)
        self.admin, self.ingress = (f"http://127.0.0.1:{each}" for each in (admin, ingress))
        self.log = directory / "lines"
        self._uri = f"http://127.0.0.1:{port}"
        config = directory / "restate.toml"
        text = CONFIG.format(node=node, admin=admin, ingress=ingress)
        config.write_text(SMALL + text + RETRIES + extra)
        self.server = Process(
            [server_binary(), "--no-logo", "-c", config, "--base-dir", directory / "base"],
            directory / "server.log",
        )
        bind = ["--bind", f"127.0.0.1:{port}"]
        self.handlers = Process(
            [sys.executable, "-m", "hypercorn", *bind, "kill_handlers:app"],
            directory / "handlers.log",
            PYTHONPATH=os.pathsep.join([str(HERE), str(STATEFUL)]),
            KILLS_LOG=str(self.log),
        )

    def start(self) -> None:
        self.server.start()
        self.handlers.start()
        self.wait_for_handlers()
        until(lambda: answers(f"{self.admin}/health"), "the server")
        httpx.post(f"{self.admin}/deployments", json={"uri": self._uri}, timeout=HANG_S)
        until(lambda: self._answers("Counter/0/get"), "an ingress that knows the handlers")

    def wait_for_handlers(self) -> None:
        until(lambda: answers(f"{self._uri}/health"), "the handlers")

    def _answers(self, path: str) -> bool:
        return httpx.post(f"{self.ingress}/{path}", timeout=HANG_S).status_code == 200

    def post(self, path: str, arg: object, **headers: str) -> None:
        """Send *arg* until that is acknowledged."""

        def is_acknowledged() -> bool:
            try:
                answer = httpx.post(f"{self.ingress}/{path}", json=arg, headers=headers, timeout=20)
            except httpx.TransportError:
                return False
            return answer.status_code < 300 or answer.status_code == 409

        until(is_acknowledged, path)

    def rows(self, condition: str) -> list[dict[str, Any]]:
        """Invocations; none of a server that is not there."""
        asked = f"select target, status, last_failure from sys_invocation where {condition}"
        try:
            answer = httpx.post(
                f"{self.admin}/query", json={"query": asked}, headers={"accept": "application/json"}
            )
            found: list[dict[str, Any]] = answer.json()["rows"]
        except (httpx.TransportError, ValueError, KeyError):
            return []
        return found


@pytest.fixture(scope="module", params=["", SUSPENDING], ids=["normal", "suspending"])
def killed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Killed:
    """What is left when all was killed again and again, and could then come to its end."""
    place = Place(tmp_path_factory.mktemp("kills"), request.param)
    try:
        place.start()
        with ThreadPoolExecutor(INVOCATIONS) as clients:
            sent = [clients.submit(_send, place, number) for number in range(INVOCATIONS)]
            failures = _kill(place)
            for each in sent:
                each.result()
        return _left(place, failures)
    finally:
        place.handlers.kill()
        place.server.kill()


def _send(place: Place, number: int) -> None:
    counter = number % COUNTERS
    place.post(f"Sequence/{number}/run/send", str(counter))
    place.post(f"Generated/{number}/run/send", number)
    place.post(f"Counter/{counter}/add", 1, **{"idempotency-key": str(number)})
    for name in ("p0", "p1", "p2", "p3"):
        place.post(f"Generated/{number}/resolve/send", name)


def _kill(place: Place) -> set[str]:
    chosen = random.Random(1)
    failures: set[str] = set()
    end = time.monotonic() + KILLS_S
    while time.monotonic() < end:
        place.wait_for_handlers()
        time.sleep(chosen.uniform(0.05, 0.6))
        failures |= {row["last_failure"] for row in place.rows("last_failure is not null")}
        if chosen.random() < 0.2:
            place.server.kill()
            place.server.start()
        place.handlers.kill()
        place.handlers.start()
    return failures


def _left(place: Place, failures: set[str]) -> Killed:
    place.wait_for_handlers()
    until(lambda: answers(f"{place.admin}/health"), "the server")
    # A generated program may come to wait for nothing that can happen.
    is_open = "status <> 'completed' and coalesce(last_failure, '') not like '%HandlerStalled%'"
    end = time.monotonic() + 20
    while (left := place.rows(is_open)) and time.monotonic() < end:
        failures |= {row["last_failure"] for row in left if "last_failure" in row}
        time.sleep(0.2)
    steps: dict[str, list[int]] = defaultdict(list)
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in place.log.read_text().splitlines():
        kind, first, second, last = line.split("\t")
        if kind == "step":
            steps[first].append(int(last))
        else:
            seen[first][second].append(last)
    counts = [
        httpx.post(f"{place.ingress}/Counter/{number}/get", timeout=HANG_S).json()
        for number in range(COUNTERS)
    ]
    numbers = Counter(number % COUNTERS for number in range(INVOCATIONS))
    added = [2 * numbers[number] for number in range(COUNTERS)]  # one by a sequence
    return Killed(left, failures, counts, added, steps, seen)


def test_each_invocation_that_was_acknowledged_ends(killed: Killed) -> None:
    assert killed.open == []


def test_objects_have_counted_each_addition_once(killed: Killed) -> None:
    assert killed.counts == killed.added


def test_no_step_runs_again_once_the_next_of_its_sequence_has_begun(killed: Killed) -> None:
    sequences = [ran for ran in killed.steps.values() if set(ran) == set(range(STEPS))]
    assert len(sequences) == INVOCATIONS
    assert all(ran == sorted(ran) for ran in sequences)
    assert any(len(ran) > STEPS for ran in sequences)  # some were killed in a step


def test_each_attempt_sees_what_the_longest_saw(killed: Killed) -> None:
    for attempts in killed.seen.values():
        longest = max(attempts.values(), key=len)
        for seen in attempts.values():
            assert seen == longest[: len(seen)]
    assert sum(map(len, killed.seen.values())) > 2 * INVOCATIONS


def test_no_attempt_strays_from_its_journal(killed: Killed) -> None:
    assert [each for each in killed.failures if each.startswith(("[570", "[571"))] == []
