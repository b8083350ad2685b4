"""What a process that serves, and does nothing else, has: a loop, and signals that stop it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

NEW_OBJECTS: Final = 50_000
"""After which the garbage collector looks at them."""

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def stopper(stop: asyncio.Event, logger: logging.Logger) -> Callable[[signal.Signals], None]:
    """What a signal does: it sets *stop*; a second one ends the process at once."""

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            logger.warning("%s again: ending at once", number.name)
            os._exit(128 + number)
        logger.info("%s: stopping", number.name)
        stop.set()

    return received


def run_alone(main: Coroutine[Any, Any, None]) -> None:  # Any: what it awaits
    """Run *main* in a process that does nothing else."""
    # A request makes some hundred objects, hardly one of them in a cycle. Looking for cycles among
    # each 700 new ones, as Python does by itself, takes a tenth of the processor.
    gc.set_threshold(NEW_OBJECTS, 50, 50)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for this machine
        return None
    return uvloop.new_event_loop
