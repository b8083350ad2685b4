"""Attempts of a Restate server, given back when the process is to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from perdure.cli._attempts import App, Attempts, Event, Receive, Send

INVOKE: Final[Event] = {"type": "http", "path": "/invoke/Order/run"}
JOURNAL: Final[Event] = {"type": "http.request", "body": b"journal", "more_body": True}
LATER: Final[Event] = {"type": "http.request", "body": b"a promise", "more_body": True}
END: Final[Event] = {"type": "http.request", "body": b"", "more_body": False}
LOST: Final[Event] = {"type": "http.disconnect"}
HEAD: Final[Event] = {"type": "http.response.start", "status": 200, "headers": []}
SUSPENDED: Final[Event] = {"type": "http.response.body", "body": b"suspended", "more_body": True}
LAST: Final[Event] = {"type": "http.response.body", "body": b"", "more_body": False}


async def until_it_ends(scope: Event, receive: Receive, send: Send) -> None:
    """An app that suspends, as the SDK does, once the request has ended."""
    await send(HEAD)
    while (await receive()).get("more_body", False):
        pass
    await send(SUSPENDED)
    await send(LAST)


class Request:
    """A request to attempts, from Restate's side."""

    def __init__(self, attempts: App, scope: Event = INVOKE) -> None:
        self._sent: asyncio.Queue[Event] = asyncio.Queue()
        self._answered: asyncio.Queue[Event] = asyncio.Queue()
        self.task = asyncio.ensure_future(attempts(scope, self._sent.get, self._answered.put))

    async def sends(self, event: Event) -> None:
        self._sent.put_nowait(event)
        await turns()

    async def answers(self) -> list[Event]:
        """What has been answered since it was asked last."""
        await turns()
        return [self._answered.get_nowait() for _ in range(self._answered.qsize())]


async def turns() -> None:
    """Let all that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_what_waits_is_suspended_and_its_answer_ends_with_the_request() -> None:
    async def test() -> None:
        attempts = Attempts(until_it_ends)
        request = Request(attempts)
        await request.sends(JOURNAL)
        assert (await request.answers(), attempts.count) == ([HEAD], 1)
        attempts.give_back()
        assert await request.answers() == [SUSPENDED]
        await request.sends(LATER)
        assert await request.answers() == []
        await request.sends(END)
        assert await request.answers() == [LAST]
        await request.task
        assert attempts.count == 0

    run(test)


def test_what_comes_after_an_attempt_was_given_back_does_not_reach_it() -> None:
    received: list[Event] = []

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        while True:
            received.append(await receive())

    async def test() -> None:
        attempts = Attempts(app)
        request = Request(attempts)
        await request.sends(JOURNAL)
        attempts.give_back()
        for each in (LATER, END, LOST):
            await request.sends(each)
        assert received == [JOURNAL, END, LOST]
        request.task.cancel()

    run(test)


def test_a_lost_connection_ends_the_wait_for_the_end_of_the_request() -> None:
    async def test() -> None:
        attempts = Attempts(until_it_ends)
        request = Request(attempts)
        attempts.give_back()
        await request.sends(LOST)
        await request.task

    run(test)


def test_a_new_attempt_is_refused_once_those_that_run_are_given_back() -> None:
    async def test() -> None:
        attempts = Attempts(until_it_ends)
        attempts.give_back()
        request = Request(attempts)
        assert [each.get("status") for each in await request.answers()] == [503]
        await request.sends(END)
        assert await request.answers() == [LAST]

    run(test)


def test_who_looks_for_handlers_is_answered_as_ever() -> None:
    async def test() -> None:
        attempts = Attempts(until_it_ends)
        attempts.give_back()
        request = Request(attempts, {"type": "http", "path": "/discover"})
        await request.sends(END)
        assert await request.answers() == [HEAD, SUSPENDED, LAST]

    run(test)


def test_an_app_that_fails_leaves_nothing_behind() -> None:
    async def app(scope: Event, receive: Receive, send: Send) -> None:
        raise ValueError

    async def test() -> None:
        attempts = Attempts(app)
        request = Request(attempts)
        await turns()
        assert isinstance(request.task.exception(), ValueError)
        assert attempts.count == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)
