"""The model of the disk that loses power keeps what the head of ``lost_power.py`` says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from choosing import choices
from lost_power import SECTOR_BYTES, Change, Disk, Image, Record, acknowledge_early

WRITE, TRUNCATE, SYNC, ENTER, MOVE, LEAVE, MARK = range(1, 8)
DSYNC, DIRECTORY = 1, 4
FILE, OTHER, FOLDER = 1001, 1002, 1003
OLD, NEW = b"o" * SECTOR_BYTES, b"n" * SECTOR_BYTES


class Calls:
    """A disk with an old file, and calls on it."""

    def __init__(self, root: Path) -> None:
        self.prefix = f"{root}/".encode()
        self.root = root.stat().st_ino
        self.disk = Disk(root)
        self.enter(FILE, b"file")
        self.write(0, OLD * 4)
        self.sync(FILE)
        self.sync(self.root)

    def do(
        self, kind: int, inode: int = 0, offset: int = 0, data: bytes = b"", flags: int = 0
    ) -> None:
        record = Record(kind, flags, inode, offset, data)
        self.disk.begin(record)
        self.disk.end(record)

    def enter(self, inode: int, name: bytes, flags: int = 0) -> None:
        self.do(ENTER, inode, data=self.prefix + name, flags=flags)

    def write(self, offset: int, data: bytes, flags: int = 0, inode: int = FILE) -> None:
        self.do(WRITE, inode, offset, data, flags)

    def sync(self, inode: int) -> None:
        self.do(SYNC, inode)

    def move(self, old: bytes, new: bytes) -> None:
        self.do(MOVE, data=self.prefix + old + b"\0" + self.prefix + new)

    def left(self, landed: list[Change] | None = None) -> dict[str, bytes]:
        """The files that are left, by default with nothing that need not be there."""
        return self.files(self.disk.image(landed or []))

    def files(self, image: Image) -> dict[str, bytes]:
        return {
            path: bytes(image.content(node))
            for path, node in image.walk(self.disk.root)
            if not node.is_directory
        }

    def may_be_left(self, samples: int = 300) -> set[bytes]:
        """What the file may hold, going by a sample."""
        return {
            self.left(choice)["file"]
            for choice in choices(self.disk.pending, random.Random(1), samples)
        }


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


def test_a_write_is_there_for_sure_once_its_file_was_synced(calls: Calls) -> None:
    calls.write(0, NEW)
    assert calls.left() == {"file": OLD * 4}
    calls.sync(FILE)
    assert calls.left() == {"file": NEW + OLD * 3}
    assert calls.disk.pending == []


def test_the_sync_of_another_file_brings_nothing_to_the_disk(calls: Calls) -> None:
    calls.write(0, NEW)
    calls.enter(OTHER, b"other")
    calls.sync(OTHER)
    assert calls.left() == {"file": OLD * 4}


def test_any_of_the_writes_may_be_there_without_the_others(calls: Calls) -> None:
    calls.write(0, NEW)
    calls.write(SECTOR_BYTES * 2, NEW)
    assert calls.may_be_left() == {
        OLD * 4,
        NEW + OLD * 3,
        OLD * 2 + NEW + OLD,
        NEW + OLD + NEW + OLD,
    }


def test_any_sectors_of_a_write_may_be_there_without_the_others(calls: Calls) -> None:
    calls.write(0, NEW * 4)
    left = calls.may_be_left(3000)
    assert {OLD * 2 + NEW * 2, NEW * 3 + OLD, OLD + NEW + OLD + NEW} <= left
    assert all(
        content[at : at + SECTOR_BYTES] in (OLD, NEW)
        for content in left
        for at in range(0, len(content), SECTOR_BYTES)
    )


def test_a_file_may_have_got_longer_and_hold_zeros(calls: Calls) -> None:
    calls.write(SECTOR_BYTES * 4, NEW)
    assert calls.may_be_left() == {OLD * 4, OLD * 4 + bytes(SECTOR_BYTES), OLD * 4 + NEW}


def test_a_write_that_syncs_itself_leaves_earlier_ones_where_they_are(calls: Calls) -> None:
    calls.write(0, NEW)
    calls.write(SECTOR_BYTES, NEW, DSYNC)
    assert calls.left() == {"file": OLD + NEW + OLD * 2}
    assert calls.may_be_left() == {OLD + NEW + OLD * 2, NEW * 2 + OLD * 2}


def test_an_earlier_write_does_not_land_over_a_later_one_of_its_sector(calls: Calls) -> None:
    calls.write(0, b"x" * SECTOR_BYTES * 2)
    calls.write(8, b"n" * 8, DSYNC)
    first = b"x" * 8 + b"n" * 8 + b"x" * (SECTOR_BYTES - 16)
    assert {content[:SECTOR_BYTES] for content in calls.may_be_left()} == {first}


def test_a_new_name_may_be_lost_until_its_directory_is_synced(calls: Calls) -> None:
    calls.enter(OTHER, b"other")
    calls.write(0, NEW, inode=OTHER)
    calls.sync(OTHER)
    assert calls.left() == {"file": OLD * 4}
    calls.sync(calls.root)
    assert calls.left() == {"file": OLD * 4, "other": NEW}


def test_what_lies_in_a_directory_without_a_name_is_lost(calls: Calls) -> None:
    calls.enter(FOLDER, b"folder", DIRECTORY)
    calls.enter(OTHER, b"folder/other")
    calls.sync(FOLDER)
    assert calls.left() == {"file": OLD * 4}
    calls.sync(calls.root)
    assert calls.left() == {"file": OLD * 4, "folder/other": b""}


@pytest.mark.parametrize("synced", [False, True])
def test_a_move_is_one_step_and_may_be_lost_until_a_directory_of_it_is_synced(
    calls: Calls, synced: bool
) -> None:
    calls.enter(FOLDER, b"folder", DIRECTORY)
    calls.sync(calls.root)
    calls.move(b"file", b"folder/moved")
    before, after = {"file": OLD * 4}, {"folder/moved": OLD * 4}
    left = [calls.left(choice) for choice in choices(calls.disk.pending, random.Random(1), 9)]
    assert before in left
    assert all(files in (before, after) for files in left)
    if synced:
        calls.sync(FOLDER)
        assert calls.left() == after


def test_a_removed_file_may_be_back_until_its_directory_is_synced(calls: Calls) -> None:
    calls.do(LEAVE, data=calls.prefix + b"file")
    assert calls.left() == {"file": OLD * 4}
    calls.sync(calls.root)
    assert calls.left() == {}


def test_a_cut_may_be_lost(calls: Calls) -> None:
    calls.do(TRUNCATE, FILE, 10)
    assert calls.may_be_left() == {OLD * 4, OLD[:10]}


@pytest.mark.parametrize("count", [1, 3, 4, 5, 40])
def test_none_all_and_each_alone_of_few_are_among_the_choices(calls: Calls, count: int) -> None:
    for number in range(count):
        calls.write(number * SECTOR_BYTES, NEW)
    pending = calls.disk.pending
    made = list(choices(pending, random.Random(1), 100))
    assert made[0] == []
    assert made[1] == pending
    assert [pending[0]] in made
    assert [pending[-1]] in made
    assert pending[1:] in made
    assert pending[:-1] in made


def test_one_seed_makes_the_same_choices(calls: Calls) -> None:
    for number in range(40):
        calls.write(number * SECTOR_BYTES, NEW * 2)

    def left(seed: int) -> list[dict[str, bytes]]:
        made = choices(calls.disk.pending, random.Random(seed), 40)
        return [calls.left(choice) for choice in made]

    assert left(7) == left(7)
    assert left(7) != left(8)


def test_an_early_acknowledgement_comes_before_the_sync_that_it_waited_for() -> None:
    write, sync = Record(WRITE, 0, 1, 0, b"x"), Record(SYNC, 0, 1, 0, b"")
    mark = Record(MARK, 0, 0, 0, b'{"what": "acknowledged"}')
    assert acknowledge_early([write, sync, write, mark]) == [write, mark, sync, write]
