"""The same requests to perdure and to a real Restate, and where their answers differ, and why."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from engine_support import Place
from http_support import wire
from loopback import served
from restate_server import restate
from test_restates_python_client import what_the_client_sees
from test_typescript_client import compiled, what_the_program_sees
from wire_comparison import ask_all
from wire_side import Seen, Side

from perdure.http import admin, ingress

pytestmark = pytest.mark.long

HANG_S = 90.0
REQUESTS_MIN = 400


class Difference(NamedTuple):
    """Attributes:
    asked: What is asked, a regular expression for all of it.
    perdure, restate: Statuses of the two answers.
    """

    asked: str
    perdure: int
    restate: int
    why: str


CHECKED = "an argument is checked against its type before anything is accepted"
NEVER = "what never was has no id"
NAMED = "a name that is not served here, or names no workflow, is told from a key never started"
TOLD = "perdure has done it when it answers, or says why not; Restate answers before it looks"
NO_NULL = "None is null in JSON; restate-sdk makes an empty body of it"
NOT_RUNNING = "one that has not begun is no conflict of another kind than one that runs"

DIFFERENCES = [
    Difference("POST /Greeter/fail json=600", 500, 600, "no status of HTTP"),
    Difference("POST /Greeter/fail json=200", 500, 200, "an error is no success"),
    Difference("headers of a handler", 200, 200, "a secret is not to stand in a journal"),
    Difference("POST /Greeter/noargs headers=.*", 200, 400, "clients name a type of no body too"),
    Difference("(GET|POST) /Greeter/greet", 400, 200, CHECKED),
    Difference(r"GET /Greeter/greet\?name=Bob", 400, 200, CHECKED),
    Difference("(GET|POST) /Greeter/greet/send", 400, 202, CHECKED),
    Difference("POST /Greeter/greet content=b'{bad' .*", 400, 500, CHECKED),
    Difference("POST /Greeter/greet content=b'null' .*", 400, 200, CHECKED),
    Difference("POST /Greeter/greet json=12", 400, 200, CHECKED),
    Difference("POST /Greeter/price .*'much'}", 400, 200, CHECKED),
    Difference("POST /Counter/k1/add .* json=bad", 400, 200, CHECKED),
    Difference("POST /Greeter/greet .*'Application/JSON'}", 200, 400, "types have no case"),
    Difference("POST /Greeter/raw content=b'abc'", 200, 400, "bytes need no type"),
    Difference("POST /%47reeter/greet json=x", 200, 404, "%47 is a G, RFC 3986 section 2.3"),
    Difference("POST /Greeter/%ff json=x", 400, 404, "it is no UTF-8"),
    Difference("POST /restate/scope/.*", 400, 400, "there are no scopes in perdure"),
    Difference("POST /Greeter/greet .*-key': ''} json=a", 400, 200, "it protects from nothing"),
    Difference("(GET|POST) /restate/.*(attach|purged).*", 404, 404, NEVER),
    Difference("GET /restate/invocation/Greeter/k/greet/i1/output", 400, 404, NAMED),
    Difference("GET /restate/workflow/Nope/w/output", 404, 404, NAMED),
    Difference("GET /restate/workflow/(Greeter|Counter)/w/.*", 400, 404, NAMED),
    Difference("POST /restate/output .*'Nope'.*", 404, 404, NAMED),
    Difference("POST /restate/(output|attach) .*'Greeter'.*", 400, 404, NAMED),
    Difference("POST /restate/lookup .*'Greeter'.*", 400, 200, NAMED),
    Difference("POST /restate/lookup .*", 404, 200, "lookup says whether there is one"),
    Difference("POST /restate/(lookup|output|attach).*", 400, 500, "a bad body is the client's"),
    Difference("OPTIONS .* headers=.*", 200, 200, "a preflight's body is read by nobody"),
    Difference("OPTIONS /Greeter/greet", 405, 200, "that is no preflight"),
    Difference("POST /Signup/(w1|done)/peek", 200, 200, NO_NULL),
    Difference("PATCH admin:.*/cancel.scheduled", 202, 200, "it is asked to end, like others"),
    Difference("PATCH admin:.*/resume", 409, 200, "it was not paused: nothing was done"),
    Difference("PATCH admin:.*/(resume|restart-as-new).scheduled", 409, 425, NOT_RUNNING),
    Difference("PATCH admin:.*/purge-journal.*", 404, 409, "a journal goes with its invocation"),
    Difference("PATCH admin:.*/purge-journal.*", 404, 200, "a journal goes with its invocation"),
    Difference("DELETE admin:/invocations/.*", 404, 202, TOLD),
    Difference("DELETE admin:/invocations/.*mode=[Kk]ill again", 200, 202, TOLD),
    Difference("DELETE admin:/invocations/.*mode=purge again", 409, 202, TOLD),
    Difference("POST admin:/services/Counter/state json=.*", 400, 422, "bad input is 400"),
    Difference("POST admin:/services/Counter/state content=.*", 400, 415, "bad input is 400"),
]


def test_answers_are_restates_but_for_those_that_are_better_otherwise(
    tmp_path: Path, resident_place: Place
) -> None:
    async def ask(name: str, ingress_url: str, admin_url: str) -> dict[str, Seen]:
        async with _client(ingress_url) as to_ingress, _client(admin_url) as to_admin:
            side = Side(name, to_ingress, to_admin)
            await ask_all(side)
            return side.seen

    ours, theirs = asyncio.run(_both(tmp_path, resident_place, ask))
    assert list(ours) == list(theirs)
    assert len(ours) > REQUESTS_MIN
    unexplained, used = [], set()
    for asked, answer in ours.items():
        if answer != theirs[asked]:
            found = _explaining(asked, answer, theirs[asked])
            used.add(found)
            if found is None:
                unexplained.append((asked, answer, theirs[asked]))
    assert unexplained == []
    assert [each for each in DIFFERENCES if each not in used] == []


def test_restates_python_client_sees_the_same_with_both(
    tmp_path: Path, resident_place: Place
) -> None:
    async def ask(name: str, ingress_url: str, admin_url: str) -> dict[str, Any]:
        return await what_the_client_sees(ingress_url)

    ours, theirs = asyncio.run(_both(tmp_path, resident_place, ask))
    assert ours == theirs


def test_restates_typescript_client_sees_the_same_with_both(
    tmp_path: Path, resident_place: Place
) -> None:
    program = compiled(tmp_path / "typescript")

    async def ask(name: str, ingress_url: str, admin_url: str) -> dict[str, Any]:
        return await what_the_program_sees(program, ingress_url)

    ours, theirs = asyncio.run(_both(tmp_path, resident_place, ask))
    assert ours == theirs


async def _both(
    directory: Path, place: Place, ask: Callable[[str, str, str], Awaitable[dict[str, Any]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What perdure and Restate are seen to answer."""
    async with asyncio.timeout(HANG_S):
        async with (
            wire(place) as on,
            served(ingress(on.engine)) as one,
            served(admin(on.engine)) as other,
        ):
            ours = await ask("perdure", one, other)
        async with restate(directory / "restate") as urls:
            theirs = await ask("restate", urls.ingress, urls.admin)
    return ours, theirs


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=20)


def _explaining(asked: str, ours: Seen, theirs: Seen) -> Difference | None:
    for each in DIFFERENCES:
        statuses = (each.perdure, each.restate) == (ours.status, theirs.status)
        if statuses and re.fullmatch(each.asked, asked, re.DOTALL):
            return each
    return None
