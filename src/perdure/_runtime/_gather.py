"""Where asyncio orders by memory address and the deterministic loop cannot reach, this does.

Two places in ``asyncio.tasks`` keep things that no loop makes in a set, so that their order, and
with it the order of the commands of a handler, would differ from process to process:

- ``gather`` returns a future of its own class. ``wait({gather(…), gather(…)})``, and any set of a
  user's, orders them by hash.
- ``as_completed`` starts the coroutines it is given in the order of ``set(coroutines)``.

Both are mended for callers that run on a deterministic loop; everyone else sees no difference. It
is done inside ``asyncio.tasks``, because programs import these functions by name before perdure.
"""

from __future__ import annotations

import asyncio.tasks
import builtins
from asyncio import _get_running_loop as get_running_loop
from collections.abc import Collection, Hashable, Iterable
from typing import Any

from perdure._core._loop import DeterministicLoop


def _hash_of_gathering(future: Any) -> int:  # Any: asyncio's class is private.
    number: int | None = getattr(future, "_perdure_number", None)
    if number is None:
        loop = future.get_loop()
        if not isinstance(loop, DeterministicLoop):
            return object.__hash__(future)
        # Numbered when first asked for: also a moment that every replay repeats.
        number = loop.queue.next_number()
        future._perdure_number = number
    return number


def _set_in_order(items: Iterable[Hashable] = ()) -> Collection[Hashable]:
    if not isinstance(get_running_loop(), DeterministicLoop):
        return builtins.set(items)
    # A dict, which asyncio only measures and iterates, unless a set is to be filled.
    return dict.fromkeys(items) or builtins.set()


def install() -> None:
    """Mend ``asyncio.tasks``; once more does no harm."""
    asyncio.tasks._GatheringFuture.__hash__ = _hash_of_gathering  # type: ignore[attr-defined]
    asyncio.tasks.set = _set_in_order  # type: ignore[attr-defined]
