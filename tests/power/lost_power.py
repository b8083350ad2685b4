"""A model of a disk that loses power, fed with the calls of a process that really ran.

The fault model. When the power goes,

- what was written to a file is there if an ``fsync`` or ``fdatasync`` of that file, by whichever
  descriptor, began after the write had returned and has returned itself; or if the descriptor was
  opened with ``O_DSYNC``, once the write has returned;
- of all other writes any part may be there, whatever their order: a later one without an earlier
  one, some sectors of one write without the others, the length of a file without what was written
  to it (then there are zeros);
- a sector of 512 bytes, aligned, is there as it was or as it was written last, never in between:
  disks promise that, LMDB relies on it for its meta pages;
- a name that was made, moved or removed is as it was before or after, each for itself, until the
  directory that holds it was synced. One move is one step. The sync of a file does not bring its
  name to the disk: some file systems do that, POSIX does not promise it;
- nothing else changes: what is on the disk does not rot, sectors that nobody writes to stay.

Left out is a disk that lies, that is, one which answers a sync before it has done it: no program
can be safe on it. The tests use one to see that a loss is found (:func:`lie_about_syncs`).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 512
_RECORD = struct.Struct("=IIQQQ")
_WRITE, _TRUNCATE, _SYNC, _ENTER, _MOVE, _LEAVE, _MARK = range(1, 8)
_DSYNC, _DATA_ONLY, _DIRECTORY = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Record:
    """One call, or one line that the process wrote to stdout, as the log has it."""

    kind: int
    flags: int
    inode: int
    offset: int
    data: bytes

    @property
    def is_mark(self) -> bool:
        return self.kind == _MARK

    @property
    def syncs(self) -> bool:
        """Whether something is on the disk after it that was not before."""
        return self.kind == _SYNC or (self.kind == _WRITE and bool(self.flags & _DSYNC))


def read_log(path: Path) -> list[Record]:
    """The records of a log, in the order of the calls."""
    data = path.read_bytes()
    records, at = [], 0
    while at < len(data):
        kind, flags, inode, offset, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        records.append(Record(kind, flags, inode, offset, data[at : at + length]))
        at += length
    return records


def lie_about_syncs(records: list[Record]) -> list[Record]:
    """As if the disk had answered each ``fdatasync`` and done nothing."""
    return [record for record in records if not (record.kind == _SYNC and record.flags)]


def forget_directories(records: list[Record]) -> list[Record]:
    """As if no directory had been synced."""
    directories = {record.inode for record in records if record.flags & _DIRECTORY}
    return [record for record in records if record.kind != _SYNC or record.inode not in directories]


def acknowledge_early(records: list[Record]) -> list[Record]:
    """As if each line had been written before the last thing that reached the disk before it."""
    moved: list[Record] = []
    for record in records:
        at = len(moved)
        if record.is_mark and b"sealing" not in record.data:
            while at and not moved[at - 1].syncs:
                at -= 1
            at = max(at - 1, 0)
        moved.insert(at, record)
    return moved


class Node:
    """A file or a directory, whatever it is called."""

    __slots__ = ("is_directory",)

    def __init__(self, *, is_directory: bool) -> None:
        self.is_directory = is_directory


@dataclass(eq=False, slots=True)
class Image:
    """What is in files and directories."""

    contents: dict[Node, bytearray]
    names: dict[Node, dict[str, Node]]

    def copy(self) -> Image:
        return Image(
            {node: bytearray(content) for node, content in self.contents.items()},
            {node: dict(names) for node, names in self.names.items()},
        )

    def content(self, node: Node) -> bytearray:
        return self.contents.setdefault(node, bytearray())

    def entries(self, node: Node) -> dict[str, Node]:
        return self.names.setdefault(node, {})

    def walk(self, node: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """(path, node) of all that has a name below *node*, parents first."""
        for name, child in sorted(self.names.get(node, {}).items()):
            yield prefix + name, child
            yield from self.walk(child, f"{prefix}{name}/")


@dataclass(eq=False, slots=True)
class Write:
    """Bytes of one file, which land sector by sector."""

    node: Node
    pieces: list[tuple[int, bytes]]

    @classmethod
    def at(cls, node: Node, offset: int, data: bytes) -> Write:
        pieces, start = [], 0
        while start < len(data):
            size = SECTOR_BYTES - (offset + start) % SECTOR_BYTES
            pieces.append((offset + start, data[start : start + size]))
            start += size
        return cls(node, pieces)

    def land(self, image: Image) -> None:
        content = image.content(self.node)
        for offset, data in self.pieces:
            self.stretch(image, offset)
            content[offset : offset + len(data)] = data

    def stretch(self, image: Image, length: int) -> None:
        content = image.content(self.node)
        if len(content) < length:
            content.extend(bytes(length - len(content)))

    @property
    def end(self) -> int:
        return self.pieces[-1][0] + len(self.pieces[-1][1]) if self.pieces else 0

    def part(self, pieces: list[tuple[int, bytes]]) -> Write:
        return Write(self.node, pieces)

    def take(self, sectors: set[int]) -> Write:
        """Remove the pieces in these *sectors*, and give them as a write of their own."""
        taken = [piece for piece in self.pieces if piece[0] // SECTOR_BYTES in sectors]
        self.pieces = [piece for piece in self.pieces if piece[0] // SECTOR_BYTES not in sectors]
        return self.part(taken)


@dataclass(eq=False, slots=True)
class Length:
    """The length of a file: cut to it, or, with the writes that make it longer, zeros."""

    node: Node
    length: int
    cuts: bool = True

    def land(self, image: Image) -> None:
        content = image.content(self.node)
        if self.cuts:
            del content[self.length :]
        content.extend(bytes(max(0, self.length - len(content))))


@dataclass(eq=False, slots=True)
class Naming:
    """A name that a node gets, loses, or has instead of another."""

    node: Node
    before: tuple[Node, str] | None
    after: tuple[Node, str] | None

    def land(self, image: Image) -> None:
        if self.before is not None:
            directory, name = self.before
            if image.entries(directory).get(name) is self.node:
                del image.entries(directory)[name]
        if self.after is not None:
            directory, name = self.after
            image.entries(directory)[name] = self.node

    def is_in(self, directory: Node) -> bool:
        return any(
            place is not None and place[0] is directory for place in (self.before, self.after)
        )


Change = Write | Length | Naming


class Disk:
    """What is on the disk, what may be, and what the process sees.

    Attributes:
      durable: What is there whatever happens.
      pending: What may be there too, each for itself, a write in parts; in the order of the calls.
    """

    def __init__(self, root: Path) -> None:
        self._prefix = f"{root}/"
        self.root = Node(is_directory=True)
        self._nodes = {root.stat().st_ino: self.root}
        self._seen = Image({}, {})
        self.durable = Image({}, {})
        self.pending: list[Change] = []

    def _place(self, path: bytes) -> tuple[Node, str]:
        assert path.startswith(self._prefix.encode())
        *parents, name = path.decode().removeprefix(self._prefix).split("/")
        directory = self.root
        for parent in parents:
            directory = self._seen.names[directory][parent]
        return directory, name

    def begin(self, record: Record) -> None:
        """The call has begun: what it changes may be on the disk."""
        change = self._change(record)
        if change is not None:
            change.land(self._seen)
            self.pending.append(change)

    def _change(self, record: Record) -> Change | None:
        if record.kind == _WRITE:
            return Write.at(self._nodes[record.inode], record.offset, record.data)
        if record.kind == _TRUNCATE:
            return Length(self._nodes[record.inode], record.offset)
        if record.kind == _ENTER:
            node = Node(is_directory=bool(record.flags & _DIRECTORY))
            self._nodes[record.inode] = node
            return Naming(node, None, self._place(record.data))
        if record.kind == _MOVE:
            before, after = map(self._place, record.data.split(b"\0"))
            return Naming(self._seen.names[before[0]][before[1]], before, after)
        if record.kind == _LEAVE:
            directory, name = self._place(record.data)
            return Naming(self._seen.names[directory][name], (directory, name), None)
        return None

    def end(self, record: Record) -> None:
        """The call has returned: what it promises is on the disk."""
        if not record.syncs:
            return
        node = self._nodes[record.inode]
        if record.kind == _WRITE:
            self._land_sectors(node)
            return
        kept: list[Change] = []
        for change in self.pending:
            if change.is_in(node) if isinstance(change, Naming) else change.node is node:
                change.land(self.durable)
            else:
                kept.append(change)
        self.pending = kept

    def _land_sectors(self, node: Node) -> None:
        """The last write has landed, with whatever else its sectors hold by now."""
        last = self.pending.pop()
        assert isinstance(last, Write)
        sectors = {offset // SECTOR_BYTES for offset, _ in last.pieces}
        for change in self.pending:
            if isinstance(change, Write) and change.node is node:
                change.take(sectors).land(self.durable)
        last.land(self.durable)

    def files_seen(self) -> dict[str, bytes]:
        """What the process saw in its files, by their paths below the root."""
        return {
            path: bytes(self._seen.content(node))
            for path, node in self._seen.walk(self.root)
            if not node.is_directory
        }

    def image(self, landed: list[Change]) -> Image:
        """The disk with these of the pending changes."""
        image = dataclasses.replace(self.durable.copy())
        for change in landed:
            change.land(image)
        return image
