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
from typing import Any, TypedDict

import pytest

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

NO_CONTEXT: Any = None
FILE = "<declared in the test>"
PRELUDE = """\
import functools
import perdure.context
from perdure.context import *
from perdure.context import Context, ObjectContext, ObjectSharedContext
from perdure.context import WorkflowContext, WorkflowSharedContext
from perdure.service import Service, VirtualObject, Workflow, handler, definition_of
"""


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

    async def run(self, ctx: WorkflowContext, document: Document) -> str:
        return "special " + await super().run(ctx, document)


def reference(target: object) -> HandlerReference:
    assert isinstance(target, HandlerReference)
    return target


def declare(source: str, *, future: bool = False) -> dict[str, Any]:
    """Run *source* as a module of its own; line 1 is its first line."""
    module = types.ModuleType("declared_in_a_test")
    sys.modules[module.__name__] = module
    exec(PRELUDE, module.__dict__)
    flags = annotations_flag if future else 0
    code = compile(textwrap.dedent(source).strip(), FILE, "exec", flags, dont_inherit=True)
    exec(code, module.__dict__)
    return module.__dict__


annotations_flag = sys.modules["__future__"].annotations.compiler_flag


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


def test_the_definition_of_an_instance_is_that_of_its_class() -> None:
    assert definition_of(Approval()) is definition_of(Approval)


@pytest.mark.parametrize("thing", [object(), int, Service, Workflow], ids=repr)
def test_what_is_no_service_has_no_definition(thing: object) -> None:
    with pytest.raises(DefinitionError, match="is not a service"):
        definition_of(thing)


def test_run_needs_no_mark() -> None:
    run = definition_of(Approval).handlers["run"]
    assert run.kind is HandlerKind.RUN
    assert run.takes_argument
    assert not run.argument_has_default
    assert (run.argument, run.result) == (Document, str)


def test_the_options_of_a_handler_come_before_those_of_its_class() -> None:
    status = definition_of(Approval).handlers["state-of"]
    assert (status.attribute, status.private) == ("status", True)
    assert status.journal_retention == timedelta(minutes=1)
    assert status.retry == no_retry()


def test_timeouts_are_options_of_classes_and_handlers() -> None:
    class Mail(Service, inactivity_timeout=5, abort_timeout=timedelta(minutes=1)):
        @handler(abort_timeout=2)
        async def send(self, ctx: Context) -> None: ...

    definition = definition_of(Mail)
    send = definition.handlers["send"]
    assert definition.abort_timeout == timedelta(minutes=1)
    assert (send.inactivity_timeout, send.abort_timeout) == (
        timedelta(seconds=5),
        timedelta(seconds=2),
    )


def test_subclasses_have_the_metadata_of_their_base_and_handlers_only_their_own() -> None:
    class Mail(Service, metadata={"owner": "post"}):
        @handler(metadata={"cost": "high"})
        async def send(self, ctx: Context) -> None: ...

        @handler
        async def read(self, ctx: Context) -> None: ...

    class Registered(Mail):
        async def send(self, ctx: Context) -> None: ...

    definition = definition_of(Registered)
    assert definition.metadata == {"owner": "post"}
    assert definition.handlers["send"].metadata == {"cost": "high"}
    assert definition.handlers["read"].metadata == {}


def test_metadata_is_as_it_was_when_the_class_was_defined() -> None:
    given = {"owner": "post"}

    class Mail(Service, metadata=given): ...

    given["owner"] = "nobody"
    assert definition_of(Mail).metadata == {"owner": "post"}


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


@pytest.mark.parametrize(
    "annotation",
    [
        "WorkflowContext",
        "perdure.context.WorkflowContext",
        "only_for_the_checker.WorkflowContext",
        "'WorkflowContext'",
        "Alias",
    ],
)
def test_a_context_written_as_text_is_found(annotation: str) -> None:
    source = f"""
        Alias = WorkflowContext
        if {annotation.startswith("only")}:
            del WorkflowContext
        class Found(Workflow):
            async def run(self, ctx: {annotation}) -> None: ...
    """
    found = declare(source, future=True)["Found"]
    assert definition_of(found).handlers["run"].kind is HandlerKind.RUN


