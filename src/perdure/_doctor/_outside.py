"""What can be told of a data directory without opening its file as a database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perdure._doctor._report import Finding, Severity
from perdure._store import Preflight, read_mark, recognise, warnings_of

_FREE_BYTES_MIN = 64 * 1024 * 1024


def rights(directory: Path) -> Iterator[Finding]:
    """Whether this user may do there what an engine does."""
    data = directory / "data.mdb"
    for path in (directory, data):
        if path.exists() and not os.access(path, os.R_OK):
            yield Finding(
                *(Severity.ERROR, "this user can not read it", str(path)),
                "check it as the user that the engine runs as, or give this one the right to it",
            )
        elif path.exists() and not os.access(path, os.W_OK):
            yield Finding(
                *(Severity.WARNING, "this user can not write to it", str(path)),
                "an engine of this user can not open it: give it the right, or run as the owner",
            )


def space(directory: Path) -> tuple[dict[str, int], list[Finding]]:
    """How much room the disk has."""
    free = shutil.disk_usage(directory).free
    facts = {"disk_free_bytes": free}
    if free >= _FREE_BYTES_MIN:
        return facts, []
    finding = Finding(
        *(Severity.WARNING, f"the disk has {free:,} bytes left", str(directory)),
        "make room: on a full disk an engine stops, and goes on when it is opened again",
    )
    return facts, [finding]


def meta(directory: Path) -> tuple[dict[str, Any], list[Finding]]:
    """What ``meta`` says, read from the file as it is.

    Raises:
      StoreError: It is no data directory, of a newer schema, damaged or cut short.
    """
    found = recognise(directory)
    findings = [
        Finding(Severity.WARNING, text, str(directory), "check it with --deep")
        for text in warnings_of(directory, found.rows, read_mark(directory))
    ]
    return _facts(found), findings


def _facts(found: Preflight) -> dict[str, Any]:
    def number(name: bytes) -> int:
        return int.from_bytes(found.rows.get(name, b""), "little")

    return {
        "file_bytes": found.file_bytes,
        "recorded_bytes": number(b"file_size"),
        "map_bytes": found.map_bytes,
        "schema_version": number(b"schema"),
        "openings": number(b"openings"),
        "durability": found.rows.get(b"durability", b"").decode("ascii", "replace"),
    }
