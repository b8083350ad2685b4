"""Compiles what setup.py compiles, with every warning on: a remark of a compiler is a failure.

A performance hint of Cython means that a function of the C core takes the GIL, which no test sees.
The C compiler reads what Cython has written, ours and its own; so far it has nothing to say about
either. setup.py does not insist: on a machine with another compiler a remark must not stop an
install.
"""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def remarks_of(*command: str) -> str:
    """What *command* says; also its exit code, where it fails without a word."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    silent_failure = f"{command[0]}: exit code {done.returncode}" if done.returncode else ""
    return done.stdout.strip() or silent_failure


def remarks_on(source: str, scratch: str, directives: dict[str, object]) -> str:
    """What the compilers say about *source*, translated with *directives*."""
    translated = f"{scratch}/{Path(source).stem}.c"
    remarks = remarks_of(
        *(sys.executable, "-m", "cython", "-Wextra", "-I", "src"),
        *(f"-X{name}={value}" for name, value in directives.items()),
        *("-X", "show_performance_hints=True", "-o", translated, source),
    )
    if remarks:
        return remarks
    compiler = shlex.split(os.environ.get("CC") or "cc")
    # Optimised, for uninitialised variables are only found then. Python's own headers are system
    # headers here: what is remarked in them is not for us to mend.
    return remarks_of(
        *(*compiler, "-O2", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Iext/perdure"),
        *("-isystem", sysconfig.get_path("include")),
        *("-c", translated, "-o", f"{translated}.o"),
    )


def main() -> int:
    os.chdir(ROOT)
    setup = runpy.run_path("setup.py")
    modules = [str(Path(types).with_suffix(".py")) for types in setup["TYPES"]]
    sources = {"ext/perdure/_journal.pyx": {}, **dict.fromkeys(modules, setup["DIRECTIVES"])}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        told = list(pool.map(lambda item: remarks_on(item[0], scratch, item[1]), sources.items()))
    for remarks in filter(None, told):
        print(remarks)
    if any(told):
        return 1
    print(f"{len(told)} compiled modules: no warning, no performance hint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
