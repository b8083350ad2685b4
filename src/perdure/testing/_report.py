"""What the invocations of a harness have done, for the report of a test that failed."""

from __future__ import annotations

from perdure.engine import Engine
from perdure.errors import PerdureError

_INVOCATIONS_MAX = 20
_ENTRIES_MAX = 100


async def report_of(engine: Engine) -> str:
    """The newest invocations, where each stands, what it waits for, and its journal."""
    try:
        page = await engine.invocations(limit=1_000)
        left_out = len(page.items) - _INVOCATIONS_MAX
        parts = [f"({left_out} earlier ones are left out)"] if left_out > 0 else []
        for item in page.items[-_INVOCATIONS_MAX:]:
            parts.append(await _describe(engine, item.id))
    except PerdureError as error:
        return f"(the invocations can not be read: {error})"
    return "\n\n".join(parts) or "(no invocation was kept)"


async def _describe(engine: Engine, invocation_id: str) -> str:
    description = await engine.describe(invocation_id, journal_limit=_ENTRIES_MAX)
    key = f"/{description.key}" if description.key else ""
    lines = [
        f"{description.service}.{description.handler}{key}  {description.status}  {invocation_id}"
    ]
    lines += [
        f"  waits for {each}{each.site and f', at {each.site}'}" for each in description.waiting_on
    ]
    if description.last_failure:
        lines.append(f"  last failure: {description.last_failure}")
    return "\n".join([*lines, description.timeline()])
