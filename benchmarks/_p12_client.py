"""What P12 asks of a Restate server, one request after the other."""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path
from typing import Any

POLL_S = 0.02
PATIENCE_S = 120.0


class Client:
    """One connection to each port of a server."""

    def __init__(self, ingress: int, admin: int) -> None:
        self._ingress = http.client.HTTPConnection("127.0.0.1", ingress, timeout=PATIENCE_S)
        self._admin = http.client.HTTPConnection("127.0.0.1", admin, timeout=PATIENCE_S)

    def close(self) -> None:
        self._ingress.close()
        self._admin.close()

    def call(self, path: str, *body: object) -> Any:
        """POST to the ingress; the answer, of JSON."""
        return _asked(self._ingress, "POST", path, *body)

    def attach(self, workflow: str, key: str) -> Any:
        """The result of a workflow, once it has one."""
        return _asked(self._ingress, "GET", f"/restate/workflow/{workflow}/{key}/attach")

    def until_suspended(self, workflow: str, count: int) -> None:
        """Wait until *count* invocations of *workflow* are suspended."""
        query = (
            "SELECT count(1) AS found FROM sys_invocation "
            f"WHERE target_service_name = '{workflow}' AND status = 'suspended'"
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            (row,) = _asked(self._admin, "POST", "/query", {"query": query})["rows"]
            if row["found"] == count:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"P12: {row['found']} of {count} {workflow} are suspended")
            time.sleep(POLL_S)


def _asked(connection: http.client.HTTPConnection, method: str, path: str, *body: object) -> Any:
    headers = {"accept": "application/json"}
    if body:
        headers["content-type"] = "application/json"
    connection.request(method, path, json.dumps(*body) if body else None, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"P12: {path} has answered {answer.status}: {content!r}")
    return json.loads(content) if content else None


def cpu_s(process: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
