"""What a step's function tells by its signature: is it async, and what type has its result?"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from perdure.serde import UNTYPED, Serde, serde_for


class StepTraits(NamedTuple):
    """What is to be known before the step is issued."""

    is_async: bool
    serde: Serde[Any]


def step_traits(fn: Callable[..., Any]) -> StepTraits:
    """Whether *fn* is async, and the type of its result; found once per function."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if isinstance(fn, MethodType):
        fn = fn.__func__
    if isinstance(fn, FunctionType) and "<locals>" not in fn.__qualname__:
        return _traits_of(fn)
    try:
        traits = _short_lived.get(fn)
        if traits is None:
            traits = _short_lived[fn] = _traits_of.__wrapped__(fn)
    except TypeError:  # it can not be hashed, or not be referred to weakly
        traits = _traits_of.__wrapped__(fn)
    return traits


# What a handler makes as it goes: kept alive, it would keep what it has closed over.
_short_lived: WeakKeyDictionary[Callable[..., Any], StepTraits] = WeakKeyDictionary()


@functools.lru_cache(maxsize=1024)
def _traits_of(fn: Callable[..., Any]) -> StepTraits:
    if not inspect.isroutine(fn) and not isinstance(fn, type):
        fn = type(fn).__call__
    try:
        annotation = typing.get_type_hints(fn, include_extras=True).get("return", UNTYPED)
    except (NameError, TypeError, AttributeError, ValueError):
        # A name that only the type checker knows, or a builtin without annotations.
        annotation = UNTYPED
    if annotation is Any or isinstance(annotation, TypeVar):
        annotation = UNTYPED
    return StepTraits(inspect.iscoroutinefunction(fn), serde_for(annotation))
