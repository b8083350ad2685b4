"""An assistant that uses tools, remembers what was said, and asks before it does harm.

The conversation is the state of an object, each question to the model and each use of a tool a
step: after a crash nothing is asked, paid or done twice. A dangerous tool waits for a person.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta

import perdure
from perdure import ObjectContext, ObjectSharedContext, TerminalError

TURNS_MAX = 5
DANGEROUS = {"delete"}
PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class ToolCall:
    tool: str
    argument: str


@dataclass(frozen=True)
class Message:
    role: str  # user, assistant or tool
    text: str


@dataclass(frozen=True)
class Reply:
    """What the model says: a text for the user, or a tool it wants to have used first."""

    text: str = ""
    tool: ToolCall | None = None


@dataclass(frozen=True)
class Question:
    """What a person is asked, and the id that the answer, yes or no, goes to."""

    text: str
    answer_to: str


class Model:
    """Stands in for a language model: "delete x" and "look up x" make it want a tool."""

    async def reply(self, history: list[Message]) -> Reply:
        last = history[-1]
        if last.role == "tool":
            return Reply(f"Done: {last.text}")
        for tool in ("delete", "look up"):
            if last.text.startswith(tool):
                return Reply(tool=ToolCall(tool, last.text.removeprefix(tool).strip()))
        return Reply(f"You have said {sum(message.role == 'user' for message in history)} things")


@dataclass
class Tools:
    files: dict[str, str] = field(default_factory=dict)

    async def use(self, call: ToolCall) -> str:
        if call.tool == "delete":
            self.files.pop(call.argument, None)
            return f"{call.argument} is deleted"
        return f"{call.argument} says {self.files.get(call.argument)!r}"


class Assistant(perdure.VirtualObject):
    """The key is the conversation; what is said in one is answered in order."""

    def __init__(self, model: Model, tools: Tools, questions: asyncio.Queue[Question]) -> None:
        self.model = model
        self.tools = tools
        self.questions = questions  # whoever reads them is the person who is asked

    @perdure.handler
    async def say(self, ctx: ObjectContext, text: str) -> str:
        """Answer the user."""
        history = [*await ctx.get("history", list[Message], []), Message("user", text)]
        for turn in range(TURNS_MAX):
            reply = await ctx.run(f"ask model {turn}", self.model.reply, history)
            if reply.tool is None:
                ctx.set("history", [*history, Message("assistant", reply.text)])
                return reply.text
            history = [*history, Message("tool", await self._use(ctx, reply.tool))]
        raise TerminalError(f"no answer after {TURNS_MAX} turns", 508)

    async def _use(self, ctx: ObjectContext, call: ToolCall) -> str:
        if call.tool in DANGEROUS and not await self._is_approved(ctx, call):
            return f"nobody allows to {call.tool} {call.argument}"
        return await ctx.run(call.tool, self.tools.use, call)

    async def _is_approved(self, ctx: ObjectContext, call: ToolCall) -> bool:
        answer = ctx.awakeable(bool)
        question = Question(f"{call.tool} {call.argument}?", answer.id)
        await ctx.run("ask a person", self.questions.put, question)
        timeout = ctx.after(PATIENCE)
        if await ctx.wait_first(answer, timeout) is timeout:
            answer.cancel()  # from here on an answer is refused
            return False
        return await answer

    @perdure.handler
    async def history(self, ctx: ObjectSharedContext) -> list[Message]:
        """What was said so far."""
        return await ctx.get("history", list[Message], [])


questions: asyncio.Queue[Question] = asyncio.Queue()
services = [Assistant(Model(), Tools({"notes.txt": "buy tea"}), questions)]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, services) as engine:
            print(await engine.call(Assistant.say, "look up notes.txt", key="c1"))
            answer = await engine.send(Assistant.say, "delete notes.txt", key="c1")
            question = await questions.get()
            print("a person is asked:", question.text)
            await engine.resolve_awakeable(question.answer_to, True)
            print(await answer.result())
            print(await engine.call(Assistant.say, "thank you", key="c1"))


if __name__ == "__main__":
    asyncio.run(main())
