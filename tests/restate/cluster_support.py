"""A cluster of Restate on loopback, configured as docs/how-to/run-a-restate-cluster.md says.

The file of the page is taken as it stands. What differs where three nodes share a machine, ports
and directories, is said by flags and variables, which count more than the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from npm_packages import node_modules
from restate_server import free_ports, server_binary

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "run-a-restate-cluster.md"
HERE = Path(__file__).parent
CTL = "@restatedev/restatectl-linux-x64"
NODES = 3
PARTITIONS = 24
REPLICAS = 2
HANG_S = 60.0


class Process:
    """A program that is killed, and started again, as a test wants it."""

    def __init__(self, command: list[Any], log: Path, **environment: str) -> None:
        self._command = command
        self._log = log
        self._environment = {**os.environ, **environment}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._running = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._environment
            )

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def lives(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")


class Node(NamedTuple):
    """URLs, and the server that they lead to."""

    name: str
    fabric: str
    admin: str
    ingress: str
    server: Process


class Cluster:
    """Three nodes that are one."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._ctl = node_modules(HERE / "restatectl") / CTL / "bin" / "restatectl"

    def provision(self) -> None:
        """Make the nodes one cluster, once."""
        until(
            lambda: all(answers(f"{node.fabric}/metrics") for node in self.nodes),
            "servers that can be told what they are",
        )
        # It ends with 0 also where it fails.
        until(lambda: "successfully" in self._say("provision", "--yes"), "provisioning")

    def wait_until_whole(self) -> None:
        """Wait until each partition has a leader and a follower."""
        alive = "select name from nodes where state = 'alive'"
        active = "select 1 from partition_state where replay_status = 'active'"
        until(
            lambda: (
                len(self.rows(alive)) == NODES and len(self.rows(active)) == PARTITIONS * REPLICAS
            ),
            "a cluster that is whole",
        )
        until(
            lambda: all(answers(f"{node.ingress}/restate/health") for node in self.nodes),
            "the ingress of each node",
        )

    def identity_key(self) -> str:
        """The public half of the key that requests to handlers are signed with."""
        (key,) = set(re.findall(r"publickeyv1_\w+", self.nodes[0].server.log()))
        return str(key)

    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.server.lives()]

    def replica(self, invocation_id: str, mode: str) -> Node:
        """The node that has the partition of an invocation as its *mode*: Leader or Follower."""
        asked = f"select partition_key from sys_invocation_status where id = '{invocation_id}'"
        (invocation,) = httpx.post(
            f"{self.living()[0].admin}/query",
            json={"query": asked},
            headers={"accept": "application/json"},
        ).json()["rows"]
        key = invocation["partition_key"]
        (found,) = self.rows(
            "select n.name from partitions p"
            " join partition_state s on s.partition_id = p.partition_id"
            " join nodes n on n.plain_node_id = s.plain_node_id"
            f" where p.start_key <= {key} and {key} <= p.end_key and s.effective_mode = '{mode}'"
        )
        (node,) = (each for each in self.nodes if each.name == found["name"])
        return node

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What the nodes that live know of the cluster; none while they do not agree on it."""
        found: list[dict[str, Any]] = json.loads(self._say("sql", "--json", query) or "[]")
        return found

    def _say(self, *words: str) -> str:
        command = [str(self._ctl), "--address", self.living()[-1].fabric, *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=HANG_S
        ).stdout


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster that is whole, with its data in *directory*."""
    binary = server_binary()
    config, identity = directory / "restate.toml", directory / "identity.pem"
    config.write_text(_configuration())
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", identity], check=True)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3 * NODES)]
    fabrics, admins, ingresses = (addresses[kind::3] for kind in range(3))
    shared = {
        "RESTATE_METADATA_CLIENT__ADDRESSES": json.dumps([f"http://{each}/" for each in fabrics]),
        "RESTATE_WORKER__INVOKER__REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE": str(identity),
    }
    nodes: list[Node] = []
    for fabric, admin, ingress in zip(fabrics, admins, ingresses, strict=True):
        name = f"n{len(nodes) + 1}"
        command = [binary, "--no-logo", "--config-file", config, "--base-dir", directory / name]
        command += ["--node-name", name, "--bind-address", fabric]
        command += ["--advertised-address", f"http://{fabric}/"]
        ports = {"RESTATE_ADMIN__BIND_ADDRESS": admin, "RESTATE_INGRESS__BIND_ADDRESS": ingress}
        server = Process(command, directory / f"{name}.log", **shared, **ports)
        nodes.append(Node(name, f"http://{fabric}", f"http://{admin}", f"http://{ingress}", server))
    try:
        for node in nodes:
            node.server.start()
        made = Cluster(nodes)
        made.provision()
        made.wait_until_whole()
        yield made
    finally:
        for node in nodes:
            node.server.kill()


def _configuration() -> str:
    """The file that the page shows."""
    (block,) = re.findall(
        r"^```toml\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return str(block)


def answers(url: str) -> bool:
    """Whether somebody is there."""
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def until(condition: Callable[[], bool], what: str) -> None:
    """Ask until *condition* holds, or HANG_S are over."""
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.05)
