"""What declaring a promise, state or a signal says, and what it refuses."""

from __future__ import annotations

import sys
import textwrap
import types
from dataclasses import dataclass
from typing import Any

import pytest

import perdure
from perdure import DefinitionError, Service, VirtualObject, Workflow, WorkflowContext
from perdure._declarations import name_and_serde
from perdure.errors import InvalidInput
from perdure.serde import UNTYPED, serde_for
from perdure.service import definition_of

FILE = "<declared in the test>"


class Approval(Workflow):
    approval = perdure.promise(bool)
    status = perdure.state(str, name="the status")
    _count = perdure.state(int, default=0)
    nudge = perdure.signal(str)

    async def run(self, ctx: WorkflowContext) -> None: ...


class Sub(Approval):
    more = perdure.promise(int)


def declare(source: str) -> dict[str, Any]:
    """Run *source* as a module of its own; line 1 is its first line."""
    module = types.ModuleType("declared_in_a_test")
    sys.modules[module.__name__] = module
    exec("import perdure\nfrom perdure import *\n", module.__dict__)
    code = compile(textwrap.dedent(source).strip(), FILE, "exec", dont_inherit=True)
    exec(code, module.__dict__)
    return module.__dict__


def test_a_declaration_has_the_name_of_its_attribute_or_the_one_given() -> None:
    assert (Approval.approval.name, Approval.status.name) == ("approval", "the status")
    assert (Approval._count.name, Approval.nudge.name) == ("_count", "nudge")
    assert list(definition_of(Approval).declarations) == ["approval", "status", "_count", "nudge"]


def test_reading_from_class_instance_and_again_gives_the_same_declaration() -> None:
    assert Approval.approval is Approval.approval
    assert Approval().approval is Approval.approval
    assert type(Approval()).approval is Approval.approval


def test_an_inherited_declaration_belongs_to_the_subclass() -> None:
    assert (Approval.approval.service, Sub.approval.service) == ("Approval", "Sub")
    assert (Approval.approval.owner, Sub.approval.owner) == (Approval, Sub)
    assert Sub().approval is Sub.approval is not Approval.approval
    assert list(definition_of(Sub).declarations)[-1] == "more"
    assert repr(Sub.approval) == "<promise 'approval' of Sub>"


def test_the_service_is_called_as_its_class_says() -> None:
    class Renamed(Approval, name="Order"):
        pass

    assert Renamed.approval.service == "Order"


def test_a_declaration_of_a_mixin_belongs_to_the_service() -> None:
    class Named:
        label = perdure.state(str)

    class Thing(Named, VirtualObject): ...

    assert Thing.label.service == "Thing"
    assert Named.label.service is None
    assert Named.label.name == "label"


def test_an_abstract_class_has_no_service_for_its_declarations() -> None:
    class Base(Workflow, abstract=True):
        approval = perdure.promise(bool)

    class Concrete(Base):
        async def run(self, ctx: WorkflowContext) -> None: ...

    assert Base.approval.service is None
    assert Concrete.approval.service == "Concrete"


def test_another_class_may_take_over_a_declaration() -> None:
    class Other(Workflow):
        approval = Approval.approval

        async def run(self, ctx: WorkflowContext) -> None: ...

    assert Other.approval.service == "Other"
    assert Approval.approval.service == "Approval"


def test_a_subclass_may_put_something_else_in_its_place() -> None:
    class Without(Approval):
        nudge: Any = None

    class Changed(Approval):
        approval: Any = perdure.promise(int)

    assert "nudge" not in definition_of(Without).declarations
    assert Without.nudge is None
    assert Changed.approval.serde is serde_for(int)


def test_a_promise_and_state_may_have_one_name() -> None:
    class Both(Workflow):
        a = perdure.promise(int, name="x")
        b = perdure.state(int, name="x")
        c = perdure.signal(int, name="x")

        async def run(self, ctx: WorkflowContext) -> None: ...

    assert {each.name for each in definition_of(Both).declarations.values()} == {"x"}


def test_a_signal_may_be_declared_on_each_kind_of_service() -> None:
    class Plain(Service):
        nudge = perdure.signal(str)

    class Thing(VirtualObject):
        nudge = perdure.signal(str)

    assert (Plain.nudge.service, Thing.nudge.service) == ("Plain", "Thing")


def test_a_dataclass_with_slots_keeps_its_declarations() -> None:
    @dataclass(slots=True)
    class Order(Workflow):
        limit: int
        paid = perdure.promise(bool)

        async def run(self, ctx: WorkflowContext) -> None: ...

    assert Order.paid.owner is Order
    assert Order(3).paid is Order.paid


def test_a_type_may_use_one_that_is_declared_further_down() -> None:
    names = declare("""
        import dataclasses
        @dataclasses.dataclass
        class Early:
            inner: "Late"
        class X(Workflow):
            p = perdure.promise(Early)
            s = perdure.state(list[Early], default=[])
            async def run(self, ctx: WorkflowContext): ...
        @dataclasses.dataclass
        class Late:
            a: int
    """)
    definition_of(names["X"]).resolve_types()
    value = names["Early"](names["Late"](1))
    serde = names["X"].p.serde
    assert serde.decode(serde.encode(value, "value"), "value") == value
    assert names["X"].s.decode(None) == []


