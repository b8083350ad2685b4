"""A program that builds each disk which a loss of power could leave, and has it judged.

It is a process of its own, for a damaged page may kill it: then its last line names the disk. The
lines are JSON; the last one of a run that came to its end is its report.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import lost_power
from choosing import choices
from crash_support import Note
from lost_power import Disk, Image, Node, Record, read_log

Known = tuple[tuple[str, str], ...]

PROBLEMS_MAX = 3
"""After so many, it is known that the tested is not safe."""


class Judge(Protocol):
    """What a program of this folder brings along for what it has written."""

    def look(self, root: Path, known: Known) -> tuple[Any, list[str]]:
        """What is there, and what is wrong with it whatever was said; may write to it.

        Args:
          known: (key, id) of each invocation that had been accepted.
        """
        ...

    def compare(self, found: Any, notes: list[Note]) -> Iterator[str]:
        """What is wrong with it given what had been said when the power went."""
        ...


def moments(disk: Disk, records: list[Record]) -> Iterator[tuple[str, list[Note]]]:
    """(name, what had been said) of each moment at which the power goes.

    That is just before and just after each sync. Nothing in between can be left that can not be
    left just before the next sync, when more has been promised.
    """
    notes: list[Note] = []
    for number, record in enumerate(records):
        if record.is_mark:
            notes += map(json.loads, record.data.splitlines())
            continue
        disk.begin(record)
        if record.syncs:
            yield f"before the sync at {number}", notes
        disk.end(record)
        if record.syncs:
            yield f"after the sync at {number}", notes
    yield "at the end", notes


def lay_out(image: Image, root: Node, path: Path) -> None:
    """Make the files and directories of *image* below the new directory *path*."""
    path.mkdir()
    for name, node in image.walk(root):
        if node.is_directory:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(image.content(node))


def digest(image: Image, root: Node) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for name, node in image.walk(root):
        content = b"/" if node.is_directory else image.content(node)
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.digest()


class Judging:
    """Counts the disks, and judges each different one once."""

    def __init__(self, judge: Judge, path: Path, seed: int, samples: int) -> None:
        self._judge = judge
        self._path = path
        self._seed = seed
        self._samples = samples
        self._looks: dict[tuple[bytes, Known], tuple[Any, list[str]]] = {}
        self.moments = 0
        self.images = 0
        self.problems: list[str] = []

    def run(self, disk: Disk, records: list[Record]) -> None:
        for name, notes in moments(disk, records):
            self.moments += 1
            choose = random.Random(f"{self._seed} {name}")
            for number, choice in enumerate(choices(disk.pending, choose, self._samples)):
                self.images += 1
                where = f"power lost {name}, choice {number}"
                self._judge_one(where, disk.image(choice), disk.root, notes)
                if len(self.problems) >= PROBLEMS_MAX:
                    return

    def _judge_one(self, where: str, image: Image, root: Node, notes: list[Note]) -> None:
        accepted = (note for note in notes if note["what"] == "accepted")
        known = tuple((note["key"], note["id"]) for note in accepted)
        key = digest(image, root), known
        if key not in self._looks:
            print(json.dumps(where), flush=True)
            path = self._path / "disk"
            lay_out(image, root, path)
            try:
                self._looks[key] = self._judge.look(path, known)
            except Exception as error:
                self._looks[key] = None, [f"{type(error).__name__}: {error}"]
            shutil.rmtree(path)
        found, problems = self._looks[key]
        problems = problems or list(self._judge.compare(found, notes))
        self.problems += [f"{where}: {problem}" for problem in problems]

    def report(self) -> dict[str, Any]:
        return {
            "moments": self.moments,
            "images": self.images,
            "different": len(self._looks),
            "problems": self.problems,
        }


def main(
    program: str, log: str, root: str, seed: int, samples: int, tamper: str | None, **load: Any
) -> None:
    records = read_log(Path(log))
    if tamper is not None:
        records = getattr(lost_power, tamper)(records)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as path:
        judging = Judging(importlib.import_module(program).Judge(**load), Path(path), seed, samples)
        judging.run(Disk(Path(root)), records)
        print(json.dumps(judging.report()))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
