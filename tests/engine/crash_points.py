"""Copies of a data directory as crashes would leave it: one after each unit that was sealed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from perdure._store import Store


@contextmanager
def copies_after_each_unit(of: Path, to: Path) -> Iterator[list[Path]]:
    """Have the directory *of* copied into *to* whenever a unit of its store has been sealed.

    A crash cuts the stream of units at some point, and all that it leaves is on the disk: a copy
    made when a unit has committed, and no later one has been sealed, is what a kill there leaves.
    """
    seal = Store.seal
    copies: list[Path] = []

    def sealed(store: Store) -> int:
        before = store.sealed
        unit = seal(store)
        if unit > before and store.path == of:
            store.wait_committed(unit)
            copy = to / f"{len(copies):03}"
            copy.mkdir(parents=True)
            for file in store.path.iterdir():
                if file.is_file() and "lock" not in file.name:
                    shutil.copy(file, copy / file.name)
            copies.append(copy)
        return unit

    with patch.object(Store, "seal", sealed):
        yield copies
