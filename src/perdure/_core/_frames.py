"""Frames of coroutines, for people: where a handler waits, and which line issued a command."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any

from perdure._core._closing import chain_of, frame_of

_PLUMBING = ("perdure", "asyncio", "anyio")


def await_stack(awaitable: Any) -> list[FrameType]:
    """Frames from the outermost coroutine to the one that waits, innermost last."""
    return [frame for link in chain_of(awaitable) if (frame := frame_of(link)) is not None]


def is_plumbing(frame: FrameType) -> bool:
    """Whether *frame* belongs to perdure or an async library rather than to the user."""
    name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _PLUMBING


def where(awaitable: Any) -> str:
    """The user's line at which *awaitable* waits: ``file:line in function``."""
    frames = await_stack(awaitable)
    for frame in reversed(frames):
        # Compiled code of ours has frames without a line, and without globals to tell it by.
        if frame.f_lineno is not None and not is_plumbing(frame):
            return describe_frame(frame)
    return describe_frame(frames[-1]) if frames else "an unknown place"


def describe_frame(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def is_coroutine(value: object) -> bool:
    """Whether a task can drive *value*; generators decorated by types.coroutine count."""
    return inspect.iscoroutine(value) or (
        inspect.isgenerator(value) and bool(value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    )
