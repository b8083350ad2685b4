"""Durable execution for asyncio: an await that outlives the process."""

from typing import TYPE_CHECKING, Any

from perdure._declarations import (
    PromiseDeclaration,
    SignalDeclaration,
    StateDeclaration,
    StateWithDefault,
    promise,
    signal,
    state,
)
from perdure._handles import Accepted, InvocationHandle
from perdure._runtime._check import CheckedInvocation, CheckReport, Verdict
from perdure._runtime._describe import Description
from perdure._runtime._filter import InvocationFilter
from perdure._runtime._keyed import PromiseInfo
from perdure._runtime._listing import InvocationPage, InvocationSummary
from perdure._runtime._shown import JournalEntry
from perdure._runtime._stacks import Frame
from perdure._runtime._status import Status
from perdure._runtime._steps import step_token
from perdure._runtime._waiting import WaitingOn
from perdure._sql import QueryResult
from perdure.context import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    Request,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.engine import Engine
from perdure.errors import (
    AlreadyCompleted,
    Cancelled,
    CheckFailed,
    Conflict,
    DataDirectoryInUse,
    DefinitionError,
    HandlerStalled,
    InternalError,
    InvalidInput,
    Killed,
    NondeterminismError,
    NondeterministicOperationError,
    NotFound,
    NotReady,
    NotSupportedOnRestate,
    PerdureError,
    PromiseNameError,
    RetryableError,
    StoreBroken,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    TerminalError,
    Unavailable,
)
from perdure.futures import (
    Awakeable,
    Call,
    DurableFuture,
    DurablePromise,
    InvocationRef,
    Pending,
    Timer,
)
from perdure.retry import RetryPolicy
from perdure.saga import Saga
from perdure.service import Service, VirtualObject, Workflow, handler

if TYPE_CHECKING:
    from perdure.client import Client, connect

__all__ = [
    "Accepted",
    "AlreadyCompleted",
    "Awakeable",
    "Call",
    "Cancelled",
    "CheckFailed",
    "CheckReport",
    "CheckedInvocation",
    "Client",
    "Conflict",
    "Context",
    "DataDirectoryInUse",
    "DefinitionError",
    "Description",
    "DurableFuture",
    "DurablePromise",
    "Engine",
    "Frame",
    "HandlerStalled",
    "InternalError",
    "InvalidInput",
    "InvocationFilter",
    "InvocationHandle",
    "InvocationPage",
    "InvocationRef",
    "InvocationSummary",
    "JournalEntry",
    "Killed",
    "NondeterminismError",
    "NondeterministicOperationError",
    "NotFound",
    "NotReady",
    "NotSupportedOnRestate",
    "ObjectContext",
    "ObjectSharedContext",
    "Pending",
    "PerdureError",
    "PromiseDeclaration",
    "PromiseInfo",
    "PromiseNameError",
    "QueryResult",
    "Request",
    "RetryPolicy",
    "RetryableError",
    "Saga",
    "Service",
    "SignalDeclaration",
    "StateDeclaration",
    "StateWithDefault",
    "Status",
    "StoreBroken",
    "StoreClosed",
    "StoreCorrupt",
    "StoreError",
    "TerminalError",
    "Timer",
    "Unavailable",
    "Verdict",
    "VirtualObject",
    "WaitingOn",
    "Workflow",
    "WorkflowContext",
    "WorkflowSharedContext",
    "connect",
    "handler",
    "promise",
    "signal",
    "state",
    "step_token",
]


def __getattr__(name: str) -> Any:  # Any: of whatever type the name is
    # Programs with an engine do not pay for the client: it is imported when it is first named.
    if name in ("Client", "connect"):
        from perdure import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
