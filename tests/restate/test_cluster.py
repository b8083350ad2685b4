"""A cluster of three nodes loses one, then all handlers, and nothing that was acknowledged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from cluster_support import HANG_S, HERE, Cluster, Process, answers, cluster, until
from restate_server import free_ports

pytestmark = pytest.mark.long

PERDURE = (sys.executable, "-m", "perdure")
PARCELS = 50
JOURNALLED = ("reserve", "charge", "announce")
CALLS = 24
"""Each goes to some partition. That none goes to one that the lost node led is unlikely."""


class Handlers:
    """The process of the handlers, at an address that stays."""

    def __init__(self, directory: Path, identity_key: str) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._steps = directory / "steps"
        self.process = Process(
            [*PERDURE, "serve", "cluster_handlers:services", "--restate", "--port", str(port)],
            directory / "handlers.log",
            PYTHONPATH=str(HERE),
            STEPS=str(self._steps),
            PERDURE_RESTATE_IDENTITY_KEY=identity_key,
        )

    def lines(self) -> Counter[str]:
        """How often each step has run."""
        return Counter(self._steps.read_text().splitlines())


class Loss(NamedTuple):
    """What was seen when a node was lost, and then the handlers.

    Attributes:
      order: Key of the workflow.
      result: Of the workflow that waited meanwhile.
      attached: The same, as told to who waited for it at another node since before.
      lines: How often each step has run.
      delivered: Results of the parcels that were acknowledged before.
      weighed: Answers of invocations that began when the node was lost.
    """

    order: str
    result: str
    attached: str
    lines: Counter[str]
    delivered: list[str]
    weighed: list[int]


@pytest.fixture(scope="module", params=["Leader", "Follower"])
def loss(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Loss:
    """A node is lost that was this to the workflow's partition, and then the handlers."""
    directory = tmp_path_factory.mktemp("cluster")
    with cluster(directory) as restate:
        handlers = Handlers(directory, restate.identity_key())
        try:
            handlers.process.start()
            _register(restate, handlers)
            return _lose(restate, handlers, request.param)
        finally:
            handlers.process.kill()


def _lose(restate: Cluster, handlers: Handlers, role: str) -> Loss:
    order = "shoes-for-bob"
    with httpx.Client(timeout=HANG_S) as client, ThreadPoolExecutor() as threads:
        first = restate.nodes[0].ingress
        started = _post(client, f"{first}/Order/{order}/run/send", "shoes")["invocationId"]
        until(lambda: bool(_post(client, f"{first}/Order/{order}/is_waiting")), "the promise")
        lost = restate.replica(started, role)
        left = [node for node in restate.nodes if node is not lost]
        attach = f"restate/workflow/Order/{order}/attach"
        waiting = threads.submit(_get, client, f"{left[0].ingress}/{attach}")
        parcels = [
            _post(
                client,
                f"{restate.nodes[number % len(restate.nodes)].ingress}/Parcels/deliver/send",
                f"{order}-{number}",
                {"idempotency-key": f"{order}-{number}"},
            )["invocationId"]
            for number in range(PARCELS)
        ]
        assert handlers.lines()[f"parcel {order}-0"] == 0, "the first is not on its way any more"

        lost.server.kill()
        ingress = left[1].ingress
        weighed = [_post(client, f"{ingress}/Parcels/weigh", number) for number in range(CALLS)]
        handlers.process.kill()
        handlers.process.start()
        _post(client, f"{ingress}/Order/{order}/approve", "Ada")
        result = _get(client, f"{ingress}/{attach}")
        attached = waiting.result(HANG_S)
        delivered = [_get(client, f"{ingress}/restate/invocation/{id}/attach") for id in parcels]
        return Loss(order, result, attached, handlers.lines(), delivered, weighed)


def _register(restate: Cluster, handlers: Handlers) -> None:
    """Tell one node of the handlers, and wait until all know of them."""
    until(lambda: answers(f"{handlers.url}/health"), "the handlers")
    register = ["register", handlers.url, "--admin-url", restate.nodes[0].admin]
    done = subprocess.run([*PERDURE, *register], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{handlers.process.log()}"
    healths = [f"{node.ingress}/restate/health" for node in restate.nodes]
    until(
        lambda: all("Order" in httpx.get(url).json()["services"] for url in healths),
        "handlers that all nodes know of",
    )


def _post(client: httpx.Client, url: str, body: Any = None, headers: Any = None) -> Any:
    content = None if body is None else json.dumps(body)
    given = {"content-type": "application/json"} if content else {}
    answer = client.post(url, content=content, headers={**given, **(headers or {})})
    assert answer.is_success, f"{url}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def _get(client: httpx.Client, url: str) -> Any:
    answer = client.get(url)
    assert answer.is_success, f"{url}: {answer.status_code} {answer.text}"
    return answer.json()


def test_a_workflow_that_waits_completes(loss: Loss) -> None:
    assert loss.result == "shoes, approved by Ada"


def test_who_waits_at_a_node_that_lives_is_answered(loss: Loss) -> None:
    assert loss.attached == "shoes, approved by Ada"


def test_no_journalled_step_runs_again(loss: Loss) -> None:
    assert [loss.lines[f"{loss.order} {step}"] for step in JOURNALLED] == [1, 1, 1]


def test_all_that_was_acknowledged_completes(loss: Loss) -> None:
    assert loss.delivered == [f"{loss.order}-{number}" for number in range(PARCELS)]


def test_new_invocations_are_taken(loss: Loss) -> None:
    assert loss.weighed == [100 * number for number in range(CALLS)]
