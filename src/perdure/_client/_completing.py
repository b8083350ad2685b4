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
        checked, body = (
            text_id(invocation_id),
            checked_body(serde, value, f"value of signal {declared!r}"),
        )
        await (await self._at_ingress()).signal(checked, declared, body)

    async def _resolve(self, promise: Any, value: Any, key: str | None) -> None:
        target = promise_of(promise, key)
        body = checked_body(target.serde, value, f"value of promise {target.name!r}")
        await (await self._at_ingress()).complete("resolve", target, body, {})

    async def _reject(
        self, promise: Any, reason: str | TerminalError, key: str | None, code: int
    ) -> None:
        target = promise_of(promise, key)
        body, query = reason_of(reason, code)
        await (await self._at_ingress()).complete("reject", target, body, query)

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
          NotSupportedOnRestate: At a Restate server, with another code than 500.
        """
        body, query = reason_of(reason, code)
        checked = _awakeable(awakeable_id)
        await (await self._at_ingress()).reject_awakeable(checked, body, query)


def _awakeable(awakeable_id: Any) -> str:  # Any: what a caller gave.
    if not (isinstance(awakeable_id, str) and awakeable_id):
        raise InvalidInput(f"{awakeable_id!r:.100} is not the id of an awakeable")
    return awakeable_id
