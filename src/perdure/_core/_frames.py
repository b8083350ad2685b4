"""Frames of coroutines, for people: where a handler waits, and which line issued a command."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from types import FrameType
from typing import Any

_PLUMBING = ("perdure", "asyncio", "anyio")

_FRAMES = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))

# What `__anext__()`, `asend()`, `athrow()` and `aclose()` of an async generator return.
STEPS_OF_GENERATORS = frozenset({"async_generator_asend", "async_generator_athrow"})
# Awaitables that CPython makes and that do not show what they wait for.
_OPAQUE = STEPS_OF_GENERATORS | {"anext_awaitable", "coroutine_wrapper"}
_SHOWN = frozenset({"coroutine", "generator", "async_generator"})


def chain_of(awaitable: Any) -> Iterator[Any]:
    """*awaitable*, what it awaits, and so on inwards, as far as that can be seen."""
    while awaitable is not None:
        yield awaitable
        if type(awaitable).__name__ in _OPAQUE:
            awaitable = awaited_by_opaque(awaitable)
            continue
        for frame, awaited in _FRAMES:
            if getattr(awaitable, frame, None) is not None:
                awaitable = getattr(awaitable, awaited)
                break
        else:
            return


def awaited_by_opaque(awaitable: Any) -> Any:
    # In the order in which the type visits them: what it waits for comes before any value.
    for referent in gc.get_referents(awaitable):
        if type(referent).__name__ in _SHOWN or type(referent).__name__ in _OPAQUE:
            return referent
    return None


def frame_of(awaitable: Any) -> FrameType | None:
    """The frame of a coroutine or generator that has not ended."""
    for attribute, _ in _FRAMES:
        frame: FrameType | None = getattr(awaitable, attribute, None)
        if frame is not None:
            return frame
    return None


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
