"""``perdure serve --reload``: a process that serves, begun anew when the program changes.

Theory of operation. Python can not take back what it has imported, so each version of a program
has a process of its own. This one watches, and serves nothing. The one that serves is told to stop
as by a supervisor: it drains, and what it had accepted goes on in the next one. It is in a process
group of its own, so that Ctrl-C reaches it once, from here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from watchfiles import Change, PythonFilter, watch

from perdure.cli._failures import Exit

_STOPPED_S: Final = 60.0
"""In which a process that serves has drained: longer than any of its own deadlines."""

_LOOK_MS: Final = 300
"""How often it is looked whether the process that serves has ended by itself."""


def serve_and_reload(arguments: list[str], folder: Path) -> int:
    """Run ``perdure`` with *arguments*, anew whenever a ``.py`` file below *folder* changes.

    A process that ends by itself, for its code is wrong say, is begun again at the next change.

    Returns:
      The exit code: that of the first process where it can not listen or open its directory.
    """
    served = _Served(arguments)
    with _signals_go_to(served) as stop:
        changes = watch(
            folder,
            watch_filter=PythonFilter(),
            stop_event=stop,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        served.start()
        is_first, told = True, False
        for changed in changes:
            code = served.poll()
            if changed:
                is_first = False
                _say(f"{_names(changed, folder)} changed: starting anew")
                served.stop()
                if stop.is_set():
                    return Exit.OK
                served.start()
                told = False
            elif code is not None and is_first and code in (Exit.USAGE, Exit.UNREACHABLE):
                return code
            elif code is not None and not told:
                _say("the server has ended: it starts again when a file changes")
                told = True
        code = served.stop()
        # Told before it could listen to signals, it has ended as it should all the same.
        return Exit.OK if code == -signal.SIGTERM else code


class _Served:
    """The process that serves at the moment."""

    def __init__(self, arguments: list[str]) -> None:
        self._command = [sys.executable, "-m", "perdure", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, process_group=0)

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        assert self._process is not None
        return self._process.poll()

    def signal(self) -> None:
        """Tell it to stop; told twice, it stops at once."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> int:
        """Have it drain; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(_STOPPED_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@contextlib.contextmanager
def _signals_go_to(served: _Served) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; from the second one on, they are passed on."""
    stop = threading.Event()

    def received(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            served.signal()
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, received) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _names(changed: set[tuple[Change, str]], folder: Path) -> str:
    names = sorted({os.path.relpath(path, folder) for _, path in changed})
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _say(text: str) -> None:
    print(f"perdure: {text}", file=sys.stderr, flush=True)
