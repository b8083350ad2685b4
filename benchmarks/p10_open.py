"""P10: how long does it take to import perdure in a fresh process, and to open an empty store?

The value is the import, its raw the import of what perdure needs (lmdb, cbor2, msgspec, asyncio)
alone. The store is opened in a fresh process too, first where there is none, then again; raw there
is an LMDB environment with one commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import perdure
from benchmarks._measure import Result, Setting, milliseconds, percentile

GOAL_IMPORT_MS = 80
GOAL_OPEN_MS = 20
ROUNDS = 20

IMPORT = """
import time
begin = time.perf_counter()
import {modules}
print(time.perf_counter() - begin)
"""

OPEN = """
import asyncio, json, sys, time
import lmdb, perdure

async def opened():
    begin = time.perf_counter()
    async with perdure.Engine(sys.argv[1] + "/engine", []):
        return time.perf_counter() - begin

def raw():
    begin = time.perf_counter()
    with lmdb.open(sys.argv[1] + "/raw", map_size=1 << 40) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"key", b"value")
        return time.perf_counter() - begin

print(json.dumps([asyncio.run(opened()), asyncio.run(opened()), raw()]))
"""


def fresh(code: str, *arguments: str) -> str:
    """What *code* prints in a process of its own, which finds the perdure that we found."""
    path = os.pathsep.join([str(Path(perdure.__file__).parents[1]), *sys.path[1:]])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def measure(setting: Setting) -> Result:
    imports: list[float] = []
    dependencies: list[float] = []
    opens: list[list[float]] = []
    for _ in range(setting.size(ROUNDS)):
        imports.append(float(fresh(IMPORT.format(modules="perdure"))))
        dependencies.append(float(fresh(IMPORT.format(modules="asyncio, cbor2, lmdb, msgspec"))))
        with setting.directory() as directory:
            opens.append(json.loads(fresh(OPEN, str(directory))))
    value, raw = percentile(imports, 50) * 1000, percentile(dependencies, 50) * 1000
    made, again, raw_open = (percentile([row[n] for row in opens], 50) * 1000 for n in range(3))
    return Result(
        "P10",
        round(value, 2),
        "ms import p50",
        round(raw, 2),
        round(value / raw, 2),
        f"import <= {GOAL_IMPORT_MS} ms, open <= {GOAL_OPEN_MS} ms",
        value <= GOAL_IMPORT_MS and max(made, again) <= GOAL_OPEN_MS,
        {
            "rounds": len(imports),
            "raw_is": "import of the dependencies alone",
            "import_ms_p99": milliseconds(percentile(imports, 99)),
            "open_new_ms_p50": round(made, 2),
            "open_again_ms_p50": round(again, 2),
            "raw_open_ms_p50": round(raw_open, 2),
            "payload": None,
        },
    )
