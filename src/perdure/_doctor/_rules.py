"""The rules that the rows of one invocation keep at every commit.

An unfinished one is in exactly one place: ready, scheduled, waiting for its key, backing off,
paused, or suspended with a row for each thing that it waits for. A completed one has the row by
which it goes in time, and no others. Each broken rule is a phrase that has the invocation as its
subject.
"""

from __future__ import annotations

from collections.abc import Iterator

from perdure._core._entries import Entry, Kind
from perdure._doctor._rows import Rows
from perdure._ids import parse_id
from perdure._runtime._layout import Goes, Output, key_group


def broken_rules(rows: Rows) -> Iterator[str]:
    """What is wrong with the rows of an invocation."""
    for index in rows.gaps:
        yield f"has no entry {index} in its journal, but later ones"
    for twice in rows.elsewhere.twice:
        yield f"has two rows for {twice}"
    if rows.elsewhere.line not in (b"", key_group(rows.record.service, rows.record.key)):
        yield "stands in the line of another key"
    if rows.output is not None:
        yield from _of_completed(rows)
        return
    if rows.expiries or rows.is_cut:
        yield "has not completed, but goes"
    yield from _of_places(rows)
    yield from _of_what_is_awaited(rows)
    yield from _of_rows_without_entry(rows)
    yield from _of_pending(rows)
    for name in rows.signals:
        if f"signal {name!r}" in rows.elsewhere.waiters.values():
            yield f"waits for the signal {name!r}, which is there"


def _places(rows: Rows) -> list[str]:
    elsewhere = rows.elsewhere
    due_ms = rows.record.due_ms
    candidates = (
        ("ready", rows.ready),
        ("backing off", 0 in elsewhere.backoffs),
        ("paused", rows.paused),
        ("scheduled", due_ms > 0 and elsewhere.timers.get(0) == due_ms),
        ("waiting for its key", bool(elsewhere.in_line)),
    )
    return [place for place, is_there in candidates if is_there]


def _answered(rows: Rows) -> set[int]:
    return {entry.ref for entry in rows.pending if entry.kind != Kind.CANCELLED}


def _of_places(rows: Rows) -> Iterator[str]:
    places, answered, elsewhere = _places(rows), _answered(rows), rows.elsewhere
    if len(places) > 1:
        yield f"is in several places: {', '.join(places)}"
    if elsewhere.backoffs != elsewhere.backoff_timers:
        yield (
            f"has back-offs {elsewhere.backoffs}, but their timers are {elsewhere.backoff_timers}"
        )
    unstarted = [
        index
        for index, (entry, _) in rows.outstanding.items()
        if entry.kind == Kind.RUN and index not in elsewhere.backoffs and index not in answered
    ]
    if not places and rows.pending:
        yield f"has {len(rows.pending)} notifications that wait, but is not ready"
    if not places and unstarted:
        yield f"has steps to run, of entries {unstarted}, but is not ready"
    if not places and not rows.length:
        yield "has not begun, but is not ready"
    if rows.ready and not (rows.pending or unstarted or not rows.length or rows.resumed):
        yield "is ready, but has nothing to do"
    if not places and not rows.outstanding:
        yield "waits for nothing"


def _of_what_is_awaited(rows: Rows) -> Iterator[str]:
    answered = _answered(rows)
    for index, (entry, child) in rows.outstanding.items():
        if entry.kind == Kind.AWAKEABLE:
            expected = b"\x01" if index in answered else b""
            if rows.awakeables.get(index) != expected:
                yield f"has no row, or a wrong one, for the awakeable of entry {index}"
        if index in answered:
            continue
        waits_for = _waits_for(entry, child)
        if waits_for and rows.elsewhere.waiters.get(index) != waits_for:
            yield f"waits for {waits_for} by entry {index}, but no row names it as waiting"
        if entry.kind == Kind.TIMER and rows.elsewhere.timers.get(index) != entry.time_ms:
            yield f"has no row for the timer of entry {index}"


