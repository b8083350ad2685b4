"""How long what has completed is kept: what is declared, else the defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from perdure.service import HandlerDefinition, HandlerKind

_MS = timedelta(milliseconds=1)
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000


class Retention(NamedTuple):
    """Milliseconds after completion for which the output and the journal stay; 0: not at all."""

    output_ms: int
    journal_ms: int


def retention_of(
    definition: HandlerDefinition, *, one_way: bool, idempotent: bool = False
) -> Retention:
    """How long the output and the journal of an invocation stay.

    Where a key stands for the invocation, the journal does not outlast the output: once that has
    gone the key is free, and another invocation may have it. Elsewhere the longer one counts.

    Args:
      one_way: It is sent: nobody waits, so its result stays for whoever asks later.
      idempotent: It has an idempotency key.
    """
    is_run = definition.kind is HandlerKind.RUN
    if is_run:
        output_ms = _ms(definition.retention, _DAY_MS)
    elif idempotent:
        output_ms = _ms(definition.idempotency_retention, _DAY_MS)
    else:
        output_ms = _HOUR_MS if one_way else 0
    journal_ms = _ms(definition.journal_retention, _DAY_MS if is_run else 0)
    if is_run or idempotent:
        journal_ms = min(journal_ms, output_ms)
    return Retention(output_ms, journal_ms)


def early_promises_ms(run: HandlerDefinition) -> int:
    """How long promises stay that are completed before anybody began the key's ``run``.

    As long as what ``run`` leaves; where it leaves nothing, the default, for ``run`` is to find
    them.
    """
    return _ms(run.retention, _DAY_MS) or _DAY_MS


def _ms(declared: timedelta | None, default_ms: int) -> int:
    return default_ms if declared is None else -(declared // -_MS)