def test_a_type_that_never_comes_is_refused_when_the_engine_is_made() -> None:
    names = declare("""
        import dataclasses
        @dataclasses.dataclass
        class Early:
            inner: "Late"
        class X(Workflow):
            p = perdure.promise(Early)
            async def run(self, ctx: WorkflowContext): ...
    """)
    with pytest.raises(DefinitionError) as caught:
        perdure.Engine("never opened", [names["X"]()])
    said = str(caught.value)
    assert said.startswith(f"{FILE}:6: promise X.p: its type can not be resolved")
    assert "'Late'" in said


def test_a_declaration_made_after_the_class_has_no_name() -> None:
    class Late(Workflow):
        async def run(self, ctx: WorkflowContext) -> None: ...

    setattr(Late, "more", perdure.promise(int))  # noqa: B010 - it has no such attribute
    more: Any = vars(Late)["more"]
    assert (more.name, more.service) == ("", None)


def test_names_and_types_are_taken_from_either() -> None:
    take = name_and_serde
    assert take("x", int, perdure.SignalDeclaration, Approval) == ("x", serde_for(int))
    assert take(Approval.nudge, UNTYPED, perdure.SignalDeclaration, Approval) == (
        "nudge",
        serde_for(str),
    )
    with pytest.raises(InvalidInput, match="is a promise; a signal is needed here"):
        take(Approval.approval, UNTYPED, perdure.SignalDeclaration, Approval)


BAD: list[tuple[str, int, str, str]] = [
    ("text", 2, "this is a text, not a type", "class X(Workflow):\n  p = perdure.promise('int')"),
    ("no type", 2, "cannot be stored", "class X(Workflow):\n  p = perdure.promise(3)"),
    (
        "no storable type",
        2,
        "state X.s: values of type `function` cannot be stored",
        "class X(Workflow):\n  s = perdure.state(type(lambda: 1))",
    ),
    (
        "empty name",
        2,
        "perdure.promise: name is empty",
        "class X(Workflow):\n  p = perdure.promise(int, name='')",
    ),
    (
        "name is no text",
        2,
        "perdure.state: name: expected `str`, got `int`",
        "class X(Workflow):\n  s = perdure.state(int, name=7)",
    ),
    (
        "long name",
        3,
        "the limit is 96",
        "class X(Workflow):\n\n  s = perdure.signal(int, name='x' * 97)",
    ),
    (
        "long attribute",
        2,
        "perdure.promise: name of promise X.xxx",
        f"class X(Workflow):\n  {'x' * 97} = perdure.promise(int)",
    ),
    (
        "default of another type",
        2,
        "default of state X.s: expected `int`, got `str`",
        "class X(Workflow):\n  s = perdure.state(int, default='a')",
    ),
    (
        "default none",
        2,
        "default of state X.s: expected `str`, got `null`",
        "class X(Workflow):\n  s = perdure.state(str, default=None)",
    ),
    (
        "promise on an object",
        2,
        "promise X.p: a class of kind 'object' has no promise; declare it on a Workflow",
        "class X(VirtualObject):\n  p = perdure.promise(int)",
    ),
    (
        "promise on a service",
        2,
        "a class of kind 'service' has no promise; declare it on a Workflow",
        "class X(Service):\n  p = perdure.promise(int)",
    ),
    (
        "state on a service",
        2,
        "has no state; declare it on a Workflow or a VirtualObject",
        "class X(Service):\n  s = perdure.state(int)",
    ),
    (
        "promise of a mixin on a service",
        2,
        "promise X.p: a class of kind 'service' has no promise",
        "class Mixin:\n  p = perdure.promise(int)\nclass X(Mixin, Service): ...",
    ),
    (
        "two of one name",
        3,
        "signal X.b: signal X.a has the name 'x' too; give one of them another name=",
        "class X(Workflow):\n  a = signal(int, name='x')\n  b = signal(int, name='x')",
    ),
    (
        "one declaration twice",
        2,
        "promise X.a stands in X as 'b' too; a declaration has one name: call perdure.promise(…)",
        "class X(Workflow):\n  a = b = perdure.promise(int)",
    ),
    (
        "another class's under another name",
        2,
        "stands in Y as 'q' too",
        "class X(Workflow, abstract=True):\n  p = perdure.promise(int)\nclass Y(X):\n  q = X.p",
    ),
]


@pytest.mark.parametrize(("line", "remedy", "source"), [pytest.param(*b[1:], id=b[0]) for b in BAD])
def test_a_bad_declaration_names_file_line_and_remedy(line: int, remedy: str, source: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        declare(source)
    said = str(caught.value)
    assert said.startswith(f"{FILE}:{line}: "), said
    assert remedy in said
