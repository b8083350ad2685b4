"""How long what has completed is kept."""

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
    """What is declared, else the defaults.

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
    return Retention(output_ms, _ms(definition.journal_retention, _DAY_MS if is_run else 0))


def _ms(declared: timedelta | None, default_ms: int) -> int:
    return default_ms if declared is None else -(-declared // _MS)
