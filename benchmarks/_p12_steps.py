"""The step of P12's handlers, the same for both sides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from benchmarks._measure import milliseconds, percentile

Payload = dict[str, int | float | str]

PAYLOAD: Payload = {"order": 4711, "state": "paid", "amount": 99.5}


async def charge(number: int) -> Payload:
    """A step that does nothing: what is measured is all the rest."""
    return PAYLOAD


def intervals_ms(moments: Sequence[float]) -> list[float]:
    """p50 and p99 of the time between *moments*, which are in seconds."""
    lasting = [after - before for before, after in pairwise(moments)] or [0.0]
    return [milliseconds(percentile(lasting, 50)), milliseconds(percentile(lasting, 99))]
