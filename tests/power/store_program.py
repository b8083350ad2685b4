"""A store that is written to in all ways, and what must be left of it when the power goes.

Each unit is a pure function of its number, so of any state the whole contents are known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from crash_support import Note, die, note, particulars
from store_support import Entry

from perdure._restoring import restore
from perdure._store import Backup, Db, Store, read_mark, recognise, sync_directory, warnings_of
from perdure.errors import StoreError

GROUP = b"g" * 16
MAP_BYTES = 1 << 20
"""The least there is: it grows when the huge value comes."""

Rows = dict[tuple[Db, bytes], bytes]
Durability = Literal["fsync", "os"]


def changes(number: int) -> Iterator[tuple[Db, bytes, bytes | None]]:
    """What unit *number* does to the rows, apart from its journal chunk; None: the row goes."""
    yield Db.STATE, b"counter", str(number).encode()
    yield Db.STATE, b"only%06d" % number, b"%06d" % number * (number * 997 % 1500)
    # Now in the page of its row, now in pages of its own, which are freed and used again.
    yield Db.STATE, b"changes", b"%06d" % number * (4000 if number % 3 == 0 else 50)
    yield Db.STATE, b"only%06d" % (number - 4), None
    yield Db.PROMISES, b"p%06d" % number, b"promise"
    yield Db.READY, b"r%06d" % number, b""
    yield Db.READY, b"r%06d" % (number - 1), None
    if number == 13:
        yield Db.STATE, b"huge", b"%06d" % number * 200_000
    if number == 15:
        yield Db.STATE, b"huge", None


def rows_after(number: int) -> Rows:
    """All rows once the units up to *number* are there."""
    rows: Rows = {}
    for unit in range(1, number + 1):
        for db, suffix, value in changes(unit):
            if value is None:
                rows.pop((db, suffix), None)
            else:
                rows[db, suffix] = value
    return rows


def seal(store: Store, number: int) -> int:
    for db, suffix, value in changes(number):
        if value is None:
            store.delete(db, GROUP, suffix)
        else:
            store.put(db, GROUP, suffix, value)
    store.put_journal(GROUP, number, [Entry(1, number), Entry(2, number)])
    note("sealing", unit=number)
    return store.seal()


def write(store: Store, first: int, last: int) -> None:
    """Units, which are waited for one by one and in groups."""
    for number in range(first, last + 1):
        unit = seal(store, number)
        if number % 3 != 1 or number == last:
            store.wait_committed(unit)
            note("acknowledged", unit=number)
            store.on_event()


def back_up(store: Store, target: Path) -> None:
    Backup(store, target).run()
    note("backed up")


def die_at_name(number: int) -> None:
    """Be killed when a directory is to be synced for the *number*-th time, before it is."""
    numbers = count(1)

    def sync(directory: Path) -> None:
        if next(numbers) == number:
            die()
        sync_directory(directory)

    patch("perdure._store._directory.sync_directory", sync).start()


def publish_early(later: Callable[[Callable[[Store], None], Store], object]) -> None:
    """As if the writer published each unit when it is sealed, and committed it afterwards.

    Args:
      later: Calls its first argument with the second, when whoever was told has had a turn.
    """
    seal, end_batch = Store.seal, Store.end_batch

    def end(store: Store) -> None:
        if not store._closed:
            end_batch(store)

    def seal_only(store: Store) -> int:
        store.begin_batch()
        unit = seal(store)
        later(end, store)
        return unit

    patch.object(Store, "seal", seal_only).start()
    patch.object(Store, "end_batch", lambda store: later(end, store)).start()
    patch.object(Store, "committed", property(lambda store: store.sealed)).start()
    patch.object(Store, "wait_committed", lambda *_: True).start()


def main(
    root: str,
    durability: Durability = "fsync",
    units: int = 18,
    *,
    early: bool = False,
    die_at: int = 0,
) -> None:
    if early:
        publish_early(lambda *_: None)  # not before it is closed
    if die_at:
        die_at_name(die_at)
    data = Path(root, "new", "data")
    store = Store(data, durability=durability, map_size=MAP_BYTES)
    note("acknowledged", unit=0)
    write(store, 1, units // 3)
    store.close()
    store = Store(data, durability=durability, map_size=MAP_BYTES)
    write(store, units // 3 + 1, units - 3)
    copying = threading.Thread(target=back_up, args=(store, Path(root, "backup")))
    copying.start()
    write(store, units - 2, units)
    copying.join()
    assert early or units < 15 or store.file_bytes() > MAP_BYTES, "the map has not grown"
    store.close()
    with patch("perdure._restoring._check"):  # of rows that are no engine's it would find much
        restore(Path(root, "backup"), Path(root, "restored"))
    note("restored")


# -- afterwards -----------------------------------------------------------------------------------


def found_in(path: Path, problems: list[str]) -> int:
    """The last unit that is there; it must be there whole, as all before it, and nothing else."""
    store = Store(path, map_size=MAP_BYTES)
    last = int(store.get(Db.STATE, GROUP, b"counter") or b"0")
    found: Rows = {}
    for db in (Db.STATE, Db.PROMISES, Db.READY):
        found.update(((db, suffix), value) for suffix, value in store.scan(db, GROUP))
    if found != rows_after(last):
        problems.append(f"{path.name}: the rows are not those after unit {last}")
    chunks: list[tuple[int, list[Entry]]] = []
    while page := store.journal(GROUP, chunks[-1][0] + 1 if chunks else 0, Entry):
        chunks += page
    if chunks != [(n, [Entry(1, n), Entry(2, n)]) for n in range(1, last + 1)]:
        problems.append(f"{path.name}: the journal is not the one after unit {last}")
    store.wait_committed(seal(store, last + 1))
    store.close()
    return last


def is_told(path: Path) -> bool:
    """Whether the user is told that something may be missing."""
    try:
        return bool(warnings_of(path, recognise(path).rows, read_mark(path)))
    except StoreError:
        return True


class Judge:
    """Judges what the power has left of the root, by what had been said when it went.

    Args:
      warned: Whether it is enough that the user is told, as with durability ``os``.
    """

    def __init__(self, *, warned: bool = False, **_: Any) -> None:
        self._warned = warned
        # What is written afterwards to see that one can goes nowhere.
        patch("store_program.note").start()
        if warned:
            patch("perdure._store._directory.read_boot_id", lambda: "the next one").start()

    def look(self, root: Path, known: object) -> tuple[dict[str, int | None], list[str]]:
        """The last unit of each directory that is there, and what is wrong in any case."""
        problems: list[str] = []
        found: dict[str, int | None] = {}
        for name in ("new/data", "backup", "restored"):
            is_there = (root / name / "data.mdb").exists()
            if name == "new/data" and self._warned and is_there and is_told(root / name):
                continue
            # What was to be a data directory can be opened in any case.
            found[name] = (
                found_in(root / name, problems) if is_there or name == "new/data" else None
            )
        return found, problems

    def compare(self, found: dict[str, int | None], notes: list[Note]) -> Iterator[str]:
        sealed = max((note["unit"] for note in notes if note["what"] == "sealing"), default=0)
        kept = max((note["unit"] for note in notes if note["what"] == "acknowledged"), default=0)
        said = {note["what"] for note in notes}
        last = found.get("new/data")
        if last is not None and not kept <= last <= sealed:
            yield f"unit {kept} was acknowledged and {sealed} sealed, but {last} is the last"
        for name, what in (("backup", "backed up"), ("restored", "restored")):
            copied = found[name]
            if copied is None:
                if what in said:
                    yield f"it was said that the {name} is made, and it is not there"
            elif not 0 < copied <= sealed:
                yield f"the {name} ends with unit {copied}"


if __name__ == "__main__":
    main(**particulars())
