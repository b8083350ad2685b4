"""Restate's client for TypeScript, as it comes from npm: typescript/program.ts uses all of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place
from http_support import Greeter, wire
from loopback import served
from npm_packages import node_modules
from starlette.applications import Starlette
from starlette.routing import Mount

from perdure import Engine
from perdure._store import _store
from perdure.http import ingress

FOLDER = Path(__file__).parent / "typescript"
HANG_S = 60.0


def compiled(place: Path) -> Path:
    """program.ts, its types checked, as JavaScript beside the packages that it imports."""
    packages = node_modules(FOLDER)
    place.mkdir()
    for name in ("program.ts", "tsconfig.json", "package.json"):
        shutil.copy(FOLDER / name, place)
    (place / "node_modules").symlink_to(packages)
    compiler = ["node", str(packages / "typescript" / "bin" / "tsc"), "-p", str(place)]
    done = subprocess.run(compiler, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return place / "built" / "program.js"


async def what_the_program_sees(program: Path, *urls: str) -> dict[str, Any]:
    """What each of the client's calls gives."""
    process = await asyncio.create_subprocess_exec(
        "node", program, *urls, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        printed, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seen = dict(json.loads(line) for line in printed.decode().splitlines())
    assert process.returncode == 0, (errors.decode(), seen)
    return seen


@contextlib.asynccontextmanager
async def not_ready_at_first(place: Place) -> AsyncIterator[Starlette]:
    """Two engines that refuse the first request: /closed is not open, /busy has its disk behind."""
    asked: dict[str, int] = {"closed": 0, "busy": 0}
    closed = Engine(place.path.parent / "closed", [Greeter()], durability="os")
    busy = Engine(place.path.parent / "busy", [Greeter()], durability="os")
    patched = pytest.MonkeyPatch()

    def refusing_once(name: str, engine: Engine) -> Any:
        app = ingress(engine)

        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            asked[name] += 1
            if name == "busy" and asked[name] == 1:
                patched.setattr(_store, "UNCOMMITTED_BYTES_MAX", -1)
            await app(scope, receive, send)
            patched.undo()
            if not closed.is_open:
                await closed.open()

        return Mount(f"/{name}", refuse)

    async with busy:
        yield Starlette(
            routes=[refusing_once("closed", closed), refusing_once("busy", busy)],
        )
        await closed.close()
    assert asked == {"closed": 2, "busy": 2}


def failed(status: int, message: str, source: str = "invocation", **more: Any) -> dict[str, Any]:
    return {"status": status, "code": status, "message": message, "source": source, **more}


SEEN: dict[str, Any] = {
    "service": "hi Bob",
    "no result": None,
    "no argument": "noargs",
    "record": {"name": "tea", "price": 3.0, "due": None},
    "terminal error": failed(418, "my msg", metadata={"k": "v"}),
    "error without code": failed(500, "my msg"),
    "header": "1",
    "bytes": [99, 98, 97],
    "timeout": "TimeoutError",
    "call": "hi Al",
    "nobody": failed(
        404,
        "service 'Nope' not found, make sure to register the service before calling it.",
        "ingress",
    ),
    "no handler": failed(
        404,
        "the service 'Greeter' exists, but the handler 'nope' was not found, check that the "
        "handler exists in the latest registered service version.",
        "ingress",
    ),
    "object": 5,
    "idempotent 1": 6,
    "idempotent 2": 6,
    "shared": 6,
    "sent": ["Accepted", True],
    "sent again": ["PreviouslyAccepted", True],
    "result": 16,
    "delayed": "hi late",
    "scheduled": ["Accepted", False],
    "send": 3,
    "never started": failed(404, "not found"),
    "output of never started": failed(404, "invocation not found", "ingress"),
    "peek": None,
    "submitted": ["Accepted", True],
    "submitted again": ["PreviouslyAccepted", True],
    "not ready": False,
    "approve": "resolved",
    "approved twice": failed(409, "promise was already completed"),
    "attached": "A:yes",
    "attached by submission": "A:yes",
    "ready": [True, "A:yes"],
    "refused": failed(499, "no way"),
    "resolved": "hello",
    "resolved twice": None,
    "rejected": failed(500, "very bad"),
    "no awakeable": failed(400, "bad awakeable id 'foo': bad format", "ingress"),
}
"""On Restate too."""

RETRIED = {
    "closed, with patience": "hi Bob",
    "busy, with patience": "hi Bob",
    "attempts at both": 4,
    "failed for good": failed(503, "my msg", metadata={"k": "v"}),
    "attempts at that": 1,
}


@pytest.mark.slow
def test_the_client_works_as_it_comes(tmp_path: Path, resident_place: Place) -> None:
    program = compiled(tmp_path / "typescript")

    async def main() -> dict[str, Any]:
        async with (
            asyncio.timeout(HANG_S),
            not_ready_at_first(resident_place) as late,
            wire(resident_place) as on,
            served(ingress(on.engine)) as url,
            served(late) as late_url,
        ):
            return await what_the_program_sees(program, url, late_url)

    assert asyncio.run(main()) == {**SEEN, **RETRIED}
