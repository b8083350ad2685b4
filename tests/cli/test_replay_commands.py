"""``export`` and ``replay``, against a directory, a server and files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_support import NOWHERE, PROGRAM, Ask, Server, asking, serving

import perdure
from perdure.testing import History

TODAY = PROGRAM.replace('ctx.set("item", item)', 'ctx.set("thing", item)')


@dataclass
class Served:
    """A server, with a workflow that waits, one that has completed, and a service's call."""

    server: Server
    waiting: str
    completed: str
    without: str


async def fill(url: str) -> tuple[str, str, str]:
    async with perdure.connect(url) as client:
        waiting = await client.send("Order.run", "a book", key="waits")
        completed = await client.send("Order.run", "a pen", key="done")
        await client.resolve("Order.place", "the door", key="done")
        await completed.result()
        without = await client.send("Greeter.greet", "ada")
        await without.result()
        return waiting.id, completed.id, without.id


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield Served(server, *asyncio.run(fill(server.url)))


@pytest.fixture
def ask(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    return asking(served.server.environment, capsys, monkeypatch)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Modules with the code of yesterday and of today, in the current directory."""
    monkeypatch.chdir(tmp_path)
    names = (f"yesterday_{tmp_path.name}", f"today_{tmp_path.name}")
    for name, text in zip(names, (PROGRAM, TODAY), strict=True):
        Path(f"{name}.py").write_text(text, "utf-8")
    return names


def test_what_a_server_exports_is_replayed_from_its_file(
    ask: Ask, served: Served, code: tuple[str, str]
) -> None:
    yesterday, today = code
    done = ask("export", served.waiting, served.completed, "-o", "orders.json")
    assert (done.code, done.err) == (0, "")
    assert done.out == "orders.json has 2 invocations with 8 entries\n"
    assert [each.key for each in History.load("orders.json").invocations] == ["waits", "done"]
    done = ask("replay", "orders.json", yesterday)
    assert (done.code, done.out) == (0, "2 recorded invocations: 2 safe\n")
    done = ask("replay", "orders.json", f"{today}:services")
    assert done.code == 1
    assert "2 recorded invocations: 2 diverges" in done.out
    assert "  -    1     set state 'item'" in done.out
    assert "  +    1     set state 'thing'" in done.out
    assert '  +             ctx.set("thing", item)' in done.out


def test_an_id_is_replayed_against_what_a_server_has(
    ask: Ask, served: Served, code: tuple[str, str]
) -> None:
    yesterday, today = code
    assert ask("replay", served.waiting, yesterday).out == "1 recorded invocations: 1 safe\n"
    done = ask("replay", served.waiting, today, "--json")
    assert (done.code, done.err) == (1, "")
    assert (done.json["ok"], done.json["counts"]["diverges"]) == (False, 1)
    (found,) = done.json["invocations"]
    assert (found["id"], found["verdict"], found["key"]) == (served.waiting, "diverges", "waits")
    assert found["divergence"]["index"] == 1
    assert found["divergence"]["expected"] == "set state 'item'"
    assert ask.json("replay", served.waiting, yesterday)["invocations"][0]["divergence"] is None


def test_an_export_goes_to_stdout_unless_it_is_told_where(ask: Ask, served: Served) -> None:
    for more in ((), ("--output", "-"), ("--json",)):
        done = ask("export", served.waiting, *more)
        assert (done.code, done.err) == (0, "")
        assert History.loads(done.out).invocations[0].id == served.waiting
    told = json.loads(done.out)
    assert told["format"] == "perdure-history"


def test_a_filter_exports_what_has_a_journal(
    ask: Ask, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ask.json("export", "--service", "Order", "-o", "a.json") == {
        "path": "a.json",
        "invocations": 2,
        "entries": 8,
    }
    done = ask("export", "--service", "Greeter", "-o", "b.json")
    assert done.out == "b.json has 0 invocations with 0 entries\n"
    assert done.err == "1 left out: they have no journal, or it is not kept\n"
    assert len(History.load("b.json")) == 0
    done = ask("export", "--service", "Order", "--limit", "1", "-o", "c.json")
    assert done.err == "there are more than these 1: see --limit\n"
    assert ask.json("export", "--key", "done", "-o", "c.json")["invocations"] == 1


def test_what_can_not_be_exported_is_refused_and_why(ask: Ask, served: Served) -> None:
    assert ask("export").code == 2
    assert "export which?" in ask("export").err
    assert ask("export", served.waiting, "--service", "Order").code == 2
    done = ask("export", served.without, "--json")
    assert (done.code, done.error["kind"]) == (4, "NotFound")
    assert "its journal is not kept: declare journal_retention=" in done.error["message"]
    assert ask("export", "inv_1").code == 2
    assert ask("export", served.waiting, "-o", "no/such/folder.json").code == 1


def test_what_can_not_be_replayed_is_refused_and_why(
    ask: Ask, served: Served, code: tuple[str, str]
) -> None:
    Path("cut.json").write_text('{"format": "perdure-history", "ver', "utf-8")
    done = ask("replay", "cut.json", code[0])
    assert (done.code, done.out) == (2, "")
    assert "perdure: cut.json: " in done.err
    done = ask("replay", "none.json", code[0])
    assert (done.code, done.err) == (1, "perdure: none.json: No such file or directory\n")
    Path("a.json").write_text(History().dumps(), "utf-8")
    assert "there is no module 'nowhere'" in ask("replay", "a.json", "nowhere").err
    assert ask("replay", "a.json", "nowhere").code == 2


def test_services_that_are_all_others_are_not_taken_for_a_success(
    ask: Ask, served: Served, code: tuple[str, str]
) -> None:
    name = f"others_{code[0]}"
    Path(f"{name}.py").write_text(f"from {code[0]} import Greeter\nservices = [Greeter()]", "utf-8")
    done = ask("replay", served.waiting, name)
    assert done.code == 1
    assert "none of them is of the services given" in done.out


def test_a_directory_that_no_engine_has_open_is_exported_and_replayed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: tuple[str, str],
) -> None:
    with serving(tmp_path) as server:
        waiting, completed, _ = asyncio.run(fill(server.url))
        assert server.stop().code == 0
    alone = asking(NOWHERE, capsys, monkeypatch)
    data = ("--data", str(server.data))
    exported = History.loads(alone("export", waiting, *data).out)
    assert exported.invocations[0].status == "suspended"
    assert alone("replay", waiting, code[0], *data).code == 0
    assert alone("replay", completed, code[1], *data).code == 1
    assert alone.json("export", "--status", "completed", *data, "-o", "c.json")["invocations"] == 1
