"""The examples of a service that gathers, and of an assistant that uses tools."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from engine_support import ManualClock, Place, quiet_log, run, until, until_idle

from agent_loop import Assistant, Message, Model, Question, Reply, ToolCall, Tools
from api_aggregation import CityGuide, CityReport, Web
from perdure import TerminalError

# ---- aggregation ----------------------------------------------------------------------------

WHOLE = CityReport(
    "Lisbon", 20.0, {"USD": 1.1, "GBP": 0.85}, ["Lisbon has a new bridge", "Rain"], []
)


def test_a_report_has_what_all_apis_say(place: Place) -> None:
    web = Web()

    async def main() -> None:
        async with place.engine(CityGuide(web)) as engine:
            assert await engine.call(CityGuide.report, "Lisbon") == WHOLE

    run(main())
    assert sorted(web.asked) == ["news", "rates", "weather"]


def test_a_report_does_without_what_is_down_or_slow(place: Place) -> None:
    quiet_log()
    web = Web(down={"weather", "rates"}, slow={"news"})

    async def main() -> None:
        async with place.engine(CityGuide(web, limit=timedelta(seconds=0.05))) as engine:
            report = await engine.call(CityGuide.report, "Lisbon")
            missing = ["weather", "rates", "news"]
            assert report == CityReport("Lisbon", None, {"USD": 1.0}, [], missing)

    run(main())
    assert sorted(web.asked) == ["news", "news", "rates", "rates", "weather", "weather"]


def test_after_a_restart_only_what_has_not_answered_is_asked_again(place: Place) -> None:
    web = Web(slow={"news"})

    async def main() -> None:
        guide = CityGuide(web, limit=timedelta(hours=1))
        async with place.engine(guide, drain_timeout=0.01) as engine:
            report = await engine.send(CityGuide.report, "Lisbon")
            await until(lambda: len(web.asked) == 3)
            await asyncio.sleep(0.02)
        web.slow.clear()
        async with place.engine(CityGuide(web)) as engine:
            assert await engine.attach(report.id, returns=CityReport) == WHOLE

    run(main())
    assert sorted(web.asked) == ["news", "news", "rates", "weather"]


# ---- assistant ------------------------------------------------------------------------------


def test_what_is_said_is_remembered_in_its_conversation(place: Place) -> None:
    async def main() -> None:
        assistant = Assistant(Model(), Tools(), asyncio.Queue())
        async with place.engine(assistant) as engine:
            assert await engine.call(Assistant.say, "hello", key="1") == "You have said 1 things"
        async with place.engine(assistant) as engine:
            assert await engine.call(Assistant.say, "well", key="1") == "You have said 2 things"
            assert await engine.call(Assistant.say, "hello", key="2") == "You have said 1 things"
            history = await engine.call(Assistant.history, key="1")
            assert history[:2] == [
                Message("user", "hello"),
                Message("assistant", "You have said 1 things"),
            ]

    run(main())


def test_a_harmless_tool_is_used_at_once(place: Place) -> None:
    async def main() -> None:
        questions: asyncio.Queue[Question] = asyncio.Queue()
        async with place.engine(Assistant(Model(), Tools({"a": "tea"}), questions)) as engine:
            assert await engine.call(Assistant.say, "look up a", key="1") == "Done: a says 'tea'"
            assert questions.empty()

    run(main())


class CountedModel(Model):
    """Notes who has spoken last when it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def reply(self, history: list[Message]) -> Reply:
        self.asked.append(history[-1].role)
        return await super().reply(history)


@pytest.mark.parametrize("yes", [True, False])
def test_a_dangerous_tool_waits_for_a_person_across_a_restart(place: Place, yes: bool) -> None:
    tools, model = Tools({"a": "tea"}), CountedModel()

    async def main() -> None:
        questions: asyncio.Queue[Question] = asyncio.Queue()
        async with place.engine(Assistant(model, tools, questions)) as engine:
            answer = await engine.send(Assistant.say, "delete a", key="1")
            question = await questions.get()
            await until_idle(engine)
            assert tools.files == {"a": "tea"}
        async with place.engine(Assistant(model, tools, questions)) as engine:
            await engine.resolve_awakeable(question.answer_to, yes)
            text = await engine.attach(answer.id, returns=str)
            assert text == f"Done: {'a is deleted' if yes else 'nobody allows to delete a'}"
            assert questions.empty()

    run(main())
    assert tools.files == ({} if yes else {"a": "tea"})
    assert model.asked == ["user", "tool"]


def test_without_an_answer_the_tool_is_not_used(place: Place) -> None:
    clock, tools = ManualClock(), Tools({"a": "tea"})

    async def main() -> None:
        questions: asyncio.Queue[Question] = asyncio.Queue()
        async with place.engine(Assistant(Model(), tools, questions), clock=clock) as engine:
            answer = await engine.send(Assistant.say, "delete a", key="1")
            await questions.get()
            await until_idle(engine)
            clock.advance(timedelta(hours=1))
            assert await answer.result() == "Done: nobody allows to delete a"

    run(main())
    assert tools.files == {"a": "tea"}


class Obsessed(Model):
    async def reply(self, history: list[Message]) -> Reply:
        return Reply(tool=ToolCall("look up", "a"))


def test_a_model_that_never_answers_is_stopped(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Assistant(Obsessed(), Tools(), asyncio.Queue())) as engine:
            with pytest.raises(TerminalError, match="no answer after 5 turns"):
                await engine.call(Assistant.say, "hello", key="1")

    run(main())