def test_plain_methods_are_no_handlers() -> None:
    class Greeter(Service):
        async def helper(self, a: int, b: int) -> int:
            return a + b

        @handler
        async def greet(self, ctx: Context) -> None: ...

    assert list(definition_of(Greeter).handlers) == ["greet"]


def test_keyword_only_parameters_with_defaults_are_no_arguments() -> None:
    class Greeter(Service):
        @handler
        async def greet(self, ctx: Context, *, loud: bool = False) -> None: ...

    assert not definition_of(Greeter).handlers["greet"].takes_argument


def test_a_wrapped_handler_has_the_signature_below() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any:
            return "logged " + await function(*args)

        return wrapper

    class Greeter(Service):
        @handler
        @logged
        async def greet(self, ctx: Context, name: str) -> str:
            return name

    assert definition_of(Greeter).handlers["greet"].argument is str
    assert asyncio.run(Greeter().greet(NO_CONTEXT, "x")) == "logged x"


# -- references -----------------------------------------------------------------------------------


def test_a_method_read_from_the_class_is_a_reference() -> None:
    approve = reference(Approval.approve)
    assert repr(approve) == "Approval.approve"
    assert repr(Approval.status) == "Approval.state-of"
    assert (approve.service, approve.name) == (definition_of(Approval), "approve")
    assert approve.definition is definition_of(Approval).handlers["approve"]


def test_an_inherited_handler_has_the_subclass_as_target() -> None:
    assert resolve(Special.status) == ("Special", "state-of")
    assert resolve(Approval.status) == ("Approval", "state-of")
    assert Special.status != Approval.status
    assert Special.status == Special.status


def test_a_reference_looks_like_its_function() -> None:
    assert Approval.approve.__doc__ == "Decide."
    assert Special.approve.__qualname__ == "Special.approve"
    assert list(inspect.signature(Approval.approve).parameters) == ["self", "ctx", "approved"]


def test_a_reference_called_is_the_plain_function() -> None:
    text = asyncio.run(Approval.run(Special("post"), NO_CONTEXT, Document("x")))
    assert text == "post: x"


def test_handlers_are_called_on_instances_and_through_super() -> None:
    assert asyncio.run(Special("post").run(NO_CONTEXT, Document("x"))) == "special post: x"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Approval.approve, ("Approval", "approve")),
        (Special().status, ("Special", "state-of")),
        ("Approval.approve", ("Approval", "approve")),
        ("hello.Greeter.greet", ("hello.Greeter", "greet")),
    ],
)
def test_references_bound_methods_and_text_are_resolved(
    target: Any, expected: tuple[str, str]
) -> None:
    assert resolve(target) == expected