def _of_rows_without_entry(rows: Rows) -> Iterator[str]:
    waited_for = rows.outstanding.keys() - _answered(rows)
    elsewhere = rows.elsewhere
    for index, due_ms in elsewhere.timers.items():
        if not index and (due_ms != rows.record.due_ms or rows.length):
            yield f"has a row by which it begins at {due_ms}, which it does not"
        if index and index not in waited_for:
            yield f"has a timer row of entry {index}, which waits for none"
    for index in elsewhere.waiters:
        if index not in waited_for:
            yield f"has a waiter row of entry {index}, which waits for none"
    for index in elsewhere.backoffs:
        if index and index not in waited_for:
            yield f"has a back-off of entry {index}, which is no step to run"
    for index in rows.awakeables:
        if index not in rows.outstanding:
            yield f"has an awakeable row of entry {index}, which is none that waits"


def _of_pending(rows: Rows) -> Iterator[str]:
    answered = _answered(rows)
    if len(answered) != sum(entry.kind != Kind.CANCELLED for entry in rows.pending):
        yield "has two pending notifications of one operation"
    if not answered <= rows.outstanding.keys():
        strays = sorted(answered - rows.outstanding.keys())
        yield f"has pending notifications that fit no operation: of entries {strays}"


def _waits_for(entry: Entry, child: bytes) -> str:
    """What the row of ``waiters`` that an outstanding command must have is of; none for some."""
    if entry.kind == Kind.CALL:
        return output_of(child)
    if entry.kind == Kind.ATTACH:
        return output_of(parse_id(entry.name))
    if entry.kind == Kind.SIGNAL_AWAIT:
        return f"signal {entry.name!r}"
    return f"promise {entry.name!r}" if entry.kind == Kind.PROMISE_AWAIT else ""


def output_of(invocation_id: bytes) -> str:
    return f"the output of {invocation_id.hex()}"


def _of_completed(rows: Rows) -> Iterator[str]:
    elsewhere = rows.elsewhere
    left = {
        "a row in ready": rows.ready,
        "a row in paused": rows.paused,
        "pending notifications": rows.pending,
        "timers": elsewhere.timers or elsewhere.backoff_timers,
        "back-offs": elsewhere.backoffs,
        "rows that name it as waiting": elsewhere.waiters,
        "awakeables": rows.awakeables,
        "signals": rows.signals,
        "a place in the line of its key": elsewhere.in_line is not None,
    }
    for what, is_there in left.items():
        if is_there:
            yield f"has completed, but has {what}"
    assert rows.output is not None
    yield from _of_what_goes(rows, rows.output)


def _of_what_goes(rows: Rows, output: Output) -> Iterator[str]:
    """What goes later than it should proves nothing: what can not be removed is put off."""
    record = rows.record
    all_ms = max(record.output_ms, record.journal_ms)
    goes: dict[int, list[int]] = {Goes.ALL: [], Goes.JOURNAL: []}
    for expiry in rows.expiries:
        goes[expiry.what].append(expiry.due_ms)
    if len(goes[Goes.ALL]) != 1 or len(goes[Goes.JOURNAL]) > 1:
        yield f"has completed, but {len(goes[Goes.ALL])} rows say when it goes"
        return
    if goes[Goes.ALL] == [0]:
        return  # a purge by hand has begun, and is gone on with
    early = goes[Goes.ALL][0] < output.completed_ms + all_ms
    if early or any(due < output.completed_ms + record.journal_ms for due in goes[Goes.JOURNAL]):
        yield "goes before its time"
    stays = record.journal_ms == all_ms or bool(goes[Goes.JOURNAL])
    if rows.length and not stays:
        yield "has a journal that is to go first, and no row by which it goes"
    if not rows.length and stays and record.journal_ms and not output.failed:
        yield "has completed, but has not the journal that is to stay"
