"""Promises and state declared on the class, used by handlers in the place of names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from engine_support import Place, quiet_log, run, until_status

import perdure
from perdure import (
    InvalidInput,
    ObjectContext,
    ObjectSharedContext,
    PromiseNameError,
    Status,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)


@dataclass
class Note:
    text: str
    tags: list[str] = field(default_factory=list)


class Journal(Workflow):
    """Uses each declaration in each way."""

    word = perdure.promise(str)
    note = perdure.state(Note)
    count = perdure.state(int, default=3)
    tags = perdure.state(list[str], default=["new"], name="the tags")

    async def run(self, ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = [await ctx.get(Journal.note), await ctx.get(self.count)]
        ctx.set(Journal.note, Note("hello", ["a"]))
        ctx.set(type(self).count, 4)
        seen += [await ctx.get(Journal.note), await ctx.get(Journal.count)]
        return [*seen, await ctx.promise(self.word)]

    @handler
    async def say(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise(Journal.word).resolve(word)

    @handler
    async def by_name(self, ctx: WorkflowSharedContext) -> list[Any]:
        return [await ctx.get("note"), await ctx.get("count"), await ctx.state_keys()]


def test_declared_state_and_promises_are_read_and_written(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Journal()) as engine:
            handle = await engine.send(Journal.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
            waiting_on = (await engine.describe(handle.id)).waiting_on
            assert [(each.kind, each.name) for each in waiting_on] == [("promise", "word")]
            await engine.call(Journal.say, "yes", key="k")
            note = {"text": "hello", "tags": ["a"]}
            assert await handle.result() == [None, 3, note, 4, "yes"]
            assert await engine.call(Journal.by_name, key="k") == [note, 4, ["count", "note"]]

    run(main())


def test_a_value_arrives_in_its_declared_type(place: Place) -> None:
    class Typed(Journal):
        async def run(self, ctx: WorkflowContext) -> list[Any]:
            ctx.set(self.note, Note("hello"))
            await ctx.run("nothing", lambda: None)
            note = await ctx.get(self.note)
            return [type(note).__name__, note.text if note else None]

    async def main() -> Any:
        async with place.engine(Typed()) as engine:
            return await engine.submit(Typed.run, key="k")

    assert run(main()) == ["Note", "hello"]


def test_a_default_is_another_object_each_time(place: Place) -> None:
    class Tagging(Journal):
        async def run(self, ctx: WorkflowContext) -> list[Any]:
            tags = await ctx.get(self.tags)
            tags.append("changed")
            return await ctx.get(self.tags)

    async def main() -> Any:
        async with place.engine(Tagging()) as engine:
            return await engine.submit(Tagging.run, key="k")

    assert run(main()) == ["new"]


def test_cleared_state_is_its_default_again(place: Place) -> None:
    class Counter(VirtualObject):
        count = perdure.state(int, default=0)
        label = perdure.state(str, name="name of it")

        @handler
        async def add(self, ctx: ObjectContext, number: int) -> int:
            count = await ctx.get(self.count) + number
            ctx.set(self.count, count)
            ctx.set(self.label, "x")
            return count

        @handler
        async def clear(self, ctx: ObjectContext) -> list[str]:
            ctx.clear(self.count)
            return await ctx.state_keys()

        @handler
        async def read(self, ctx: ObjectSharedContext) -> list[Any]:
            return [await ctx.get(Counter.count), await ctx.get(Counter.label)]

    async def main() -> None:
        async with place.engine(Counter()) as engine:
            assert await engine.call(Counter.add, 2, key="k") == 2
            assert await engine.call(Counter.add, 3, key="k") == 5
            assert await engine.call(Counter.clear, key="k") == ["name of it"]
            assert await engine.call(Counter.read, key="k") == [0, "x"]
            assert await engine.call(Counter.read, key="other") == [0, None]

    run(main())


def test_a_journal_made_with_names_is_replayed_with_declarations(place: Place) -> None:
    class Named(Workflow, name="Order"):
        async def run(self, ctx: WorkflowContext) -> Any:
            ctx.set("note", Note("hello", ["a"]))
            await ctx.get("note", Note)
            return await ctx.promise("word", str)

    class Declared(Workflow, name="Order"):
        word = perdure.promise(str)
        note = perdure.state(Note)

        async def run(self, ctx: WorkflowContext) -> Any:
            ctx.set(self.note, Note("hello", ["a"]))
            await ctx.get(self.note)
            return await ctx.promise(self.word)

    async def main() -> None:
        async with place.engine(Named()) as engine:
            handle = await engine.send(Named.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(Declared()) as engine:
            await engine.resolve(Declared.word, "yes", key="k")
            assert await engine.attach(handle.id) == "yes"

    run(main())


def test_a_recorded_value_that_the_declared_type_still_means_fits_the_journal(
    place: Place,
) -> None:
    class Before(Workflow, name="Order"):
        word = perdure.promise(str)
        notes = perdure.state(list[dict[str, Any]])

        async def run(self, ctx: WorkflowContext) -> Any:
            ctx.set(self.notes, [{"text": "hello"}])
            return await ctx.promise(self.word)

    class After(Workflow, name="Order"):
        word = perdure.promise(str)
        notes = perdure.state(list[Note])

        async def run(self, ctx: WorkflowContext) -> Any:
            ctx.set(self.notes, [Note("hello")])  # recorded without tags
            return await ctx.promise(self.word)

    async def main() -> None:
        async with place.engine(Before()) as engine:
            handle = await engine.send(Before.run, key="k")
            await until_status(engine, handle, Status.SUSPENDED)
        async with place.engine(After()) as engine:
            await engine.resolve(After.word, "yes", key="k")
            assert await engine.attach(handle.id) == "yes"

    run(main())


class Bad(Journal):
    """Runs what it is given; what a declaration refuses is terminal."""

    action: Any

    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.action(ctx)

    @handler
    async def shared(self, ctx: WorkflowSharedContext) -> Any:
        return await self.action(ctx)


class Other(Workflow):
    word = perdure.promise(str)
    note = perdure.state(Note)
    start = perdure.signal(str)

    async def run(self, ctx: WorkflowContext) -> None: ...


class Below(Bad):
    """Its declarations are not those of the class above."""

    async def run(self, ctx: WorkflowContext) -> Any: ...


async def _get(ctx: Any, *args: Any, **keywords: Any) -> None:
    await ctx.get(*args, **keywords)


async def _do(verb: str, ctx: Any, *args: Any) -> None:
    getattr(ctx, verb)(*args)


LOOSE = perdure.state(int)
ANOTHER = "of Other> is none of Bad's; a handler uses what its own class declares"
BAD_USES: list[tuple[Any, str]] = [
    (lambda ctx: _do("promise", ctx, Other.word), ANOTHER),
    (lambda ctx: _get(ctx, Other.note), ANOTHER),
    (lambda ctx: _do("set", ctx, Other.note, Note("x")), ANOTHER),
    (lambda ctx: _do("clear", ctx, Other.note), ANOTHER),
    (lambda ctx: _do("promise", ctx, Below.word), "of Below> is none of Bad's"),
    (lambda ctx: _do("promise", ctx, Bad.note), "is a state; a promise is needed here"),
    (lambda ctx: _get(ctx, Bad.word), "is a promise; a state is needed here"),
    (lambda ctx: _do("set", ctx, Bad.word, "x"), "is a promise; a state is needed here"),
    (lambda ctx: _do("clear", ctx, Bad.word), "is a promise; a state is needed here"),
    (lambda ctx: _do("promise", ctx, Other.start), "is a signal; a promise is needed here"),
    (lambda ctx: _get(ctx, LOOSE), "this state was not declared in the body of a class"),
    (lambda ctx: _do("promise", ctx, Bad.word, str), "has a type of its own; leave"),
    (lambda ctx: _get(ctx, Bad.note, Note), "has a type of its own, and its default"),
    (lambda ctx: _get(ctx, Bad.note, default=Note("x")), "and its default is declared with it"),
    (lambda ctx: _do("set", ctx, Bad.note, "x"), "state 'note': .* got `str` .declared as `Note`"),
    (lambda ctx: _do("set", ctx, Bad.count, "4"), "state 'count': .*`int`.*`str`"),
    (lambda ctx: _do("set", ctx, Bad.count, None), "state 'count': .*`int`"),
]


@pytest.mark.parametrize(("action", "text"), BAD_USES)
def test_a_declaration_used_wrongly_is_refused(
    resident_place: Place, action: Any, text: str
) -> None:
    async def main() -> None:
        bad = Bad()
        bad.action = action
        async with resident_place.engine(bad) as engine:
            with pytest.raises(InvalidInput, match=text):
                await engine.submit(Bad.run, key="k")
            assert await engine.call(Bad.by_name, key="k") == [None, None, []]

    run(main())


@pytest.mark.parametrize("verb", ["set", "clear"])
def test_a_shared_handler_may_not_write_declared_state(resident_place: Place, verb: str) -> None:
    async def main() -> None:
        bad = Bad()
        bad.action = lambda ctx: _do(verb, ctx, Bad.count, *([4] if verb == "set" else []))
        async with resident_place.engine(bad) as engine:
            with pytest.raises(InvalidInput, match=rf"ctx.{verb}: a shared handler can not write"):
                await engine.call(Bad.shared, key="k")

    run(main())


def test_a_declaration_is_not_assigned_to(resident_place: Place) -> None:
    class Assigns(Journal):
        async def run(self, ctx: WorkflowContext) -> Any:
            self.count = 4  # type: ignore[assignment]

    async def main() -> None:
        async with resident_place.engine(Assigns()) as engine:
            await engine.submit(Assigns.run, key="k")

    with pytest.raises(InvalidInput, match="<state 'count' of Journal> is a declaration, and is"):
        run(main())


def test_run_may_not_ask_twice_for_one_declared_promise(resident_place: Place) -> None:
    class Twice(Journal):
        async def run(self, ctx: WorkflowContext) -> Any:
            ctx.promise(self.word)
            ctx.promise("word")

    async def main() -> None:
        async with resident_place.engine(Twice()) as engine:
            await engine.submit(Twice.run, key="k")

    with pytest.raises(PromiseNameError, match="asked twice for the promise 'word'"):
        run(main())


def test_code_of_a_base_uses_the_declarations_of_the_base(place: Place) -> None:
    class Mixin:
        label = perdure.state(str, default="none")

    class Sub(Mixin, Journal):
        async def run(self, ctx: WorkflowContext) -> Any:
            before = [await ctx.get(Mixin.label), await ctx.get(Journal.count)]
            ctx.set(Mixin.label, "some")
            ctx.set(Journal.count, 5)
            return [*before, await ctx.get(self.label), await ctx.get(Sub.count)]

    async def main() -> Any:
        async with place.engine(Sub()) as engine:
            return await engine.submit(Sub.run, key="k")

    assert run(main()) == ["none", 3, "some", 5]


def test_a_stored_value_that_does_not_fit_its_declaration_is_an_error_of_who_reads(
    resident_place: Place,
) -> None:
    quiet_log()

    class Reads(Journal):
        async def run(self, ctx: WorkflowContext) -> Any:
            ctx.set("count", "four")
            return [await ctx.get(self.count)]

    async def main() -> None:
        async with resident_place.engine(Reads()) as engine:
            await engine.submit(Reads.run, key="k")

    with pytest.raises(InvalidInput, match=r"state 'count'.*`int`.*`str`"):
        run(main())


class Nudged(Workflow):
    nudge = perdure.signal(Note)

    async def run(self, ctx: WorkflowContext) -> list[str]:
        return [(await ctx.signal(self.nudge)).text, (await ctx.signal(Nudged.nudge)).text]

    @handler
    async def wrong(self, ctx: WorkflowSharedContext) -> None:
        ctx.signal(Other.start)

    @handler
    async def typed_twice(self, ctx: WorkflowSharedContext) -> None:
        ctx.signal(self.nudge, Note)  # type: ignore[call-overload]


def test_a_declared_signal_is_waited_for_and_sent(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Nudged()) as engine:
            handle = await engine.send(Nudged.run, key="k")
            await engine.signal(handle.id, Nudged.nudge, Note("one"))
            await engine.signal(handle.id, "nudge", {"text": "two"})
            assert await handle.result() == ["one", "two"]

    run(main())


def test_a_declared_signal_used_wrongly_is_refused(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Nudged()) as engine:
            handle = await engine.send(Nudged.run, key="k")
            with pytest.raises(InvalidInput, match=r"value of signal 'nudge'.*`Note`"):
                await engine.signal(handle.id, Nudged.nudge, "one")  # type: ignore[misc]
            with pytest.raises(InvalidInput, match="of Other> is none of Nudged's"):
                await engine.signal(handle.id, Other.start, "one")
            with pytest.raises(InvalidInput, match="is a promise; a signal is needed here"):
                await engine.signal(handle.id, Other.word, "one")  # type: ignore[call-overload]
            with pytest.raises(InvalidInput, match="of Other> is none of Nudged's"):
                await engine.call(Nudged.wrong, key="k")
            with pytest.raises(InvalidInput, match="has a type of its own; leave"):
                await engine.call(Nudged.typed_twice, key="k")
            await engine.kill(handle.id)

    run(main())
