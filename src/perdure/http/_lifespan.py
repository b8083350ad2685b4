"""An app served by itself opens its engine, and closes what it has opened."""

from __future__ import annotations

from perdure.engine import Engine
from perdure.http._requests import Receive, Send


async def lifespan(engine: Engine, receive: Receive, send: Send) -> None:
    """Open *engine* at startup, unless it is open, and close it at shutdown, if this opened it."""
    await receive()
    opened = not engine.is_open
    try:
        if opened:
            await engine.open()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        if opened:
            await engine.close()
    except Exception as error:
        await send({"type": "lifespan.shutdown.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})