@pytest.mark.parametrize("target", ["approve", ".approve", "Approval.", "", print, Approval, 3])
def test_what_names_no_handler_is_refused_with_the_remedy(target: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Service\.handler"):
        resolve(target)


# -- inheritance ----------------------------------------------------------------------------------


def test_an_override_stays_a_handler_with_the_inherited_options() -> None:
    source = """
        class Base(Workflow, name="Other", version=4, private=True):
            async def run(self, ctx: WorkflowContext) -> None: ...
            @handler(journal_retention=5)
            async def approve(self, ctx: WorkflowSharedContext) -> None: ...
        class Sub(Base):
            async def approve(self, ctx: WorkflowSharedContext) -> None: ...
    """
    definition = definition_of(declare(source)["Sub"])
    approve = definition.handlers["approve"]
    assert approve.journal_retention == timedelta(seconds=5)
    assert approve.private
    assert (definition.name, definition.version) == ("Sub", 1)


def test_none_takes_an_inherited_handler_away() -> None:
    class Quiet(Approval):
        approve = None  # type: ignore[assignment]

    assert list(definition_of(Quiet).handlers) == ["run", "state-of"]


def test_an_abstract_base_needs_no_run_and_its_handlers_are_no_targets() -> None:
    class Base(Workflow, abstract=True):
        @handler
        async def status(self, ctx: WorkflowSharedContext) -> str:
            return "fine"

    class Order(Base):
        async def run(self, ctx: WorkflowContext) -> None: ...

    assert definition_of(Base).abstract
    assert not definition_of(Order).abstract
    assert resolve(Order.status) == ("Order", "status")
    with pytest.raises(InvalidInput, match="abstract class; name a subclass's"):
        resolve(Base.status)


def test_handlers_of_a_plain_mixin_are_handlers() -> None:
    class Audit:
        @handler
        async def history(self, ctx: WorkflowSharedContext) -> list[str]:
            return []

    class Order(Audit, Workflow):
        async def run(self, ctx: WorkflowContext) -> None: ...

    assert resolve(Order.history) == ("Order", "history")


def test_abstract_methods_stay_abstract() -> None:
    class Base(Workflow, abc.ABC):
        @abc.abstractmethod
        async def run(self, ctx: WorkflowContext) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


def test_a_dataclass_with_slots_keeps_its_keywords() -> None:
    @dataclass(slots=True)
    class Order(Workflow, name="Renamed", version=2):
        limit: int

        async def run(self, ctx: WorkflowContext) -> int:
            return self.limit

    assert (definition_of(Order).name, definition_of(Order).version) == ("Renamed", 2)
    assert asyncio.run(Order(3).run(NO_CONTEXT)) == 3


# -- types ----------------------------------------------------------------------------------------


def test_a_type_declared_further_down_is_found_later() -> None:
    source = """
        class Early(Workflow):
            async def run(self, ctx: WorkflowContext, what: Late) -> "list[Late]": ...
        import dataclasses
        @dataclasses.dataclass
        class Late:
            inner: "Later"
        @dataclasses.dataclass
        class Later:
            a: int
    """
    names = declare(source, future=True)
    definition = definition_of(names["Early"])
    definition.resolve_types()
    assert definition.handlers["run"].argument is names["Late"]
    assert definition.handlers["run"].result == types.GenericAlias(list, (names["Late"],))


def test_types_local_to_a_function_are_found_above_and_below() -> None:
    class Above(TypedDict):
        a: int

    class Local(Workflow):
        async def run(self, ctx: WorkflowContext, above: Above) -> Below:
            raise NotImplementedError

    @dataclass
    class Below:
        b: int

    definition_of(Local).resolve_types()
    assert reference(Local.run).definition.argument is Above
    assert reference(Local.run).definition.result is Below


def test_an_inherited_handler_keeps_the_types_of_its_own_module() -> None:
    def base() -> type[Workflow]:
        class Hidden(TypedDict):
            a: int

        class Base(Workflow):
            async def run(self, ctx: WorkflowContext, what: Hidden) -> None: ...

        return Base

    class Sub(base()):  # type: ignore[misc]
        pass

    definition_of(Sub).resolve_types()
    assert definition_of(Sub).handlers["run"].argument.__name__ == "Hidden"


def test_a_type_that_never_comes_is_refused_when_the_engine_is_made() -> None:
    source = """
        class Early(Workflow):
            async def run(self, ctx: WorkflowContext, what: Never) -> None: ...
    """
    definition = definition_of(declare(source, future=True)["Early"])
    with pytest.raises(DefinitionError) as caught:
        definition.resolve_types()
    assert str(caught.value).startswith(f"{FILE}:2: handler Early.run: ")
    assert "'Never' is not defined" in str(caught.value)
    assert "at module level" in str(caught.value)


# -- bad definitions ------------------------------------------------------------------------------

BAD: list[tuple[str, int, str, str]] = [
    (
        "a sync handler",
        2,
        "async def go",
        """
        class X(Service):
            @handler
            def go(self, ctx: Context): ...
        """,
    ),
    (
        "a sync run",
        2,
        "async def run",
        """
        class X(Workflow):
            def run(self, ctx: WorkflowContext): ...
        """,
    ),
    (
        "an async generator",
        2,
        "is a generator; write `async def` and return",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context):
                yield 1
        """,
    ),
    (
        "a context without annotation",
        2,
        "annotate it with Context",
        """
        class X(Service):
            @handler
            async def go(self, ctx): ...
        """,
    ),
    (
        "a context that is none",
        3,
        "'int' of parameter 'ctx' is no context type; annotate it with ObjectContext (exclusive)",
        """
        class X(VirtualObject):

            @handler
            async def go(self, ctx: int): ...
        """,
    ),
    (
        "an unknown context in text",
        2,
        "'Nowhere' of parameter 'ctx' is no context type",
        """
        class X(Service):
            @handler
            async def go(self, ctx: "Nowhere"): ...
        """,
    ),
    (
        "no context",
        2,
        "`async def go(self, ctx: Context, …)`",
        """
        class X(Service):
            @handler
            async def go(self): ...
        """,
    ),
    (
        "two arguments",
        2,
        "more than one argument after the context (a, b); use a dataclass",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context, a, b=1): ...
        """,
    ),
    (
        "star arguments",
        2,
        "takes *args or **kwargs",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context, *a): ...
        """,
    ),
    (
        "a keyword without default",
        2,
        "give it a default",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context, *, a, b=1): ...
        """,
    ),
    (
        "a workflow without run",
        2,
        "abstract=True if it is a base",
        """
        x = 1
        class X(Workflow):
            @handler
            async def go(self, ctx: WorkflowSharedContext): ...
        """,
    ),
    (
        "two mains",
        3,
        "takes WorkflowSharedContext (a workflow's main handler is `run`",
        """
        class X(Workflow):
            async def run(self, ctx: WorkflowContext): ...
            @handler
            async def main(self, ctx: WorkflowContext): ...
        """,
    ),
    (
        "a run with the shared context",
        2,
        "takes WorkflowContext",
        """
        class X(Workflow):
            async def run(self, ctx: WorkflowSharedContext): ...
        """,
    ),
    (
        "an object's context in a service",
        2,
        "takes ObjectContext; a handler like this in a service takes Context",
        """
        class X(Service):
            @handler
            async def go(self, ctx: ObjectContext): ...
        """,
    ),
    (
        "a service's context in an object",
        2,
        "takes ObjectContext (exclusive) or ObjectSharedContext",
        """
        class X(VirtualObject):
            @handler
            async def go(self, ctx: Context): ...
        """,
    ),
    (
        "a reserved name",
        2,
        "use @handler(private=True)",
        """
        class X(Service):
            @handler
            async def __call__(self, ctx: Context): ...
        """,
    ),
    (
        "two handlers of one name",
        4,
        "give one of them another name=",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context): ...
            @handler(name="go")
            async def walk(self, ctx: Context): ...
        """,
    ),
    (
        "run by another name",
        2,
        "always named run",
        """
        class X(Workflow):
            @handler(name="start")
            async def run(self, ctx: WorkflowContext): ...
        """,
    ),
    (
        "a handler name too long",
        2,
        "97 bytes in UTF-8; the limit is 96",
        f"""
        class X(Service):
            @handler
            async def {"x" * 97}(self, ctx: Context): ...
        """,
    ),
    (
        "a service name too long",
        1,
        "200 bytes in UTF-8; the limit is 96: give a shorter name=",
        f"""
        class X(Service, name="{"é" * 100}"): ...
        """,
    ),
    ("a name with a slash", 1, "use letters", """class X(Service, name="a/b"): ..."""),
    (
        "a handler name with a dot",
        2,
        "use letters",
        """
        class X(Service):
            @handler(name="a.b")
            async def go(self, ctx: Context): ...
        """,
    ),
    ("an unknown keyword", 1, "no class keyword 'durable'", "class X(Service, durable=True): ..."),
    ("version 0", 1, "version= must be a whole number from 1", "class X(Service, version=0): ..."),
    ("a text version", 1, "version= must be", "class X(Service, version='2'): ..."),
    ("a number as retry", 1, "retry= must be a RetryPolicy", "class X(Service, retry=3): ..."),
    ("a text as private", 1, "private= must be True", "class X(Service, private='no'): ..."),
    (
        "negative retention",
        1,
        "journal_retention= must be a timedelta or seconds, 0 or more, got -1",
        "class X(Service, journal_retention=-1): ...",
    ),
    (
        "a text as a timeout",
        1,
        "abort_timeout= must be a timedelta or seconds, 0 or more, got 'long'",
        "class X(Service, abort_timeout='long'): ...",
    ),
    (
        "a negative timeout of a handler",
        2,
        "inactivity_timeout= must be a timedelta or seconds, 0 or more, got -1",
        """
        class X(Service):
            @handler(inactivity_timeout=-1)
            async def go(self, ctx: Context): ...
        """,
    ),
    (
        "a number in metadata",
        1,
        "metadata= must be a mapping of texts to texts, got {'tier': 1}",
        "class X(Service, metadata={'tier': 1}): ...",
    ),
    (
        "a text as metadata",
        2,
        "metadata= must be a mapping of texts to texts, got 'mine'",
        """
        class X(Service):
            @handler(metadata='mine')
            async def go(self, ctx: Context): ...
        """,
    ),
    (
        "retention of a service",
        1,
        "use idempotency_retention=",
        "class X(Service, retention=1): ...",
    ),
    (
        "retention of a shared handler",
        3,
        "retention= is for Workflow.run",
        """
        class X(Workflow):
            async def run(self, ctx: WorkflowContext): ...
            @handler(retention=3)
            async def go(self, ctx: WorkflowSharedContext): ...
        """,
    ),
    (
        "idempotency of run",
        2,
        "use retention=",
        """
        class X(Workflow):
            @handler(idempotency_retention=3)
            async def run(self, ctx: WorkflowContext): ...
        """,
    ),
    (
        "an unknown handler option",
        2,
        "no option 'durable'",
        """
        class X(Service):
            @handler(durable=True)
            async def go(self, ctx: Context): ...
        """,
    ),
    (
        "two bases",
        3,
        "is object and workflow at once; derive it from one",
        """
        class A(Workflow, abstract=True): ...
        class B(VirtualObject): ...
        class X(A, B): ...
        """,
    ),
    (
        "a marked staticmethod",
        2,
        "write it directly above `async def`",
        """
        class X(Service):
            @handler
            @staticmethod
            async def go(ctx: Context): ...
        """,
    ),
    (
        "a staticmethod of a marked function",
        2,
        "is a staticmethod, not a method",
        """
        class X(Service):
            @staticmethod
            @handler
            async def go(ctx: Context): ...
        """,
    ),
    (
        "a handler overridden by a number",
        4,
        "`go = None` to take an inherited handler away",
        """
        class Base(Service):
            @handler
            async def go(self, ctx: Context): ...
        class X(Base):
            go = 3
        """,
    ),
    (
        "an argument that cannot be stored",
        2,
        "argument 'a': values of type `complex` cannot be stored",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context, a: complex): ...
        """,
    ),
    (
        "a result that cannot be stored",
        2,
        "result: values of type",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context) -> dict[str, complex]: ...
        """,
    ),
    (
        "an annotation that is no type",
        2,
        "of its argument 'a' is no type",
        """
        class X(Service):
            @handler
            async def go(self, ctx: Context, a: "1 +"): ...
        """,
    ),
]


@pytest.mark.parametrize(("line", "remedy", "source"), [pytest.param(*b[1:], id=b[0]) for b in BAD])
@pytest.mark.parametrize("future", [False, True], ids=["now", "later"])
def test_a_bad_definition_names_file_line_and_remedy(
    line: int, remedy: str, source: str, future: bool
) -> None:
    with pytest.raises(DefinitionError) as caught:
        declare(source, future=future)
    said = str(caught.value)
    assert said.startswith(f"{FILE}:{line}: ")
    assert remedy in said


def test_a_retry_policy_is_taken_as_given() -> None:
    policy = RetryPolicy(initial=1)

    class Greeter(Service):
        @handler(retry=policy)
        async def greet(self, ctx: Context) -> None: ...

    assert definition_of(Greeter).handlers["greet"].retry is policy
    assert definition_of(Greeter).retry is None
