"""Requests made from the OpenAPI documents are answered as these say, and never with a 5xx.

Left out of schemathesis's checks:

- ``positive_data_acceptance``: limits of keys are in bytes, and durations and ids have no schema.
- ``allow_header_conformance`` on the ingress: a GET of a handler that needs an argument is not in
  the document, for it has no body, and is allowed as on Restate's. Nor is it tried as a method
  that there is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import uvicorn
from engine_support import HANG_S, QUICK
from openapi_support import Basket, Leaf, Shop, Till, Visit

import perdure
from perdure import Engine
from perdure.http import admin, ingress

DOCUMENTS: Final = {"ingress": "/perdure/openapi", "admin": "/openapi"}
CHECKS_LEFT_OUT: Final = {
    "ingress": "positive_data_acceptance,allow_header_conformance",
    "admin": "positive_data_acceptance",
}
METHODS_NOT_THERE: Final = {
    "ingress": ["PUT", "DELETE", "PATCH", "TRACE", "QUERY"],
    "admin": ["PUT", "POST", "DELETE", "TRACE", "QUERY"],
}


@dataclass
class Server:
    """Both apps over one engine, each on a port of its own.

    Attributes:
      ids: Of invocations that there are.
      errors: What was logged as one.
    """

    service: perdure.Service
    urls: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    servers: list[uvicorn.Server] = field(default_factory=list)

    async def serve(self, path: Path) -> None:
        services = [self.service, Basket(), Visit()]
        async with Engine(path, services, durability="os", default_retry=QUICK) as engine:
            for number in range(3):
                await engine.call(Till.nothing if type(self.service) is Till else Shop.nothing)
                self.ids.append((await engine.send("Basket.put", "pear", key=str(number))).id)
                await engine.submit("Visit.run", Leaf(name="leaf"), key=str(number))
            apps = {"ingress": ingress(engine), "admin": admin(engine)}
            serving = [self._serve(name, app) for name, app in apps.items()]
            self.ready.set()
            await asyncio.gather(*serving)

    def _serve(self, name: str, app: Any) -> Coroutine[Any, Any, None]:
        # asyncio sends at once, without Nagle's delay, where the socket's protocol is named.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        self.urls[name] = "http://{}:{}".format(*listening.getsockname())
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
        self.servers.append(uvicorn.Server(config))
        return self.servers[-1].serve([listening])

    def emit(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())
        return False


@contextlib.contextmanager
def serving(service: perdure.Service, folder: Path) -> Iterator[Server]:
    """Both apps of an engine with *service* and others, in a thread."""
    server = Server(service)
    logger = logging.getLogger("perdure.http")
    logger.addFilter(server.emit)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(folder / "data")))
    thread.start()
    try:
        assert server.ready.wait(HANG_S)
        yield server
    finally:
        for each in server.servers:
            each.should_exit = True
        thread.join(HANG_S)
        logger.removeFilter(server.emit)
    assert not thread.is_alive()


def document_of(server: Server, app: str) -> dict[str, Any]:
    """The document as it is tried.

    ``default`` stands for the statuses that handlers choose. None does here: what is not named is
    wrong. A result of any sort, ``*/*``, may be none, which no document can say. And that more
    than a 404 is seen, names and ids are those that there are.
    """
    document: dict[str, Any] = httpx.get(server.urls[app] + DOCUMENTS[app]).json()
    there = {
        "service": [type(server.service).__name__, "Basket", "Visit"],
        "workflow": ["Visit"],
        "id": server.ids,
        "invocation_id": server.ids,
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("default", None)
            if "*/*" in responses["200" if "200" in responses else "202"].get("content", {}):
                del responses["200"]["content"]
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in there:
                    parameter["schema"] = {"enum": there[parameter["name"]]}
    return document


def check(service: perdure.Service, app: str, folder: Path, examples: int, phases: str) -> None:
    with serving(service, folder) as server:
        check_served(server, app, folder, examples, phases)
        assert server.errors == []


def check_served(server: Server, app: str, folder: Path, examples: int, phases: str) -> None:
    document = document_of(server, app)
    (folder / "openapi.json").write_text(json.dumps(document), "utf-8")
    methods = json.dumps(METHODS_NOT_THERE[app])
    (folder / "schemathesis.toml").write_text(
        f"[phases.coverage]\nunexpected-methods = {methods}\n", "utf-8"
    )
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", "openapi.json"),
        *("--url", server.urls[app], "--phases", phases, "--max-examples", str(examples)),
        *("--exclude-checks", CHECKS_LEFT_OUT[app], "--generation-database", "none"),
        *("--seed", "1", "--request-timeout", str(HANG_S), "--continue-on-failure"),
        *("--warnings", "off", "--no-color"),
    ]
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONDEVMODE": "", "PYTHONASYNCIODEBUG": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    operations = sum(len(each) for each in document["paths"].values())
    assert re.search(rf"Tested: +{operations}\b", run.stdout), run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("app", DOCUMENTS)
def test_what_is_answered_is_what_the_document_says(app: str, tmp_path: Path) -> None:
    check(Till(), app, tmp_path, 1, "coverage,fuzzing")


@pytest.mark.long
@pytest.mark.parametrize("app", DOCUMENTS)
def test_much_of_what_is_answered_is_what_the_document_says(app: str, tmp_path: Path) -> None:
    check(Shop(), app, tmp_path, 20, "examples,coverage,fuzzing,stateful")
