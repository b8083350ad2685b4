"""The process that reads the rows: ``python -m perdure._doctor._reader DIRECTORY quick|deep``.

liblmdb answers some kinds of damage with an assertion or a read beyond the file, which end the
process. So the rows are read in a process of its own. It writes a line of JSON for whatever it has
to say, the last of them ``{"end": true}``: without that one, it died.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from dataclasses import asdict
from typing import Any

from perdure._core._entries import Entry
from perdure._doctor._contents import Contents
from perdure._doctor._report import FINDINGS_MAX, Finding, Severity
from perdure._store import Db, ReadOnlyStore, Store
from perdure.errors import StoreError

_PROGRESS_S = 0.1
_SAMPLE = 1_000
"""Invocations that a quick check looks at."""


def main(path: str, how: str) -> None:
    """Read the directory, and say what is found."""
    # Its death is reported; the memory of it is of no use.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        with contextlib.closing(ReadOnlyStore(path)) as store:
            _read(store, how == "deep")
    except StoreError as error:
        remedy = "if it says that the file is damaged, restore it from a backup"
        _say(finding=asdict(Finding(Severity.ERROR, str(error), path, remedy)))
    _say(end=True)


def _read(store: Store, deep: bool) -> None:
    counts = {db.name.lower(): store.count_committed(db) for db in Db}
    _say(facts={"rows": counts})
    if deep:
        telling = _Telling(sum(counts.values()) + counts["invocations"])
        contents = Contents(store, telling.found, telling.reading)
        contents.read()
        telling.end()
        python_versions, logic_versions = contents.python_versions, contents.logic_versions
    else:
        python_versions, logic_versions = _sample(store)
    _say(facts={"python_versions": python_versions, "logic_versions": logic_versions})


class _Telling:
    """Tells what is found, and from time to time how far it is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._findings = 0
        self._told = time.monotonic()

    def found(self, finding: Finding) -> None:
        self._findings += 1
        if self._findings <= FINDINGS_MAX:
            _say(finding=asdict(finding))

    def reading(self, database: str | None) -> None:
        if database is not None:
            _say(reading=database)
            return
        self._done += 1
        if self._done % 256 == 0 and time.monotonic() - self._told > _PROGRESS_S:
            self._told = time.monotonic()
            _say(progress=[self._done, self._total])

    def end(self) -> None:
        _say(progress=[self._total, self._total])
        if self._findings > FINDINGS_MAX:
            what = f"{self._findings - FINDINGS_MAX} findings more are not shown"
            _say(finding=asdict(Finding(Severity.ERROR, what, "the rows", "begin with the others")))


def _sample(store: Store) -> tuple[dict[str, int], dict[str, int]]:
    """Under which versions some unfinished invocations began."""
    python_versions: dict[str, int] = {}
    logic_versions: dict[str, int] = {}
    for invocation_id in store.keys_committed(Db.INVOCATIONS, limit=_SAMPLE):
        page = store.journal(invocation_id, 0, Entry, bytes_max=1)
        if page and store.get(Db.OUTPUTS, invocation_id, b"") is None:
            start = page[0][1][0]
            python_versions[start.name] = python_versions.get(start.name, 0) + 1
            logic = str(start.ref)
            logic_versions[logic] = logic_versions.get(logic, 0) + 1
    return python_versions, logic_versions


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
