"""Services with every option, as an app for Restate whose handlers answer with what they are given.

Served by ``hypercorn declared_services:app`` beside a real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import restate

from perdure import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    RetryPolicy,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)
from perdure.restate._declaring import Handle, declare
from perdure.service import HandlerDefinition, ServiceDefinition, definition_of

# Any, in this module: contexts are the SDK's, and no handler looks at its.

BRIEF: Final = RetryPolicy(0.1, 3, 1.5, max_attempts=7, on_exhausted="kill")
PATIENT: Final = RetryPolicy(0, 1, 0, max_attempts=None)


@dataclass
class Leg:
    to: str
    after: Leg | None = None


class Trip(
    Workflow,
    name="travel.Trip",
    retry=BRIEF,
    retention=timedelta(days=30),
    journal_retention=timedelta(days=2),
    idempotency_retention=timedelta(hours=6),
    inactivity_timeout=5,
    abort_timeout=timedelta(seconds=7),
    metadata={"owner": "travel", "tier": "1"},
):
    """Books a trip.

    Leg by leg.
    """

    @handler(
        retry=PATIENT,
        retention=timedelta(days=3),
        journal_retention=0,
        inactivity_timeout=0.0015,
        abort_timeout=1.001,
        metadata={"step": "main"},
        private=True,
    )
    async def run(self, ctx: WorkflowContext, first: Leg) -> list[Leg]:
        """Book all of it."""
        raise NotImplementedError

    @handler(name="how_far", idempotency_retention=60)
    async def progress(self, ctx: WorkflowSharedContext) -> int | None:
        raise NotImplementedError


class Ledger(VirtualObject, private=True):
    @handler
    async def add(self, ctx: ObjectContext, amount: int = 1) -> None: ...

    @handler
    async def total(self, ctx: ObjectSharedContext) -> int:
        raise NotImplementedError


class Files(Service, private=True):
    @handler
    async def pack(self, ctx: Context, content: bytes) -> bytes:
        raise NotImplementedError

    @handler(private=False)
    async def untyped(self, ctx: Context, value):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class Plain(Service):
    @handler
    async def go(self, ctx: Context) -> None: ...


def echo(service: ServiceDefinition, of: HandlerDefinition) -> Handle:
    async def handle(context: Any, content: bytes) -> bytes:
        return content

    return handle


app = restate.app(declare([definition_of(each) for each in (Trip, Ledger, Files, Plain)], echo))
