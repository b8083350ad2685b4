"""Reading every row of a store, and the rules between the databases.

Theory of operation. Each database is read once, in key order, its checksums checked. What names an
invocation and is keyed by something else is kept in memory, some hundred bytes a row. Then the
invocations are taken one after the other: their other rows are found by their ids.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator

from perdure._core._entries import Kind
from perdure._doctor._forms import check_form
from perdure._doctor._report import Finding, Severity
from perdure._doctor._rows import NOWHERE_ELSE, Elsewhere, Rows, id_of, read_rows, split_text
from perdure._doctor._rules import broken_rules, output_of
from perdure._doctor._sayings import Sayings, told_of_promise
from perdure._ids import InvocationId, format_id
from perdure._runtime._layout import (
    ID_BYTES,
    Expiry,
    Goes,
    Record,
    TimerKey,
    idempotency_target,
    key_group,
    run_target,
    split_group,
    target_digest,
    u64,
    unpack_group,
    unpack_waiter,
)
from perdure._store import Db, MetaKey, Store
from perdure.errors import StoreCorrupt

_RESTORE = "restore it from a backup"
_REPORT = (
    "a defect of perdure, or the file was changed by something else: report it, with this report; "
    "the invocation can be killed, or a backup restored"
)

_GAP_MAX = 100
"""Missing call sites that are told of where one number is far from the one before."""

_ORDER = (
    # What keys of workflows there are must be known before their state is looked at.
    *(Db.META, Db.SITES, Db.INVOCATIONS, Db.OUTPUTS, Db.READY, Db.PAUSED, Db.PENDING),
    *(Db.AWAKEABLES, Db.SIGNALS, Db.JOURNAL, Db.TIMERS, Db.INBOX, Db.EXPIRY, Db.TARGETS),
    *(Db.WAITERS, Db.PROMISES, Db.STATE),
)
_BY_ID = frozenset({Db.OUTPUTS, Db.READY, Db.PAUSED, Db.AWAKEABLES, Db.JOURNAL})


class Contents:
    """Reads all of *store*, which nobody writes to meanwhile; *found* is told what is wrong.

    Args:
      reading: Told before each database its name, and after some rows None.

    Attributes:
      python_versions, logic_versions: How many unfinished invocations began under each.
    """

    def __init__(
        self,
        store: Store,
        found: Callable[[Finding], None],
        reading: Callable[[str | None], None],
    ) -> None:
        self._store = store
        self._found = found
        self._reading = reading
        self._elsewhere: defaultdict[bytes, Elsewhere] = defaultdict(Elsewhere)
        self._expiries: defaultdict[bytes, list[Expiry]] = defaultdict(list)
        self._workflows: set[str] = set()
        self._sites: set[int] = set()
        self._missing_sites: set[int] = set()
        self._last_site = 0
        self._meta: dict[bytes, bytes] = {}
        self._last = b""  # the id or the group that the row before belonged to
        self._place_in_line = 0
        self.python_versions: dict[str, int] = {}
        self.logic_versions: dict[str, int] = {}

    def read(self) -> None:
        """Read every database, then look at every invocation."""
        look = {
            Db.META: self._meta_row,
            Db.SITES: self._site,
            Db.TIMERS: self._timer,
            Db.INBOX: self._inbox,
            Db.EXPIRY: self._expiry,
            Db.TARGETS: self._target,
            Db.WAITERS: self._waiter,
            Db.PROMISES: self._promise,
            Db.STATE: self._state,
            Db.PENDING: self._pending,
            Db.SIGNALS: self._signal,
            **dict.fromkeys(_BY_ID, self._by_id),
        }
        for db in _ORDER:
            self._reading(db.name.lower())
            self._last = b""
            for key, value in self._rows_of(db):
                try:
                    check_form(db, key, value)
                except Exception as error:  # decoders have many, without a common base
                    self._stranger(db, key, error)
                    continue
                if db in look:
                    with contextlib.suppress(StoreCorrupt):  # told of where its row is looked at
                        look[db](key, value)
            if db is Db.META:
                self._whole_meta()
        self._reading("invocations")
        for invocation_id, value in self._rows_of(Db.INVOCATIONS, told=True):
            self._invocation(invocation_id, value)
        for invocation_id in sorted(self._elsewhere.keys() | self._expiries.keys()):
            with contextlib.suppress(StoreCorrupt):  # its record is damaged, which was told
                if not self._is_known(invocation_id):
                    self._broken(invocation_id, "has rows, but no record")
        self._tell_of_sites()

    def _rows_of(self, db: Db, *, told: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """All rows in key order; those that are damaged are told of, unless that was done before.

        A damaged page can lead back to an earlier one: the keys must rise.
        """
        start = b""
        while True:
            page, last = self._page(db, start, told)
            for row in page:
                yield row
                self._reading(None)
            if last is None:
                return
            if last < start:
                self._damaged(db, last, "the keys are out of order")
                return
            start = last + b"\0"

    def _page(
        self, db: Db, start: bytes, told: bool
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """The sound ones of the next rows, and the last key looked at; None: there are no more."""
        try:
            page = self._store.scan_committed(db, start)
        except StoreCorrupt:
            pass
        else:
            return page, page[-1][0] if page else None
        sound: list[tuple[bytes, bytes]] = []
        try:
            keys = self._store.keys_committed(db, start, limit=64)
        except StoreCorrupt as error:
            self._damaged(db, start, f"from there on it can not be read: {error}")
            return [], None
        for key in keys:
            try:
                value = self._store.get(db, key, b"")
                if value is None:
                    raise StoreCorrupt("the row is not where its key belongs")
            except StoreCorrupt as error:
                if not told:
                    self._damaged(db, key, str(error).rpartition(": ")[2].partition(";")[0])
            else:
                sound.append((key, value))
        return sound, keys[-1]

    def _stranger(self, db: Db, key: bytes, error: Exception) -> None:
        what = str(error).rpartition("the row is none of perdure's: ")[2]
        self._damaged(db, key, f"the row is none of perdure's: {what}")

    def _damaged(self, db: Db, key: bytes, what: str) -> None:
        place = f"database {db.name.lower()}, key {key.hex()}"
        self._found(Finding(Severity.ERROR, what, place, _RESTORE))

    def _broken(self, invocation_id: bytes, what: str, record: Record | None = None) -> None:
        if len(invocation_id) == ID_BYTES:
            place = format_id(InvocationId(invocation_id))
        else:  # the key of a row that another program has written
            place = f"invocation {invocation_id.hex()}"
        if record is not None:
            place += f" ({record.service}.{record.handler} {record.key!r})"
        self._found(Finding(Severity.ERROR, what, place, _REPORT))

    # -- row by row ---------------------------------------------------------------------------

    def _is_known(self, invocation_id: bytes) -> bool:
        return self._store.get(Db.INVOCATIONS, invocation_id, b"") is not None

    def _meta_row(self, key: bytes, value: bytes) -> None:
        self._meta[key] = value

    def _whole_meta(self) -> None:
        for name in {MetaKey.OPENINGS, MetaKey.FILE_SIZE, MetaKey.DURABILITY} - self._meta.keys():
            self._damaged(Db.META, name, f"there is no row {name.decode()!r}")

    def _site(self, key: bytes, _: bytes) -> None:
        number = int.from_bytes(key, "big")
        expected = max(self._last_site + 1, number - _GAP_MAX)  # a stray number has a long gap
        self._missing_sites.update(range(expected, number))
        self._last_site = number
        self._sites.add(number)

    def _tell_of_sites(self) -> None:
        if self._missing_sites:
            numbers = ", ".join(map(str, sorted(self._missing_sites)[:20]))
            what = f"there are {len(self._missing_sites)} call sites missing: {numbers}"
            remedy = (
                "invocations go on without them, and describe does not show these lines; restore "
                "a backup if that matters"
            )
            self._found(Finding(Severity.WARNING, what, "database sites", remedy))

    def _arrived(self, place: str, arrival: bytes) -> None:
        """Arrivals begin with the number of the opening that has given them out."""
        opening = int.from_bytes(arrival, "big") >> 40
        if opening >= int.from_bytes(self._meta.get(MetaKey.OPENINGS, bytes(4)), "little"):
            what = f"the arrival {arrival.hex()} is of an opening that has not been yet"
            self._found(Finding(Severity.ERROR, what, place, _RESTORE))

    def _pending(self, key: bytes, value: bytes) -> None:
        self._by_id(key, value)
        self._arrived(f"database pending, key {key.hex()}", key[ID_BYTES:])

    def _signal(self, key: bytes, value: bytes) -> None:
        self._by_id(key, value)
        self._arrived(f"database signals, key {key.hex()}", key[-8:])

    def _by_id(self, key: bytes, _: bytes) -> None:
        invocation_id = id_of(key)
        if invocation_id != self._last:
            self._last = invocation_id
            if not self._is_known(invocation_id):
                self._elsewhere[invocation_id]  # told of at the end, once

    def _timer(self, key: bytes, value: bytes) -> None:
        timer = TimerKey.unpack(key)
        of = self._elsewhere[timer.invocation_id]
        timers = of.backoff_timers if value else of.timers
        if timer.operation in timers:
            of.twice.append(f"the timer of entry {timer.operation}")
        timers[timer.operation] = timer.due_ms

    def _inbox(self, key: bytes, value: bytes) -> None:
        self._place_in_line = self._place_in_line + 1 if key[:-8] == self._last else 0
        self._last = key[:-8]
        of = self._elsewhere[value]
        if of.in_line is not None:
            of.twice.append("its place in a line")
        of.in_line, of.line = self._place_in_line, key[:-8]
        self._arrived(f"database inbox, key {key.hex()}", key[-8:])

    def _expiry(self, key: bytes, value: bytes) -> None:
        expiry = Expiry.unpack(key)
        if expiry.what != Goes.PROMISES:
            self._expiries[expiry.subject].append(expiry)
        elif self._store.get(Db.WAITERS, b"e" + value, b"") != u64(expiry.due_ms):
            self._loose(value, "has a row that says when its promises go, and no other of that")

    def _target(self, _: bytes, value: bytes) -> None:
        target, invocation_id = value[:-ID_BYTES], value[-ID_BYTES:]
        if not self._is_known(invocation_id):
            self._broken(invocation_id, "is named by a row of targets, but has no record")
        service, rest = split_text(target)
        if not split_text(rest)[1]:  # of a run; else it is of an idempotency key
            self._workflows.add(service)

    def _waiter(self, key: bytes, value: bytes) -> None:
        what, rest = key[:1], key[1:]
        if what == b"b":
            invocation_id, index = unpack_waiter(rest)
            self._elsewhere[invocation_id].backoffs[index] = int.from_bytes(value, "big")
        elif what == b"o":
            invocation_id, index = unpack_waiter(rest[ID_BYTES:])
            awaited = id_of(rest)
            self._elsewhere[invocation_id].waiters[index] = output_of(awaited)
            if not self._is_known(awaited):
                self._broken(awaited, "is waited for, but has no record")
            elif self._store.get(Db.OUTPUTS, awaited, b"") is not None:
                self._broken(awaited, "has completed, but somebody waits for it")
        elif what == b"s":
            name, index_bytes = split_text(rest[ID_BYTES:])
            waiters = self._elsewhere[id_of(rest)].waiters
            waiters[int.from_bytes(index_bytes, "big")] = f"signal {name!r}"
        elif what == b"e":
            self._workflows.add(unpack_group(rest)[0])
            due_ms = int.from_bytes(value, "big")
            expiry = Expiry.of_promises(due_ms, rest)
            if self._store.get(Db.EXPIRY, b"", expiry.pack()) is None:
                self._loose(rest, "has promises, and no row by which they go")
        elif what == b"p":
            group, named = split_group(rest)
            name, suffix = split_text(named)
            invocation_id, index = unpack_waiter(suffix)
            self._elsewhere[invocation_id].waiters[index] = f"promise {name!r}"
            if self._store.get(Db.PROMISES, group, name.encode()) is not None:
                self._loose(group, f"has a waiter of the promise {name!r}, which is completed")
        else:
            raise ValueError(f"a waiter of the unknown kind {what!r}")

    def _promise(self, key: bytes, _: bytes) -> None:
        group, _ = split_group(key)
        self._workflows.add(unpack_group(group)[0])
        self._key(group)

    def _state(self, key: bytes, _: bytes) -> None:
        group, _ = split_group(key)
        if unpack_group(group)[0] in self._workflows:
            self._key(group)

    def _key(self, group: bytes) -> None:
        """There is state or a promise of this key of a workflow."""
        if group == self._last:
            return
        self._last = group
        if (
            self._store.get(Db.TARGETS, target_digest(group), b"") is None
            and self._store.get(Db.WAITERS, b"e" + group, b"") is None
        ):
            self._loose(group, "has state or promises, but no run, and no row by which they go")

    def _loose(self, group: bytes, what: str) -> None:
        service, key = unpack_group(group)
        self._found(Finding(Severity.ERROR, what, f"{service} {key!r}", _REPORT))

    # -- invocation by invocation -----------------------------------------------------------------

    def _invocation(self, invocation_id: bytes, value: bytes) -> None:
        elsewhere = self._elsewhere.pop(invocation_id, NOWHERE_ELSE)
        expiries = self._expiries.pop(invocation_id, [])
        try:
            record = Record.unpack(value, invocation_id)
            is_run = self._leads_to(run_target(record.service, record.key), invocation_id)
            journal = Sayings(self._store, self._sites, invocation_id, record, is_run=is_run)
            rows = read_rows(self._store, invocation_id, record, elsewhere, expiries, journal.hear)
            self._journal(invocation_id, rows, journal, is_run)
        except Exception as error:  # decoders have many, without a common base
            self._broken(invocation_id, f"can not be read: {error}")
            return
        for rule in [*broken_rules(rows), *journal.broken]:
            self._broken(invocation_id, rule, record)
        self._missing_sites |= journal.missing_sites
        self._count_versions(rows)

    def _journal(self, invocation_id: bytes, rows: Rows, journal: Sayings, is_run: bool) -> None:
        """What follows from all of the journal together."""
        record, output = rows.record, rows.output
        if journal.ended is not None and output != journal.ended:
            journal.broken.append("ended otherwise than its outcome says")
        elif output is not None and rows.length and not journal.ended and not output.failed:
            journal.broken.append("has completed, but its journal lacks the end")
        if output is None:
            journal.compare_state()
            for entry in rows.pending:
                if is_run and entry.kind == Kind.PROMISE_DONE:
                    group = key_group(record.service, record.key)
                    journal.broken += told_of_promise(self._store, group, entry)
                elif entry.kind == Kind.CALL_DONE:
                    journal.answered(entry)
        stays = output is None or record.output_ms or record.journal_ms
        if stays and not self._is_found_by_key(invocation_id, record):
            journal.broken.append("is not found by its idempotency key")
        may_be_run = journal.uses_promises or record.service in self._workflows
        if stays and record.handler == "run" and may_be_run and not is_run:
            journal.broken.append("is not found by its key")
        has_place = rows.elsewhere.in_line is not None or record.origin
        if output is None and journal.writes_state and not is_run and not has_place:
            journal.broken.append("writes the state of its key, but has no place in its line")

    def _is_found_by_key(self, invocation_id: bytes, record: Record) -> bool:
        """Whether who asks for it again gets it, and not a second one."""
        if record.idempotency_key is None:
            return True
        key = record.service, record.key
        targets = (
            idempotency_target(*key, record.handler, record.idempotency_key),
            run_target(*key),  # that of a run has no other
        )
        return any(self._leads_to(target, invocation_id) for target in targets)

    def _leads_to(self, target: bytes, invocation_id: bytes) -> bool:
        value = self._store.get(Db.TARGETS, target_digest(target), b"")
        return value is not None and value.endswith(invocation_id)

    def _count_versions(self, rows: Rows) -> None:
        if rows.start is not None and rows.output is None:
            for counts, version in (
                (self.python_versions, rows.start.name),
                (self.logic_versions, str(rows.start.ref)),
            ):
                counts[version] = counts.get(version, 0) + 1
