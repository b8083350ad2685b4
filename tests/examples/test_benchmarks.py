"""The command line of the benchmarks, with each workload at a tenth of its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from examples_support import EXAMPLES

import perdure


def benchmarks(
    directory: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m benchmarks`` with its stores in *directory*."""
    source = Path(perdure.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        env={**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{EXAMPLES.parent}", **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("workload", ["P1", "P2", "P6", "P7", "P10"])
def test_a_workload_prints_one_json_object(workload: str, tmp_path: Path) -> None:
    done = benchmarks(tmp_path, workload, "--json", "--quick")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert set(result) == {"id", "value", "unit", "raw", "ratio", "config"}
    assert result["id"] == workload
    assert result["value"] > 0
    assert result["ratio"] == pytest.approx(result["value"] / result["raw"], rel=0.02)
    assert result["config"]["durability"] == "fsync"
    assert list(tmp_path.iterdir()) == []


def test_several_workloads_make_a_table(tmp_path: Path) -> None:
    done = benchmarks(tmp_path, "p2", "P10", "--quick")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert rows == ["id", "P2", "P10"]


def test_an_unknown_workload_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = benchmarks(tmp_path, "P99")
    assert done.returncode == 2
    assert (
        "no workload P99; there are P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12"
        in done.stderr
    )


def test_help_lists_the_workloads(tmp_path: Path) -> None:
    done = benchmarks(tmp_path, "--help")
    assert done.returncode == 0
    assert "P1 p1_concurrent_steps" in " ".join(done.stdout.split())


def test_calls_over_http_are_measured_where_there_is_no_restate_too(tmp_path: Path) -> None:
    nothing = {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}  # no server, no npm
    done = benchmarks(tmp_path, "P8", "--json", "--quick", **nothing)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["value"] > 0
    assert result["ratio"] is None
    assert result["config"]["restate"].startswith("skipped: ")
    assert result["config"]["client_alone_per_s"] > result["value"]
    assert list(tmp_path.iterdir()) == []


def test_the_bridge_to_restate_has_no_figure_where_there_is_no_restate(tmp_path: Path) -> None:
    nothing = {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    done = benchmarks(tmp_path, "P12", "--json", "--quick", **nothing)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["value"] is result["ratio"] is None
    assert result["config"]["restate"].startswith("skipped: ")
