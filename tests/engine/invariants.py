"""The rules that a closed data directory keeps, as a deep check of it knows them."""

from __future__ import annotations

from pathlib import Path

from perdure._doctor._contents import Contents
from perdure._doctor._report import Finding
from perdure._store import Store


def assert_invariants(path: Path) -> None:
    """Assert that each unfinished invocation is in exactly one place, and no row dangles."""
    assert violations(path) == []


def violations(path: Path) -> list[str]:
    """What breaks the rules in the closed data directory *path*, a sentence each."""
    found: list[Finding] = []
    store = Store(path, durability="os")
    try:
        Contents(store, found.append, lambda _: None).read()
    finally:
        store.close()
    return [f"{finding.place} {finding.what}" for finding in found]
