"""Recorded journals as files: what is exported is what is read again, or it is refused."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from client_support import client_of
from engine_support import Place, run, until_status

import perdure
from perdure import Context, InvalidInput, NotFound, Status, WorkflowContext, WorkflowSharedContext
from perdure._core._entries import Entry, Flag, Kind
from perdure._history import _format
from perdure._ids import parse_id
from perdure._runtime._layout import u32, waiter
from perdure._store import Db, Store
from perdure._viewing import View
from perdure.serde import UNTYPED, encode_failure, serde_for
from perdure.testing import History, RecordedInvocation, replay

ID = "inv_06d3pdls0000f7hnf6snuijs2k"
encode = serde_for(UNTYPED).encode


class Deal(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, item: str) -> dict[str, Any]:
        price = await ctx.run("price", len, item)
        ctx.set("stage", {"price": price})
        return {"price": price, "word": await ctx.promise("word", str)}

    @perdure.handler
    async def say(self, ctx: WorkflowSharedContext, word: str) -> None:
        await ctx.promise("word", str).resolve(word)


class Desk(perdure.Service):
    @perdure.handler
    async def copy(self, ctx: Context, text: str) -> str:
        return await ctx.run("copy", str, text)


def recorded(*entries: Entry, **fields: Any) -> RecordedInvocation:
    """An invocation whose journal has *entries* after its start, in one activation."""
    given: dict[str, Any] = {
        "id": ID,
        "service": "Deal",
        "handler": "run",
        "key": "k",
        "version": 1,
        "status": Status.SUSPENDED,
        "argument": None,
        "headers": {},
        "idempotency_key": None,
        "origin": b"",
        "journal": [[Entry(Kind.START, 1, "3.11", None, 1_700_000_000_000), *entries]],
        "sites": [],
        **fields,
    }
    return RecordedInvocation(**given)


def written(history: History) -> Any:
    return json.loads(history.dumps())


def read(document: Any) -> History:
    return History.loads(json.dumps(document))


def same(history: History, other: History) -> bool:
    return history.invocations == other.invocations and history.sources == other.sources


# -- exporting ------------------------------------------------------------------------------------


def test_engine_client_and_view_export_the_same(place: Place) -> None:
    async def main() -> None:
        async with place.engine(Deal(), Desk()) as engine:
            done = await engine.send(Deal.run, "tea", key="done")
            await engine.call(Deal.say, "now", key="done")
            await done.result()
            waits = await engine.send(Deal.run, "cups", key="waits", headers={"x-shop": "north"})
            await until_status(engine, waits, Status.SUSPENDED)
            exported = await engine.export(done.id, waits.id)
            async with client_of(engine) as client:
                assert same(await client.export(done.id, waits.id), exported)
        async with View(place.path) as view:
            assert same(await view.export(done.id, waits.id), exported)
        first, second = exported.invocations
        assert (first.id, first.status, second.status) == (done.id, "completed", "suspended")
        assert (second.service, second.handler, second.key, second.version) == (
            "Deal",
            "run",
            "waits",
            1,
        )
        assert second.headers == {"x-shop": "north"}
        assert (len(exported), second.journal_length) == (2, 5)
        assert 'price = await ctx.run("price", len, item)' in exported.sources.values()

    run(main())


def test_what_has_no_journal_is_refused_and_why(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Deal(), Desk()) as engine:
            sent = await engine.send(Desk.copy, "a")
            await sent.result()
            with pytest.raises(NotFound, match="its journal is not kept: declare journal_ret"):
                await engine.export(sent.id)
            later = await engine.send(Desk.copy, "a", delay=3600)
            with pytest.raises(NotFound, match="no journal yet: nothing of it has been done"):
                await engine.export(later.id)
            with pytest.raises(NotFound, match=f"there is no invocation {ID}"):
                await engine.export(ID)
            with pytest.raises(InvalidInput, match="is not an invocation id"):
                await engine.export("inv_1")
            async with client_of(engine) as client:
                with pytest.raises(NotFound, match="its journal is not kept: declare journal_ret"):
                    await client.export(sent.id)
            assert len(await engine.export()) == 0

    run(main())


def test_a_journal_that_is_just_being_removed_is_not_exported_in_part(tmp_path: Path) -> None:
    place = Place(tmp_path / "data", 10_000)

    async def begin() -> str:
        async with place.engine(Long()) as engine:
            handle = await engine.send(Long.run, 9, key="k")
            await handle.result()
            return handle.id

    invocation_id = run(begin())
    store = Store(place.path, durability="os")
    store.delete(Db.JOURNAL, parse_id(invocation_id), u32(0))
    store.seal()
    store.close()

    async def export() -> None:
        async with View(place.path) as view:
            await view.export(invocation_id)

    with pytest.raises(NotFound, match=r"the journal of inv_.* is being removed"):
        run(export())


# -- the text -------------------------------------------------------------------------------------


def test_the_text_has_an_entry_a_line_with_its_value_for_people() -> None:
    value = {"paid": True, "at": datetime(2026, 1, 31, 12, 30, tzinfo=UTC)}
    history = History(
        [
            recorded(
                Entry(Kind.STATE_SET, name="stage", payload=encode(value, ""), site=1),
                Entry(Kind.TIMER, time_ms=1_700_000_360_001),
                argument=encode("tea", ""),
                sites=["orders.py:12 in Order.run"],
            )
        ],
        {"orders.py:12 in Order.run": "ctx.set(…)"},
    )
    lines = history.dumps().splitlines()
    assert ['  "argument_value": "tea",' in lines, '  "created_at"' in history.dumps()] == [1, 1]
    (line,) = [each for each in lines if '"stage"' in each]
    assert json.loads(line.strip().removesuffix(",")) == {
        "index": 1,
        "kind": "state_set",
        "name": "stage",
        "value": {"paid": True, "at": "2026-01-31T12:30:00Z"},
        "payload": written(history)["invocations"][0]["journal"][0][1]["payload"],
        "site": "orders.py:12 in Order.run",
    }
    assert '"time":"2023-11-14 22:19:20.001","time_ms":1700000360001' in history.dumps()
    assert '  "orders.py:12 in Order.run": "ctx.set(…)"' in lines


ODD: list[Any] = [
    None,
    {1: "a key that is no text", (2, 3): [None]},
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        date(2026, 1, 1),
        Decimal("1.50"),
        uuid.UUID(int=7),
        b"\xff",
    ],
    [float("nan"), float("inf"), 1e300, -0.0, 1 << 70],
    'quotes " \\ and \n lines,   \u2028 and \x00',
    {"nested": [[[[{}]]]]},
    "x" * 10_000,
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: str(value)[:20])
def test_a_payload_of_any_value_comes_back(value: Any) -> None:
    payload = encode(value, "")
    entry = Entry(Kind.STATE_SET, name="s", payload=payload)
    history = History([recorded(entry, argument=payload)])
    assert same(History.loads(history.dumps()), history)


def test_entries_of_every_kind_and_flag_come_back() -> None:
    failure = encode_failure(perdure.TerminalError("no tea", 418))
    commands = [
        Entry(kind, 3, f"n\u00e4me-{kind}", payload, 17, 1 + kind % 2, flags)
        for kind in _format.KIND_NAMES
        if kind >= Kind.OUTPUT
        for payload, flags in (
            (None, 0),
            (b"\x18" * 24, Flag.DIGEST),
            (failure, Flag.FAILED | Flag.REFUSED),
        )
        if payload is not failure or kind not in (Kind.STATE_KEYS, Kind.LOOK_UP)
    ]
    commands += [
        Entry(Kind.STATE_KEYS, payload=b"\x00\x01a\x00\x02bc"),
        Entry(Kind.LOOK_UP, name="Desk.copy", payload=parse_id(ID)),
        Entry(Kind.PROMISE_REJECT, name="p", payload=failure),
    ]
    notifications = [
        [Entry(kind, 5, payload=encode([kind], ""), time_ms=(1 << 64) - 1)]
        for kind in _format.KIND_NAMES
        if Kind.START < kind < Kind.OUTPUT
    ]
    first = recorded(*commands, sites=["a.py:1 in f", "b.py:2 in g"])
    origin = waiter(parse_id(ID), 7)
    second = recorded(origin=origin, idempotency_key="once", headers={"a": "b"}, key="", version=3)
    history = History(
        [
            recorded(journal=[*first.journal, *notifications], sites=first.sites),
            second,
        ],
        {"a.py:1 in f": 'say("hi")'},
    )
    again = History.loads(history.dumps())
    # Call sites are numbered anew, in the order in which they come.
    assert [each.text(entry.site) for each in again.invocations for entry in each.journal[0]] == [
        each.text(entry.site) for each in history.invocations for entry in each.journal[0]
    ]
    assert same(History.loads(again.dumps()), again)
    assert again.dumps() == history.dumps()
    assert again.invocations[1] == second
    assert [[e._replace(site=0) for e in a] for a in again.invocations[0].journal] == [
        [e._replace(site=0) for e in a] for a in history.invocations[0].journal
    ]


def test_a_file_holds_many_and_what_it_held_before_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    many = History([recorded(key=str(number)) for number in range(100)])
    many.save(path)
    assert same(History.load(path), many)
    few = History([recorded()])
    few.add(History([recorded(key="other")], {"a.py:1 in f": "f()"}))
    few.save(path)
    assert [each.key for each in History.load(path).invocations] == ["k", "other"]
    assert History.load(path).sources == {"a.py:1 in f": "f()"}
    assert repr(few) == "<History of 2 invocations, 2 entries>"


def test_what_is_for_people_alone_is_not_read() -> None:
    document = written(History([recorded(Entry(Kind.STATE_SET, name="s", payload=b"\x01"))]))
    invocation = document["invocations"][0]
    invocation["created_at"] = "yesterday"
    invocation["journal"][0][1] |= {"value": ["anything"], "index": 77, "time": "noon"}
    assert read(document).invocations[0].journal[0][1].payload == b"\x01"


PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "history-format.md"


def test_the_page_of_the_format_lists_its_fields_and_its_example_is_one() -> None:
    page = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    structs = (_format.WrittenHistory, _format.WrittenInvocation, _format.WrittenEntry)
    assert sorted(listed) == sorted(name for each in structs for name in each.__struct_fields__)
    assert all(f"`{flag}`" in page for flag in _format.FLAGS)
    assert f"| `version` | integer | {_format.VERSION}. " in page
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None
    history = History.loads(example[1])
    assert history.dumps() == example[1]


# -- what is damaged ------------------------------------------------------------------------------

Change = Callable[[Any], Any]


def invocation(document: Any) -> Any:
    return document["invocations"][0]


def entry(document: Any, number: int = 1) -> Any:
    return invocation(document)["journal"][0][number]


WHICH = rf"history: invocations\[0\] \({ID}\)\.journal\[0\]: "

DAMAGES: list[tuple[Change, str]] = [
    (lambda d: d.update(format="other"), r"its format is 'other', and not 'perdure-history'"),
    (lambda d: d.update(version=2), r"version is 2; this .* 1: it was written by a newer perdure"),
    (lambda d: d.update(version=0), r"version is 0; .*: restore the file, or export it anew"),
    (lambda d: d.pop("invocations"), r"history: .*missing required field `invocations`.*restore"),
    (lambda d: d.update(more=1), r"history: Object contains unknown field `more`"),
    (lambda d: invocation(d).pop("service"), r"history: invocations\[0\]: .*`service`: restore"),
    (lambda d: invocation(d).update(id="inv_1"), r"invocations\[0\]: 'inv_1' is not an invocation"),
    (lambda d: invocation(d).update(status="gone"), r"invocations\[0\]: Invalid enum value 'gone'"),
    (lambda d: invocation(d).update(argument="?"), r"invocations\[0\]: Invalid base64"),
    (
        lambda d: invocation(d).update(restarted_from={"id": ID, "entries": -1}),
        r"invocations\[0\]: can't convert negative int",
    ),
    (lambda d: entry(d).update(kind="leap"), WHICH + r"there is no kind of entry 'leap'.*upgrade"),
    (lambda d: entry(d).update(flags=["hot"]), WHICH + r"there is no flag 'hot' .*upgrade"),
    (lambda d: entry(d).update(payload="a?"), WHICH + r"Invalid base64 .*restore the file"),
    (lambda d: entry(d).update(ref=1 << 32), WHICH + r"ref or time_ms is out of its range"),
    (lambda d: entry(d).update(time_ms=-1), WHICH + r"ref or time_ms is out of its range"),
    (lambda d: entry(d).update(paylaod="AQ=="), WHICH + r"Object contains unknown field `paylaod`"),
    (lambda d: entry(d).update(kind="signal_done"), WHICH + r"a 'signal_done' can not be entry 1"),
    (lambda d: invocation(d)["journal"][0].pop(0), WHICH + r"a 'state_set' can not be entry 0"),
    (
        lambda d: invocation(d)["journal"].append([entry(d, 0)]),
        r"journal\[1\]: a 'start' can not be entry 0 of activation 1",
    ),
    (lambda d: invocation(d)["journal"].append([]), r"journal\[1\]: an activation has at least"),
]


@pytest.mark.parametrize(("change", "text"), DAMAGES)
def test_what_is_damaged_is_told_with_its_place_and_a_remedy(change: Change, text: str) -> None:
    document = written(History([recorded(Entry(Kind.STATE_SET, name="s", payload=b"\x01"))]))
    change(document)
    with pytest.raises(InvalidInput, match=text):
        read(document)


def test_a_text_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    text = History([recorded(Entry(Kind.RUN, name="a"), Entry(Kind.RUN, name="b"))]).dumps()
    path = tmp_path / "cut.json"
    for end in range(len(text) - 2):
        path.write_text(text[:end], "utf-8")
        with pytest.raises(InvalidInput, match=r"cut\.json"):
            History.load(path)


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "merged.json"
    lines = History([recorded()]).dumps().splitlines()
    lines.insert(7, "<<<<<<< HEAD")
    path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(InvalidInput, match=r"merged\.json, line 8: JSON is malformed"):
        History.load(path)
    path.write_bytes(b'{"format": "perdure-history", "version": 1, "invocations": [], "\xff": 1}')
    with pytest.raises(InvalidInput, match=r"merged\.json.*restore the file"):
        History.load(path)


# -- sizes ----------------------------------------------------------------------------------------


class Long(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, count: int) -> int:
        total = 0
        for number in range(count):
            total += await ctx.run("add", int, number)
        return total


def test_a_journal_of_many_pages_is_exported_whole(resident_place: Place) -> None:
    async def main() -> History:
        async with resident_place.engine(Long()) as engine:
            handle = await engine.send(Long.run, 2_000, key="k")
            assert await handle.result() == sum(range(2_000))
            return await engine.export(handle.id)

    history = run(main())
    assert history.invocations[0].journal_length == 4_002
    assert str(replay(history, [Long()])) == "1 recorded invocations: 1 safe"


def test_a_journal_of_100_000_entries_is_written_read_and_replayed(tmp_path: Path) -> None:
    step = Entry(Kind.RUN, name="add", site=1)
    journal = [[Entry(Kind.START, 1, "3.11", None, 1), step]]
    one = encode(1, "")
    journal += [
        [Entry(Kind.STEP_DONE, index, "add", one, 1), step] for index in range(1, 99_999, 2)
    ]
    journal.append([Entry(Kind.STEP_DONE, 99_999, "add", one, 1)])
    journal[-1].append(Entry(Kind.OUTPUT, payload=encode(50_000, "")))
    argument = encode(50_000, "")
    path = tmp_path / "long.json"
    long = recorded(service="Long", argument=argument, journal=journal, sites=["a.py:1 in f"])
    History([long]).save(path)
    assert path.stat().st_size < 20_000_000
    history = History.load(path)
    assert history.invocations == [long]
    assert history.invocations[0].journal_length == 100_002
    assert str(replay(history, [Long()])) == "1 recorded invocations: 1 safe"
