"""The rules that a closed data directory keeps.

Each unfinished invocation is ready, suspended, backing off or paused; each completed one has the
row by which it goes in time; and what has gone has left nothing behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perdure._core._entries import Entry, Kind
from perdure._ids import format_id, parse_id
from perdure._runtime._layout import (
    ID_BYTES,
    Expiry,
    Goes,
    Output,
    Record,
    TimerKey,
    target_digest,
    unpack_entry,
    unpack_group,
    unpack_waiter,
)
from perdure._runtime._outstanding import Outstanding, outstanding_in
from perdure._runtime._setbacks import RESUMED
from perdure._store import Db, Store


@dataclass
class _Rows:
    """What the store holds of one invocation."""

    record: Record | None = None
    output: Output | None = None
    ready: bool = False
    resumed: bool = False  # ready, and perhaps with nothing to do
    paused: bool = False
    pending: list[Entry] = field(default_factory=list)
    timers: dict[int, int] = field(default_factory=dict)  # durable timers: index to due_ms
    backoff_timers: dict[int, int] = field(default_factory=dict)
    backoffs: dict[int, int] = field(default_factory=dict)
    waiters: dict[int, str] = field(default_factory=dict)  # index to promise name
    journal: list[Entry] = field(default_factory=list)
    journal_is_cut: bool = False  # at its beginning
    expiries: list[int] = field(default_factory=list)

    awakeables: dict[int, bytes] = field(default_factory=dict)
    signals: int = 0
    in_line: int | None = None  # place in the line of its key, 0 for who has it
    id: bytes = b""

    def outstanding(self) -> dict[int, Outstanding]:
        return outstanding_in(self.id, enumerate(self.journal))


def assert_invariants(path: Path) -> None:
    """Assert that each unfinished invocation is in exactly one place, and no row dangles."""
    assert violations(path) == []


def violations(path: Path) -> list[str]:
    """What breaks the rules in the closed data directory *path*, a sentence each."""
    store = Store(path, durability="os")
    try:
        invocations, found = _read(store)
    finally:
        store.close()
    for invocation_id, rows in sorted(invocations.items()):
        name = format_id(invocation_id)
        if rows.record is not None:
            name += f" ({rows.record.service}.{rows.record.handler} {rows.record.key!r})"
        found += [f"{name}: {problem}" for problem in _problems(rows)]
    return found


def _read(store: Store) -> tuple[dict[bytes, _Rows], list[str]]:
    rows: defaultdict[bytes, _Rows] = defaultdict(_Rows)
    found: list[str] = []
    for key, value in _all(store, Db.INVOCATIONS):
        rows[key].record = Record.unpack(value)
    for key, value in _all(store, Db.OUTPUTS):
        rows[key].output = Output.unpack(value)
    for key, value in _all(store, Db.READY):
        rows[key].ready = True
        rows[key].resumed = value == RESUMED
    for key, _ in _all(store, Db.PAUSED):
        rows[key].paused = True
    for key, value in _all(store, Db.PENDING):
        rows[key[:ID_BYTES]].pending.append(unpack_entry(value))
    for key, value in _all(store, Db.TIMERS):
        timer = TimerKey.unpack(key)
        of = rows[timer.invocation_id]
        (of.backoff_timers if value else of.timers)[timer.operation] = timer.due_ms
    promises = {key for key, _ in _all(store, Db.PROMISES)}
    for key, value in _all(store, Db.WAITERS):
        if key[:1] == b"b":
            invocation_id, index = unpack_waiter(key[1:])
            rows[invocation_id].backoffs[index] = int.from_bytes(value, "big")
            continue
        if key[:1] == b"o":
            invocation_id, index = unpack_waiter(key[1 + ID_BYTES :])
            rows[invocation_id].waiters[index] = f"output of {key[1 : 1 + ID_BYTES].hex()}"
            continue
        if key[:1] == b"s":
            name, rest = _unpack_text(key[1 + ID_BYTES :])
            index = int.from_bytes(rest, "big")
            rows[key[1 : 1 + ID_BYTES]].waiters[index] = f"signal {name}"
            continue
        if key[:1] == b"e":
            continue  # see _problems_of_keys
        service, rest = _unpack_text(key[1:])
        keyed, rest = _unpack_text(rest)
        name, rest = _unpack_text(rest)
        invocation_id, index = unpack_waiter(rest)
        rows[invocation_id].waiters[index] = f"promise {name}"
        group = key[1 : 1 + 4 + len(service.encode()) + len(keyed.encode())]
        if group + name.encode() in promises:
            found.append(f"a waiter of {service} {keyed!r} waits for the completed {name!r}")
    lines: defaultdict[bytes, int] = defaultdict(int)
    for key, value in _all(store, Db.INBOX):
        rows[value].in_line = lines[key[:-8]]
        lines[key[:-8]] += 1
    for key, value in _all(store, Db.AWAKEABLES):
        invocation_id, index = unpack_waiter(key)
        rows[invocation_id].awakeables[index] = value
    for key, _ in _all(store, Db.SIGNALS):
        rows[key[:ID_BYTES]].signals += 1
    for key, _ in _all(store, Db.JOURNAL):
        rows[key[:ID_BYTES]]  # known by its journal alone, if by nothing else
    for key, _ in _all(store, Db.EXPIRY):
        expiry = Expiry.unpack(key)
        if expiry.what != Goes.PROMISES:
            rows[expiry.subject].expiries.append(expiry.what)
    for invocation_id, of in rows.items():
        of.id = invocation_id
        position = 0
        while page := store.journal(invocation_id, position, Entry):
            for first_index, entries in page:
                if first_index and not of.journal:
                    of.journal_is_cut = True
                elif first_index != len(of.journal) and not of.journal_is_cut:
                    found.append(f"{format_id(invocation_id)}: a gap at entry {len(of.journal)}")
                of.journal += entries
                position = first_index + len(entries)
    for _, value in _all(store, Db.TARGETS):
        if rows[value[-ID_BYTES:]].record is None:
            found.append(f"a target names the unknown {format_id(value[-ID_BYTES:])}")
    return dict(rows), found + _problems_of_keys(store)


def _problems_of_keys(store: Store) -> list[str]:
    """What is left of keys of workflows that no invocation and no expiry stands for."""
    early = {
        key[1:]: int.from_bytes(value, "big")
        for key, value in _all(store, Db.WAITERS)
        if key[:1] == b"e"
    }
    expiries = {
        (value, Expiry.unpack(key).due_ms)
        for key, value in _all(store, Db.EXPIRY)
        if Expiry.unpack(key).what == Goes.PROMISES
    }
    found: list[str] = []
    if expiries != set(early.items()):
        found.append(f"rows of early promises {early} and their expiries {expiries} differ")
    targets = {key for key, _ in _all(store, Db.TARGETS)}
    groups = {_group_of(key) for key, _ in _all(store, Db.PROMISES)}
    workflows = {unpack_group(group)[0] for group in groups | set(early)}
    workflows |= {
        service
        for _, value in _all(store, Db.TARGETS)
        for service, rest in [_unpack_text(value[:-ID_BYTES])]
        if not _unpack_text(rest)[1]  # of a run: else it is of an idempotency key
    }
    groups |= {
        group
        for key, _ in _all(store, Db.STATE)
        if unpack_group(group := _group_of(key))[0] in workflows
    }
    return found + [
        f"something is left of {unpack_group(group)}"
        for group in groups
        if target_digest(group) not in targets and group not in early
    ]


def _group_of(key: bytes) -> bytes:
    """The text service and the text key that a key begins with."""
    end = 2 + int.from_bytes(key[:2], "big")
    return key[: end + 2 + int.from_bytes(key[end : end + 2], "big")]


def _all(store: Store, db: Db) -> Iterator[tuple[bytes, bytes]]:
    start = b""
    while page := store.scan_committed(db, start):
        yield from page
        start = page[-1][0] + b"\0"


def _unpack_text(raw: bytes) -> tuple[str, bytes]:
    end = 2 + int.from_bytes(raw[:2], "big")
    return raw[2:end].decode(), raw[end:]


def _problems(rows: _Rows) -> list[str]:
    if rows.record is None:
        return ["has rows, but no record"]
    if rows.output is not None:
        return _problems_of_completed(rows)
    found: list[str] = []
    if rows.expiries or rows.journal_is_cut:
        found.append("has not completed, but goes")
    backs_off = 0 in rows.backoffs
    places = [
        place
        for place, is_there in (
            ("ready", rows.ready),
            ("backing off", backs_off),
            ("paused", rows.paused),
            ("scheduled", rows.timers.get(0) == rows.record.due_ms and rows.record.due_ms > 0),
            ("waiting for its key", bool(rows.in_line)),
        )
        if is_there
    ]
    if len(places) > 1:
        found.append(f"is in several places: {places}")
    if rows.backoffs != rows.backoff_timers:
        found.append(f"back-offs {rows.backoffs} and their timers {rows.backoff_timers} differ")
    outstanding = rows.outstanding()
    answers = [entry for entry in rows.pending if entry.kind != Kind.CANCELLED]
    answered = {entry.ref for entry in answers}
    unstarted = [
        index
        for index, (entry, _) in outstanding.items()
        if entry.kind == Kind.RUN and index not in rows.backoffs and index not in answered
    ]
    has_work = bool(rows.pending or unstarted or not rows.journal)
    if not places and rows.pending:
        found.append(f"{len(rows.pending)} notifications wait, but it is not ready")
    if not places and unstarted:
        found.append(f"steps {unstarted} must run, but it is not ready")
    if not places and not rows.journal:
        found.append("has not begun, but it is not ready")
    if rows.ready and not has_work and not rows.resumed:
        found.append("is ready, but has nothing to do")
    if not places and not outstanding:
        found.append("waits for nothing")
    for index, (entry, child) in outstanding.items():
        if entry.kind == Kind.AWAKEABLE:
            expected = b"\x01" if index in answered else b""
            if rows.awakeables.get(index) != expected:
                found.append(f"the awakeable of entry {index} has no row, or a wrong one")
        if index in answered:
            continue
        waits_for = _waits_for(entry, child)
        if waits_for and rows.waiters.get(index) != waits_for:
            found.append(f"{waits_for}, of entry {index}, has no waiter")
        if entry.kind == Kind.TIMER and rows.timers.get(index) != entry.time_ms:
            found.append(f"the timer of entry {index} has no row")
    waited_for = outstanding.keys() - answered
    found += [
        f"a timer row names entry {index}, which waits for none"
        for index in rows.timers
        if index and index not in waited_for
    ]
    found += [
        f"a waiter row names entry {index}, which waits for none"
        for index in rows.waiters
        if index not in waited_for
    ]
    found += [
        f"a back-off names entry {index}, which is no step to run"
        for index in rows.backoffs
        if index and index not in waited_for
    ]
    found += [
        f"an awakeable row names entry {index}, which is none that waits"
        for index in rows.awakeables
        if index not in outstanding
    ]
    if len(answered) != len(answers):
        found.append("two pending notifications are of one operation")
    if not answered <= set(outstanding):
        found.append(f"pending notifications {answered - set(outstanding)} fit no operation")
    return found


def _waits_for(entry: Entry, child: bytes) -> str:
    """The row of ``waiters`` that an outstanding command must have; none for some."""
    if entry.kind == Kind.CALL:
        return f"output of {child.hex()}"
    if entry.kind == Kind.ATTACH:
        return f"output of {parse_id(entry.name).hex()}"
    if entry.kind == Kind.SIGNAL_AWAIT:
        return f"signal {entry.name}"
    return f"promise {entry.name}" if entry.kind == Kind.PROMISE_AWAIT else ""


def _problems_of_completed(rows: _Rows) -> list[str]:
    left = {
        "ready": rows.ready,
        "paused": rows.paused,
        "pending": rows.pending,
        "timers": rows.timers,
        "back-off timers": rows.backoff_timers,
        "back-offs": rows.backoffs,
        "waiters": rows.waiters,
        "awakeables": rows.awakeables,
        "signals": rows.signals,
        "a place in the line of its key": rows.in_line is not None,
    }
    found = [f"is completed, but has {what}: {value}" for what, value in left.items() if value]
    if rows.expiries.count(Goes.ALL) != 1:
        found.append(f"is completed, but its expiries are {rows.expiries}")
    return found
