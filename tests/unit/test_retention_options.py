"""How long what has completed is kept: what is declared, else the defaults."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure import Context, Service, Workflow, WorkflowContext, handler
from perdure._runtime._retention import early_promises_ms, retention_of
from perdure.service import HandlerDefinition, definition_of

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def service_handler(**options: timedelta | float) -> HandlerDefinition:
    class Mail(Service):
        @handler(**options)  # type: ignore[call-overload, untyped-decorator]
        async def send(self, ctx: Context) -> None: ...

    return definition_of(Mail).handlers["send"]


def run_of(retention: timedelta | float | None) -> type[Workflow]:
    class Order(Workflow, retention=retention):
        async def run(self, ctx: WorkflowContext) -> None: ...

    return Order


@pytest.mark.parametrize(
    ("options", "one_way", "idempotent", "expected"),
    [
        ({}, False, False, (0, 0)),
        ({}, True, False, (HOUR_MS, 0)),
        ({}, False, True, (DAY_MS, 0)),
        ({}, True, True, (DAY_MS, 0)),
        ({"idempotency_retention": 60}, True, True, (60_000, 0)),
        ({"idempotency_retention": 60}, True, False, (HOUR_MS, 0)),
        ({"idempotency_retention": 0}, False, True, (0, 0)),
        ({"journal_retention": 60}, False, False, (0, 60_000)),
        ({"journal_retention": 7200}, True, False, (HOUR_MS, 2 * HOUR_MS)),
        # The key is free once its result has gone: no journal outlasts it.
        ({"journal_retention": 60, "idempotency_retention": 30}, True, True, (30_000, 30_000)),
        ({"journal_retention": timedelta(microseconds=1)}, False, False, (0, 1)),
    ],
)
def test_a_handler_is_kept_as_declared(
    options: dict[str, timedelta | float],
    one_way: bool,
    idempotent: bool,
    expected: tuple[int, int],
) -> None:
    definition = service_handler(**options)
    assert retention_of(definition, one_way=one_way, idempotent=idempotent) == expected


@pytest.mark.parametrize(
    ("retention", "kept_ms", "early_ms"),
    [(None, DAY_MS, DAY_MS), (60, 60_000, 60_000), (0, 0, DAY_MS)],
)
def test_a_run_is_kept_as_declared_and_so_are_promises_before_it(
    retention: float | None, kept_ms: int, early_ms: int
) -> None:
    service = definition_of(run_of(retention))
    kept = retention_of(service.handlers["run"], one_way=False)
    assert kept == (kept_ms, kept_ms)
    assert early_promises_ms(service.handlers["run"]) == early_ms
