"""The verbs that read: results, listings, and what is known of an invocation or a key."""

from __future__ import annotations

import functools
from typing import Any

from perdure._binding import bind_key
from perdure._ids import parse_id
from perdure._reading import Reading
from perdure._results import decode_output
from perdure._runtime._check import CheckReport, check_unfinished
from perdure._runtime._keyed import PromiseInfo, read_promises, read_state
from perdure.errors import InvalidInput
from perdure.service import ServiceKind


class Inspecting(Reading):
    """Results and introspection."""

    async def attach(self, invocation_id: str, returns: Any = None) -> Any:
        """Wait for the result of an invocation; *returns*: its type, else the handler's own.

        Raises:
          InvalidInput: Its handler is not registered here and *returns* is not given.
          NotFound: There is none with this id, or its result is not kept.
          TerminalError: As the invocation failed.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.wait(raw), serde)

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one now.

        Raises:
          NotReady: It has not completed.
          NotFound, TerminalError: As for :meth:`attach`.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.now(raw), serde)

    async def state(self, service: type | str, key: str) -> dict[str, Any]:
        """The state of a key by name, empty where nothing is set; records are dicts.

        Args:
          service: The class of a workflow or an object, or its name.
          key: The key.

        Raises:
          InvalidInput: It is no service with keys, or *key* is no key.
          NotFound: The service is not registered here.
        """
        definition, key = bind_key(self._services, service, key)
        return await self._results.look(
            functools.partial(read_state, service=definition.name, key=key)
        )

    async def promises(self, workflow: type | str, key: str) -> list[PromiseInfo]:
        """The promises of a workflow's key, by name: those completed, and those waited for.

        A promise that nobody has awaited or completed is known to its handler alone.

        Args:
          workflow: The class, or its name.
          key: The key.

        Raises:
          InvalidInput: It is no workflow, or *key* is no key.
          NotFound: The workflow is not registered here.
        """
        definition, key = bind_key(self._services, workflow, key)
        if definition.kind is not ServiceKind.WORKFLOW:
            raise InvalidInput(f"{definition.name} is no workflow, and has no promises")
        return await self._results.look(
            functools.partial(read_promises, service=definition.name, key=key)
        )

    async def check(self) -> CheckReport:
        """Replay the journal of every unfinished invocation against the code at hand, for nothing.

        Nothing is written or delivered, no step runs, and the invocations in memory are left as
        they are: each is replayed beside them and thrown away. Handlers' code runs, as in every
        replay, up to where its journal ends.

        Raises:
          StoreBroken, StoreClosed: The engine failed, or was closed, before the check ended.
        """
        return await check_unfinished(self._open_scheduler())
