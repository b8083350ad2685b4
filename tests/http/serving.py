"""A server as a program of its own: ``serving.py DATA OPTIONS``, the options in JSON.

``file_bytes``: no file of it may be longer; a commit that would make one so fails.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from http_support import Greeter, Signup

import perdure
from perdure.http._limits import Limits
from perdure.http._server import run


class Slow(perdure.Service):
    """Runs a step that says in the data directory when it begins and ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @perdure.handler
    async def work(self, ctx: perdure.Context, seconds: float) -> str:
        return await ctx.run("work", self._work, seconds)

    async def _work(self, seconds: float) -> str:
        self.path.with_suffix(".began").touch()
        await asyncio.sleep(seconds)
        self.path.with_suffix(".ended").touch()
        return "done"

    @perdure.handler
    async def log(self, ctx: perdure.Context) -> None:
        ctx.log.warning("two\nlines")
        logging.getLogger("perdure.tests").error("failed", exc_info=ValueError("odd"))


def main() -> int:
    path = Path(sys.argv[1])
    options: dict[str, Any] = json.loads(sys.argv[2])
    engine = perdure.Engine(
        path, [Greeter(), Signup(), Slow(path)], durability="os", map_size=1 << 30
    )
    file_bytes = options.pop("file_bytes", None)
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if "limits" in options:
        options["limits"] = Limits(**options["limits"])
    options = {"port": 0, "admin_port": 0, **options}
    return run(engine, **options)


if __name__ == "__main__":
    sys.exit(main())
