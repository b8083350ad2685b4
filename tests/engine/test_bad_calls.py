"""Calls that can never be right: wrong handler, key, id or service, each named with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from engine_support import Place, run, scheduler_of, until_idle

from perdure import (
    Accepted,
    Conflict,
    Context,
    DefinitionError,
    Engine,
    InvalidInput,
    NotFound,
    NotReady,
    Service,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    handler,
)

UNKNOWN_ID = "inv_06d3pdls0000f7hnf6snuijs2k"


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hello, {name}"

    @handler
    async def wave(self, ctx: Context) -> None: ...


class Errand(Workflow):
    """Ends when told to."""

    async def run(self, ctx: WorkflowContext, word: str) -> str:
        await ctx.promise("go")
        return word

    @handler
    async def go(self, ctx: WorkflowSharedContext) -> None:
        await ctx.promise("go").resolve(None)

    @handler
    async def key(self, ctx: WorkflowSharedContext) -> str:
        return ctx.key


class Stranger(Workflow):
    """Registered nowhere."""

    async def run(self, ctx: WorkflowContext) -> None: ...


async def refusal(engine: Engine, error: type[Exception], handler: Any, **keys: Any) -> str:
    """The text with which call and send alike refuse; nothing is written."""
    store = scheduler_of(engine).store
    before = store.sealed
    texts = set()
    for verb in (engine.call, engine.send):
        with pytest.raises(error) as caught:
            await verb(handler, **keys)
        texts.add(str(caught.value))
    await until_idle(engine)
    assert store.sealed == before
    (text,) = texts
    return text


def refusal_of(place: Place, error: type[Exception], handler: Any, **keys: Any) -> str:
    async def main() -> str:
        async with place.engine(Greeter(), Errand()) as engine:
            return await refusal(engine, error, handler, **keys)

    return run(main())


# -- handlers -------------------------------------------------------------------------------------


def test_an_unknown_handler_is_refused_with_those_there_are(resident_place: Place) -> None:
    text = refusal_of(resident_place, NotFound, "Greeter.xyz", arg="x")
    assert text == "service 'Greeter' has no handler 'xyz'; it has: greet, wave"


def test_an_unknown_handler_is_refused_with_the_near_name(resident_place: Place) -> None:
    text = refusal_of(resident_place, NotFound, "Greeter.gret", arg="x")
    assert text.endswith("it has: greet, wave; did you mean 'greet'?")


def test_an_unknown_service_is_refused_with_those_there_are(resident_place: Place) -> None:
    text = refusal_of(resident_place, NotFound, "Nobody.xyz", arg="x")
    assert text == "service 'Nobody' is not registered here; there are: Errand, Greeter"


def test_an_unknown_service_is_refused_with_the_near_name(resident_place: Place) -> None:
    text = refusal_of(resident_place, NotFound, "Greter.greet", arg="x")
    assert text.endswith("there are: Errand, Greeter; did you mean 'Greeter'?")


def test_a_handler_of_a_class_that_is_not_registered_is_refused(resident_place: Place) -> None:
    text = refusal_of(resident_place, NotFound, Stranger.run, key="k")
    assert text.startswith("service 'Stranger' is not registered here; there are: Errand, Greeter")


@pytest.mark.parametrize("handler", [None, 7, print, Greeter, "greet", "", ".", "Greeter."])
def test_what_is_no_handler_is_refused_with_what_to_write(
    resident_place: Place, handler: Any
) -> None:
    text = refusal_of(resident_place, InvalidInput, handler)
    assert "handler" in text
    assert "Service.handler" in text


# -- keys -----------------------------------------------------------------------------------------


def test_a_workflow_needs_a_key(resident_place: Place) -> None:
    text = refusal_of(resident_place, InvalidInput, Errand.key)
    assert text == "Errand.key needs key=: a workflow is one per key"


def test_a_service_takes_no_key(resident_place: Place) -> None:
    text = refusal_of(resident_place, InvalidInput, Greeter.wave, key="k")
    assert text == "Greeter.wave is a service's handler and takes no key"


@pytest.mark.parametrize("key", [7, b"k", ["k"], True])
def test_a_key_is_a_str(resident_place: Place, key: Any) -> None:
    text = refusal_of(resident_place, InvalidInput, Errand.key, key=key)
    assert text == f"Errand.key: the key must be a str, not {type(key).__name__}"


@pytest.mark.parametrize("key", ["x" * 257, "ключ" * 33])
def test_a_key_too_long_is_refused_with_its_length_in_bytes(
    resident_place: Place, key: str
) -> None:
    text = refusal_of(resident_place, InvalidInput, Errand.key, key=key)
    assert text.startswith(f"key of Errand.key {key[:30]!r}")
    assert text.endswith(f"is {len(key.encode())} bytes in UTF-8; the limit is 256")


def test_a_key_with_a_lone_surrogate_is_refused(resident_place: Place) -> None:
    text = refusal_of(resident_place, InvalidInput, Errand.key, key="a\ud800")
    assert "holds a lone surrogate at index 1" in text


@pytest.mark.parametrize("key", ["", "\0", "a\0b", "a\0", "x" * 256, "ключ" * 32, "😀\n\t "])
def test_any_other_text_is_a_key_of_its_own(place: Place, key: str) -> None:
    async def main() -> None:
        async with place.engine(Errand()) as engine:
            handle = await engine.send(Errand.run, "mine", key=key)
            other = await engine.send(Errand.run, "other", key="a")
            assert other.accepted is Accepted.NEW
            assert await engine.call(Errand.key, key=key) == key
            await engine.call(Errand.go, key=key)
            assert await handle.result() == "mine"
            assert (await engine.describe(handle.id)).key == key
            with pytest.raises(NotReady):
                await other.output()

    run(main())


# -- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    ["", "inv_", "06d3", UNKNOWN_ID.upper(), UNKNOWN_ID + "0", UNKNOWN_ID[:-1] + "z", 7, None],
)
@pytest.mark.parametrize("verb", ["attach", "output", "describe", "resume"])
def test_a_malformed_id_is_refused_with_what_ids_look_like(
    resident_place: Place, verb: str, bad: Any
) -> None:
    async def main() -> None:
        async with resident_place.engine(Greeter()) as engine:
            with pytest.raises(InvalidInput, match="is not an invocation id; ids look like inv_"):
                await getattr(engine, verb)(bad)

    run(main())


@pytest.mark.parametrize("verb", ["attach", "output", "describe", "resume"])
def test_an_unknown_id_is_not_found(resident_place: Place, verb: str) -> None:
    async def main() -> None:
        async with resident_place.engine(Greeter()) as engine:
            with pytest.raises(NotFound, match=f"there is no invocation {UNKNOWN_ID}") as caught:
                await getattr(engine, verb)(UNKNOWN_ID)
            assert caught.value.code == 404
            for ask in (engine.attach, engine.output):
                with pytest.raises(NotFound, match=f"there is no invocation {UNKNOWN_ID}"):
                    await ask(UNKNOWN_ID, str)

    run(main())


# -- run is once per key --------------------------------------------------------------------------


def test_run_sent_twice_is_one_invocation_and_the_first_argument_wins(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Errand()) as engine:
            first = await engine.send(Errand.run, "first", key="k")
            second = await engine.send(Errand.run, "second", key="k")
            assert (first.accepted, second.accepted) == (Accepted.NEW, Accepted.EXISTING)
            assert first.id == second.id
            await engine.call(Errand.go, key="k")
            assert await second.result() == "first"
            third = await engine.send(Errand.run, "third", key="k")
            assert (third.id, third.accepted) == (first.id, Accepted.EXISTING)
            assert await third.output() == "first"

    run(main())


def test_run_called_twice_is_a_conflict_running_and_completed(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Errand()) as engine:
            await engine.send(Errand.run, "first", key="k")
            for _ in range(2):
                with pytest.raises(Conflict, match="already started for key 'k'; use submit") as e:
                    await engine.call(Errand.run, "second", key="k")
                assert e.value.code == 409
                await engine.call(Errand.go, key="k") if _ == 0 else None

    run(main())


def test_submit_attaches_running_and_completed_and_after_reopening(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Errand()) as engine:
            await engine.send(Errand.run, "first", key="k")
            await engine.call(Errand.go, key="k")
            assert await engine.submit(Errand.run, "second", key="k") == "first"
            assert await engine.submit(Errand.run, "third", key="k") == "first"
        async with place.engine(Errand()) as engine:
            assert await engine.submit(Errand.run, "fourth", key="k") == "first"

    run(main())


def test_submit_of_another_handler_than_run_is_refused(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Errand()) as engine:
            with pytest.raises(InvalidInput, match=r"Errand\.go is called with engine\.call"):
                await engine.submit(Errand.go, key="k")

    run(main())


# -- services -------------------------------------------------------------------------------------


def test_a_class_in_the_place_of_an_instance_is_refused(resident_place: Place) -> None:
    with pytest.raises(DefinitionError, match=r"takes instances: pass Errand\(\) instead of the"):
        resident_place.engine(Errand)


def test_a_service_registered_twice_is_refused(resident_place: Place) -> None:
    class Other(Service, name="Greeter"):
        @handler
        async def greet(self, ctx: Context) -> None: ...

    for second in (Greeter(), Other()):
        text = "two services are called 'Greeter' and have version 1, at .*; give one a name"
        with pytest.raises(DefinitionError, match=text):
            resident_place.engine(Greeter(), second)


@pytest.mark.parametrize("thing", [7, "Greeter", object(), None])
def test_what_is_no_service_is_refused(resident_place: Place, thing: Any) -> None:
    with pytest.raises(DefinitionError, match=r"is not a service; subclass perdure\.Service"):
        resident_place.engine(thing)


@pytest.mark.parametrize("services", [Greeter(), Greeter, None, 7])
def test_services_that_are_no_list_are_refused(resident_place: Place, services: Any) -> None:
    with pytest.raises(DefinitionError, match="services must be a list of instances"):
        Engine(resident_place.path, services)


def test_a_handler_that_is_not_async_is_refused_when_its_class_is_defined() -> None:
    with pytest.raises(DefinitionError, match=r"Late\.run.*async def"):

        class Late(Workflow):
            def run(self, ctx: WorkflowContext) -> None: ...


def test_a_handler_with_the_context_of_another_kind_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.greet takes WorkflowContext.*takes Context"):

        class Wrong(Service):
            @handler
            async def greet(self, ctx: WorkflowContext) -> None: ...
