"""A process with too few descriptors, or too little memory: clear errors, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults_support import HERE, run_child, succeeded

if sys.platform != "linux":
    pytest.skip("limits, and /proc to see them by", allow_module_level=True)


def test_an_opening_that_runs_out_of_descriptors_says_so_whichever_it_lacks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data"
    child = run_child("limited_children:open_with_ever_more_descriptors", path)
    said = json.loads(succeeded(child))
    assert len(said) > 3
    for failure in said:
        assert str(path) in failure
        assert os.strerror(errno.EMFILE) in failure
        assert "allow more (ulimit -n)" in failure


def test_commits_need_no_further_descriptor_and_a_step_that_does_is_tried_again(
    tmp_path: Path,
) -> None:
    child = run_child("limited_children:run_out_of_descriptors", tmp_path / "data")
    assert "Too many open files: '/dev/null'" in succeeded(child)


REQUEST = (
    b"POST /Greeter/greet HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b'content-length: 3\r\n\r\n"x"'
)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(REQUEST)
    connection.settimeout(10)
    return connection.recv(65536)


def test_a_server_with_few_descriptors_refuses_who_is_too_many_and_serves_the_others(
    tmp_path: Path,
) -> None:
    http = HERE.parent / "http"
    shell = shutil.which("sh") or "sh"
    serve = f'ulimit -n 64 && exec "{sys.executable}" "{http / "serving.py"}" "$0" "{{}}"'
    paths = os.pathsep.join(map(str, (http, HERE.parent / "engine")))
    with subprocess.Popen(
        [shell, "-c", serve, str(tmp_path / "data")],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            log = ""
            while not (found := re.search(r"ingress .*http://127\.0\.0\.1:(\d+)", log)):
                line = server.stderr.readline()
                assert line, log
                log += line
            assert "it takes 32 connections, not 16000; see `ulimit -n`" in log
            address = "127.0.0.1", int(found[1])
            taken = [socket.create_connection(address) for _ in range(100)]
            answers = [ask(connection)[:12] for connection in taken[:20]]
            assert answers == [b"HTTP/1.1 200"] * 20
            refused, _, _ = select.select(taken[40:], [], [], 10)
            assert refused
            assert refused[0].recv(12) == b"HTTP/1.1 503"
            for connection in taken[20:]:
                connection.close()
            assert ask(taken[0])[:12] == b"HTTP/1.1 200"
            while True:  # until the server has seen them go
                with socket.create_connection(address) as connection:
                    if ask(connection)[:12] == b"HTTP/1.1 200":
                        break
            for connection in taken:
                connection.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=20)
    assert server.returncode == 0


def test_a_map_larger_than_the_address_space_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "data"
    said = succeeded(run_child("limited_children:open_a_large_map", path))
    assert said == (
        f"cannot open {path}: Cannot allocate memory (code 12): allow the process more memory or "
        "address space (ulimit -v), or lower map_size=\n"
    )


def test_a_map_that_can_not_grow_breaks_the_store_and_reopening_recovers(tmp_path: Path) -> None:
    path = tmp_path / "data"
    said, acknowledged = succeeded(run_child("limited_children:outgrow_the_map", path)).splitlines()
    assert said.startswith(f"StoreBroken: {path}: the commit after unit ")
    assert "Cannot allocate memory (code 12): allow the process more memory or address" in said
    assert int(acknowledged) > 10


@pytest.mark.long
def test_what_wants_too_much_memory_fails_alone(tmp_path: Path) -> None:
    child = run_child("limited_children:run_out_of_memory", tmp_path / "data")
    said = json.loads(succeeded(child))
    for where in ("handler", "step", "async step"):
        assert said[where][0] == "paused"
        assert "MemoryError" in said[where][1]
