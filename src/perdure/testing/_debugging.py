"""A debugger in a past run: it stops where a recorded invocation's handler begins."""

from __future__ import annotations

import inspect
import pdb  # noqa: T100 - it is what this module is for
import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any

from perdure._binding import register
from perdure._history import History
from perdure._runtime._registry import Registry
from perdure.retry import DEFAULT_RETRY
from perdure.testing._replaying import ReplayReport, replay

# Any, in this module: services are instances of whatever classes.


def debug(history: History, services: Iterable[Any]) -> ReplayReport:
    """As :func:`replay`, under ``pdb``, which first stops in the first line of each handler.

    Raises:
      bdb.BdbQuit: The user has quit.
    """
    services = list(services)
    debugger = pdb.Pdb(skip=["perdure.*", "asyncio.*"])
    for code in _codes(history, services):
        # With the name of the function, it stops at the first line of its body.
        debugger.set_break(code.co_filename, code.co_firstlineno, funcname=code.co_name)

    # Not by its runcall, which begins with a stop in here, and tells nobody that the user has quit.
    debugger.reset()
    debugger.botframe = sys._getframe()
    debugger.set_continue()
    outer = sys.gettrace()
    sys.settrace(debugger.trace_dispatch)
    try:
        return replay(history, services)
    finally:
        sys.settrace(outer)


def _codes(history: History, services: list[Any]) -> set[CodeType]:
    """The code of the handlers that a replay will run."""
    registry = Registry(register(services), DEFAULT_RETRY)
    records = [each.record() for each in history.invocations]
    functions = [
        inspect.unwrap(registry.handler(record).function)
        for record in records
        if registry.is_registered(record)
    ]
    return {function.__code__ for function in functions}
