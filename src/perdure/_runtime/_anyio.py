"""Where anyio orders by memory address: the cancel scopes inside a cancelled scope.

A scope keeps those within it, one for each task of a task group, in a set, and cancels them in the
order of that set. Scopes hash by address, so the order of what a handler's tasks then do would
differ from process to process. A scope that belongs to a handler gets a number as its hash, as the
loop's tasks have one; everyone else's scopes hash as before.

anyio imports its backend only when it is first used, perhaps inside a handler. So this waits for
the import, and imports nothing itself.
"""

from __future__ import annotations

import sys
import weakref
from asyncio import _get_running_loop as get_running_loop
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from perdure._core._loop import DeterministicLoop

_BACKEND = "anyio._backends._asyncio"


# Numbers of the scopes of handlers, by id: scopes have slots, and no room for one more.
_numbers: dict[int, tuple[weakref.ref[Any], int]] = {}


def _hash_of_scope(scope: Any) -> int:  # Any: anyio is not a dependency.
    key = id(scope)
    numbered = _numbers.get(key)
    if numbered is not None:
        return numbered[1]
    loop = get_running_loop()
    if not isinstance(loop, DeterministicLoop):
        return object.__hash__(scope)
    number = loop.queue.next_number()
    _numbers[key] = weakref.ref(scope, lambda _: _numbers.pop(key, None)), number
    return number


def _mend(backend: ModuleType) -> None:
    backend.CancelScope.__hash__ = _hash_of_scope


class _BackendFinder:
    """Finds anyio's backend as ever, and has it mended once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _BACKEND:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _mend(module)

            loader.exec_module = exec_module
        return spec


def install() -> None:
    """Mend anyio's backend, now or once it is imported; once more does no harm."""
    backend = sys.modules.get(_BACKEND)
    if backend is not None:
        _mend(backend)
    elif not any(isinstance(finder, _BackendFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BackendFinder())
