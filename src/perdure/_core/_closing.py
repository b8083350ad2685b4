"""Closing what a handler left suspended, when its invocation leaves memory.

Theory of operation. A suspended task is a chain: a coroutine awaits a coroutine, which iterates an
async generator, and so on down to a future. It is closed from its inner end outwards, link by link:
each is closed until it has ended, and only then the one that awaits it.

Closing the outermost coroutine alone would not do. CPython passes that on to what it awaits, but
where an inner one awaits in its ``finally``, the outer one goes on without it, and an async
generator is not told at all before Python 3.13. Either is then left to the garbage collector, which
runs its clean-up on whatever thread it happens to run.

A link that awaits in its ``finally`` is closed again. So closing ends, as cancelling need not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure._core._frames import STEPS_OF_GENERATORS, awaited_by_opaque, chain_of, frame_of, where
from perdure._core._signals import Halted

CLOSE_ATTEMPTS_MAX = 100
"""Awaits in ``finally`` blocks, nested ones and loops, after which closing is given up."""

_resisting: list[object] = []
"""What could not be closed. Collected, it would run once more, on whatever thread."""


def close_coroutine(coroutine: Any, run: Callable[..., Any]) -> list[str]:
    """Close *coroutine* and all it awaits, each call made by *run*; complaints. It can not hang."""
    complaints: list[str] = []
    for _ in range(CLOSE_ATTEMPTS_MAX):
        innermost = None
        for link in chain_of(coroutine):
            if _is_suspended(link):
                innermost = link
        if innermost is None:
            return complaints
        if type(innermost).__name__ in STEPS_OF_GENERATORS:
            complaint = _attempt(run, innermost.throw, GeneratorExit())
        else:
            complaint = _attempt(run, innermost.close)
        if complaint:
            complaints.append(complaint)
    complaints.append(_resists(coroutine))
    return complaints


def close_generator(generator: Any, run: Callable[..., Any]) -> list[str]:
    """Close an async *generator* that is at a ``yield``; complaints. It can not hang."""
    if generator in _resisting:
        return []  # reported before
    complaints: list[str] = []
    for number in range(CLOSE_ATTEMPTS_MAX):
        if generator.ag_frame is None or generator.ag_running:
            return complaints  # it has ended, or is closed with the task that is in it
        # It answers `aclose` with a value? CPython takes it for closed then, but it is not.
        closing = generator.asend(None) if number else generator.aclose()
        close = closing.throw if number else closing.send
        complaint = _attempt(run, close, GeneratorExit() if number else None)
        if complaint:
            complaints.append(complaint)
        complaints += close_coroutine(closing, run)
    complaints.append(_resists(generator))
    return complaints


def _is_suspended(link: Any) -> bool:
    """Whether closing *link* would still run code of it."""
    name = type(link).__name__
    if name in STEPS_OF_GENERATORS:
        generator = awaited_by_opaque(link)
        return generator.ag_running and generator.ag_frame is not None
    return name in ("coroutine", "generator") and frame_of(link) is not None


def _attempt(run: Callable[..., Any], close: Callable[..., Any], *args: Any) -> str | None:
    """Close once; what went wrong, or None. That it awaited is seen by who asks again."""
    try:
        run(close, *args)
    except (StopIteration, StopAsyncIteration):
        return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:
        if _is_ours(failure):
            return None
        return f"{type(failure).__name__} while being closed: {failure}"
    return None


def _is_ours(failure: BaseException) -> bool:
    """Whether *failure* is only closing itself, coming out at the other end."""
    if isinstance(failure, BaseExceptionGroup):  # as a TaskGroup has it
        return all(_is_ours(error) for error in failure.exceptions)
    if isinstance(failure, RuntimeError):
        return "ignored GeneratorExit" in str(failure)  # it awaited
    # Halted: its `finally` asked for something durable, and that ended it.
    return isinstance(failure, (GeneratorExit, Halted))


def _resists(awaitable: Any) -> str:
    _resisting.append(awaitable)
    return (
        f"swallows GeneratorExit and goes on, {CLOSE_ATTEMPTS_MAX} times over, at "
        f"{where(awaitable)}"
    )
