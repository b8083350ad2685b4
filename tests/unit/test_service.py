from __future__ import annotations

import abc
import asyncio
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

import perdure.context
from perdure.context import (
    Context,
    ObjectContext,
    ObjectSharedContext,
    WorkflowContext,
    WorkflowSharedContext,
)
from perdure.errors import DefinitionError, InvalidInput
from perdure.retry import RetryPolicy, no_retry
from perdure.serde import UNTYPED
from perdure.service import (
    HandlerKind,
    HandlerReference,
    Service,
    ServiceKind,
    VirtualObject,
    Workflow,
    definition_of,
    handler,
    resolve,
)

if TYPE_CHECKING:
    from perdure.context import WorkflowContext as OnlyForTheChecker  # noqa: F401

NO_CONTEXT: Any = None


@dataclass
class Document:
    title: str


class Approval(Workflow, version=3, retention=timedelta(days=2), retry=no_retry()):
    """Approves documents."""

    def __init__(self, mailer: str = "mailer") -> None:
        self.mailer = mailer

    async def run(self, ctx: WorkflowContext, document: Document) -> str:
        return f"{self.mailer}: {document.title}"

    @handler
    async def approve(self, ctx: WorkflowSharedContext, approved: bool = True) -> None:
        """Decide."""

    @handler(name="state-of", private=True, journal_retention=60)
    async def status(self, ctx: WorkflowSharedContext):  # type: ignore[no-untyped-def]
        return "fine"


class Special(Approval):
    async def approve(self, ctx: WorkflowSharedContext, approved: bool = False) -> None:
        await super().approve(ctx, approved)


def reference(target: object) -> HandlerReference:
    assert isinstance(target, HandlerReference)
    return target


# -- what a declaration says ----------------------------------------------------------------------


def test_a_workflow_is_declared_with_its_class_keywords() -> None:
    definition = definition_of(Approval)
    assert (definition.name, definition.kind) == ("Approval", ServiceKind.WORKFLOW)
    assert definition.version == 3
    assert definition.retention == timedelta(days=2)
    assert definition.retry == no_retry()
    assert definition.description == "Approves documents."
    assert definition.file == __file__
    assert list(definition.handlers) == ["run", "approve", "state-of"]


def test_the_definition_of_an_instance_is_its_class_s() -> None:
    assert definition_of(Approval()) is definition_of(Approval)


def test_what_is_no_service_has_no_definition() -> None:
    for thing in (object(), int, Service, Workflow):
        with pytest.raises(DefinitionError, match="is not a service"):
            definition_of(thing)


def test_run_needs_no_mark() -> None:
    run = definition_of(Approval).handlers["run"]
    assert run.kind is HandlerKind.RUN
    assert run.takes_argument
    assert not run.argument_has_default
    assert (run.argument, run.result) == (Document, str)


def test_a_handler_has_its_own_options_before_its_class_s() -> None:
    status = definition_of(Approval).handlers["state-of"]
    assert (status.attribute, status.private) == ("status", True)
    assert status.journal_retention == timedelta(minutes=1)
    assert status.retry == no_retry()


def test_missing_annotations_mean_untyped() -> None:
    status = definition_of(Approval).handlers["state-of"]
    assert (status.argument, status.result) == (UNTYPED, UNTYPED)
    assert not status.takes_argument


def test_a_default_lets_the_argument_be_left_out() -> None:
    approve = definition_of(Approval).handlers["approve"]
    assert approve.takes_argument
    assert approve.argument_has_default
    assert approve.description == "Decide."


def test_the_context_decides_the_kind() -> None:
    class Counter(VirtualObject):
        @handler
        async def add(self, ctx: ObjectContext, n: int) -> int:
            return n

        @handler
        async def value(self, ctx: ObjectSharedContext) -> int:
            return 0

    class Greeter(Service, name="hello.Greeter"):
        @handler
        async def greet(self, ctx: Context) -> str:
            return ""

    kinds = {each.name: each.kind for each in definition_of(Counter).handlers.values()}
    assert kinds == {"add": HandlerKind.EXCLUSIVE, "value": HandlerKind.SHARED}
    assert definition_of(Counter).kind == "object"
    assert definition_of(Greeter).handlers["greet"].kind is HandlerKind.SERVICE
    assert definition_of(Greeter).name == "hello.Greeter"


def test_contexts_are_found_by_module_alias_and_by_name_where_only_the_checker_has_them() -> None:
    class ByModule(Workflow):
        async def run(self, ctx: perdure.context.WorkflowContext) -> None: ...

        @handler
        async def nowhere(
            self,
            ctx: missing.WorkflowSharedContext,  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore
        ) -> None: ...

    kinds = [each.kind for each in definition_of(ByModule).handlers.values()]
    assert kinds == [HandlerKind.RUN, HandlerKind.WORKFLOW_SHARED]
