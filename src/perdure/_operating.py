"""The verbs that act on what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure._binding import bind_key
from perdure._ids import parse_id
from perdure._opened import Opened
from perdure._runtime._keyed import encode_state, replace_state


class Operating(Opened):
    """What operators, and the world outside, do to invocations."""

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on, with a fresh count of attempts; False if it is not paused.

        Raises:
          NotFound: There is none with this id.
        """
        return await self._results.resume(parse_id(invocation_id))

    async def set_state(self, service: type | str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the whole state of a key: names that *state* does not have are cleared.

        Only while no handler may write it: a workflow's ``run`` has not begun or has completed,
        no exclusive handler of an object has the key. Returns when it is durable.

        Args:
          service: The class of a workflow or an object, or its name.
          key: The key.
          state: Values by name, encoded as ``ctx.set`` does; empty: clear all.

        Raises:
          Conflict: An unfinished invocation may write this state.
          InvalidInput: It is no service with keys, *key* is no key, or a name or a value of
            *state* can not be stored.
          NotFound: The service is not registered here.
        """
        scheduler = self._open_scheduler()
        definition, key = bind_key(self._services, service, key)
        rows = encode_state(state)
        await scheduler.room()
        try:
            replace_state(scheduler, definition, key, rows)
        finally:
            await scheduler.answers.committed()
