"""The verbs that give invocations what they wait for."""

from __future__ import annotations

from typing import Any

from perdure import _verbs
from perdure._client._asking import checked_body, path_of, promise_of, reason_of, text_id
from perdure._client._connected import Connected
from perdure._client._replies import check
from perdure._declarations import SignalDeclaration, name_and_serde
from perdure._limits import check_name
from perdure.errors import InvalidInput, TerminalError
from perdure.serde import UNTYPED, serde_for


class Completing(_verbs.Completing, Connected):
    """Promises, awakeables and signals, from another process."""

    async def _signal(
        self, invocation_id: str, name: str | SignalDeclaration[Any], value: Any
    ) -> None:
        owner = getattr(name, "owner", None) or object
        declared, serde = name_and_serde(name, UNTYPED, SignalDeclaration, owner)
        check_name(declared, "signal name")
        response = await self._ingress.ask(
            "POST",
            path_of("perdure", "signals", text_id(invocation_id), declared),
            body=checked_body(serde, value, f"value of signal {declared!r}"),
        )
        check(response)

    async def _resolve(self, promise: Any, value: Any, key: str | None) -> None:
        target = promise_of(promise, key)
        response = await self._ingress.ask(
            "POST",
            path_of("perdure", "promises", target.service, target.key, target.name, "resolve"),
            body=checked_body(target.serde, value, f"value of promise {target.name!r}"),
        )
        check(response)

    async def _reject(
        self, promise: Any, reason: str | TerminalError, key: str | None, code: int
    ) -> None:
        target = promise_of(promise, key)
        body, query = reason_of(reason, code)
        response = await self._ingress.ask(
            "POST",
            path_of("perdure", "promises", target.service, target.key, target.name, "reject"),
            query=query,
            body=body,
        )
        check(response)

    async def resolve_awakeable(self, awakeable_id: str, value: Any = None) -> None:
        """Complete an awakeable with *value*.

        A server says nothing of whether it was completed before: the first completion stands.

        Raises:
          InvalidInput: *awakeable_id* is none, or *value* has no JSON form.
          Unavailable: There was no answer.
        """
        body = checked_body(serde_for(UNTYPED), value, f"value of awakeable {awakeable_id}")
        path = path_of("restate", "awakeables", _awakeable(awakeable_id), "resolve")
        check(await self._ingress.ask("POST", path, body=body, again=True))

    async def reject_awakeable(
        self, awakeable_id: str, reason: str | TerminalError, code: int = 500
    ) -> None:
        """Fail who waits for an awakeable with ``TerminalError(reason, code)``.

        Raises:
          InvalidInput, Unavailable: As :meth:`resolve_awakeable`.
        """
        body, query = reason_of(reason, code)
        path = path_of("restate", "awakeables", _awakeable(awakeable_id), "reject")
        check(await self._ingress.ask("POST", path, query=query, body=body, again=True))


def _awakeable(awakeable_id: Any) -> str:  # Any: what a caller gave.
    if not (isinstance(awakeable_id, str) and awakeable_id):
        raise InvalidInput(f"{awakeable_id!r:.100} is not the id of an awakeable")
    return awakeable_id
