"""No complaints about coroutines that eviction keeps from being awaited.

A handler holds coroutines that it will await later, or makes some in its ``finally``:
``await gather(a(), b())``. Evicted, it drops them, and CPython would warn of each that it "was
never awaited", although the handler's code is right. So no warning is issued while a loop is being
closed. Everyone else's are: ``warnings`` itself is asked by the interpreter, whoever drops one.
"""

from __future__ import annotations

import warnings
from asyncio import _get_running_loop as get_running_loop
from collections.abc import Coroutine
from typing import Any

from perdure._core._loop import DeterministicLoop

_warn = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]


def _warn_unless_closing(coroutine: Coroutine[Any, Any, Any]) -> None:
    loop = get_running_loop()
    if not (isinstance(loop, DeterministicLoop) and loop.closing):
        _warn(coroutine)


def install() -> None:
    """Have no such warnings issued; once more does no harm."""
    warnings._warn_unawaited_coroutine = _warn_unless_closing  # type: ignore[attr-defined]
