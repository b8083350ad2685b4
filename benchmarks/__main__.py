"""``python -m benchmarks [P1 P2 …] [--json]``: print a table, or a line of JSON per workload."""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks._measure import Result, Setting
from benchmarks._workloads import WORKLOADS, measure


def results(workloads: list[str], setting: Setting) -> Iterator[Result]:
    # A fresh process each: none finds the memory, the garbage or the imports of another.
    spawn = multiprocessing.get_context("spawn")
    for workload in workloads:
        with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
            yield pool.submit(measure, workload, setting).result()


def as_json(result: Result) -> str:
    row = dataclasses.asdict(result)
    row["config"] = {**row["config"], "goal": row.pop("goal"), "met": row.pop("met")}
    return json.dumps(row)


def as_row(result: Result) -> str:
    met = {True: "met", False: "MISSED", None: ""}[result.met]
    return (
        f"{result.id:<4} {figure(result.value):>9} {result.unit:<14} {figure(result.raw):>10} "
        f"{figure(result.ratio):>7}  {met:<7} {result.goal}"
    )


def figure(value: float | None) -> str:
    """*value* in four digits or more, never in powers of ten."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure perdure, beside raw LMDB in the same run. Stores are made in the "
        "working directory, and removed: the disk that it is on is measured.",
        epilog="workloads: " + ", ".join(f"{id} {name}" for id, name in WORKLOADS.items()),
    )
    parser.add_argument("workloads", nargs="*", metavar="P1", help="which; default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with config")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size: a smoke test")
    options = parser.parse_args()
    wanted = [workload.upper() for workload in options.workloads] or list(WORKLOADS)
    unknown = [workload for workload in wanted if workload not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")

    if not options.json:
        print(f"{'id':<4} {'value':>9} {'unit':<14} {'raw LMDB':>10} {'ratio':>7}  {'':<7} goal")
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=".") as scratch:
        for result in results(wanted, Setting(Path(scratch).resolve(), options.quick)):
            print(as_json(result) if options.json else as_row(result), flush=True)
            if not options.json:
                for name, value in result.config.items():
                    print(f"{'':22}{name} = {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
