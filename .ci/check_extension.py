"""Compiles ext/ with every warning on: what Cython or the C compiler remarks is a failure.

A performance hint of Cython means that a function of the C core takes the GIL, which no test sees.
setup.py does not insist: on a machine with another compiler a remark must not stop an install.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

EXT = Path(__file__).resolve().parents[1] / "ext" / "perdure"


def remarks_of(*command: str) -> str:
    """What *command* says; also its exit code, where it fails without a word."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    silent_failure = f"{command[0]}: exit code {done.returncode}" if done.returncode else ""
    return done.stdout.strip() or silent_failure


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        translated = f"{scratch}/_journal.c"
        remarks = remarks_of(
            *(sys.executable, "-m", "cython", "-Wextra", "-X", "show_performance_hints=True"),
            *("-o", translated, str(EXT / "_journal.pyx")),
        )
        if not remarks:
            compiler = shlex.split(os.environ.get("CC") or "cc")
            # Optimised, for uninitialised variables are only found then. Python's own headers are
            # system headers here: what is remarked in them is not for us to mend.
            remarks = remarks_of(
                *(*compiler, "-O2", "-fno-strict-aliasing", "-Wall", "-Wextra", f"-I{EXT}"),
                *("-isystem", sysconfig.get_path("include")),
                *("-c", translated, "-o", f"{scratch}/_journal.o"),
            )
    if remarks:
        print(remarks)
        return 1
    print("ext: no warning, no performance hint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
