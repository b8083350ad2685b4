"""Why a result can not come, for people."""

from __future__ import annotations

from datetime import datetime

from perdure._binding import Services
from perdure._runtime._describe import Description
from perdure._runtime._status import Status
from perdure._runtime._waiting import WaitingOn
from perdure.engine import Engine
from perdure.service import HandlerKind
from perdure.testing._faults import Stuck

_DEPTH_MAX = 10


async def why_stuck(
    engine: Engine, services: Services, due: datetime | None, invocation_id: str
) -> Stuck:
    """The error for who awaits the result of this invocation, with what it waits for.

    *due*: when the next timer is, to which nobody is to move the time.
    """
    lines = ["the awaited result can not come: no step runs, and no timer is due"]
    if due is not None:
        lines = [
            f"the awaited result does not come before {due:%Y-%m-%d %H:%M:%S} UTC, when the next "
            "timer is due, and time stands still (auto_skip=False): await h.advance(…) or h.skip()"
        ]
    seen: set[str] = set()
    target: str | None = invocation_id
    while target is not None and target not in seen and len(seen) < _DEPTH_MAX:
        seen.add(target)
        description = await engine.describe(target, journal_limit=0)
        lines += _lines(services, description)
        target = next((each.target_id for each in description.waiting_on if each.target_id), None)
    return Stuck("\n".join(lines))


def _lines(services: Services, description: Description) -> list[str]:
    name = f"{description.service}.{description.handler}"
    of = f" of key {description.key!r}" if description.key else ""
    status = description.status
    if status is Status.COMPLETED:
        return []
    if status is Status.PAUSED:
        why = f" after {description.last_failure}" if description.last_failure else ""
        return [f"  {name}{of} is paused{why}: mend it, then await h.resume({description.id!r})"]
    lines = []
    for each in description.waiting_on:
        at = f", at {each.site}" if each.site else ""
        hint = _hint(services, description, each)
        lines.append(f"  {name}{of} waits for {each}{at}{hint and f'; {hint}'}")
    return lines or [f"  {name}{of} is {status}"]


def _hint(services: Services, description: Description, waiting: WaitingOn) -> str:
    """What the test could write."""
    if waiting.kind == "promise":
        definition, _ = services[description.service][0]
        calls = [
            f"h.call({definition.cls.__name__}.{each.attribute}, …)"
            for each in definition.handlers.values()
            if each.kind is HandlerKind.WORKFLOW_SHARED
        ]
        resolve = f"h.resolve(…, key={description.key!r})"
        return "complete it: await " + " or ".join([*calls, resolve])
    if waiting.kind == "awakeable":
        return f"complete it: await h.resolve_awakeable({waiting.name!r}, …)"
    if waiting.kind == "signal":
        return f"send it: await h.signal({description.id!r}, {waiting.name!r}, …)"
    if waiting.kind == "step":
        return "its double hangs"
    return ""
