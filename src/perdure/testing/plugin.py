"""The pytest plugin's part that imports perdure: what the fixture ``perdure_harness`` gives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from perdure.testing._harness import Harness

_OPENED: pytest.StashKey[list[Harness]] = pytest.StashKey()


@contextlib.contextmanager
def harness_class(item: pytest.Item) -> Iterator[type[Harness]]:
    """A class of harnesses for the test *item*; those left open are closed after it."""
    opened = item.stash[_OPENED] = []

    class HarnessOfTest(Harness):
        """The harness of one test."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    try:
        yield HarnessOfTest
    finally:
        for harness in opened:
            harness._drop()


def run_test(item: pytest.Function) -> None:
    """Run an async test in a loop of its own."""
    names = item._fixtureinfo.argnames
    asyncio.run(item.obj(**{name: item.funcargs[name] for name in names}))


def add_journals(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add to the *report* of a failure what the invocations of its harnesses have done."""
    if report.when == "call" and report.failed:
        for harness in item.stash.get(_OPENED, []):
            if harness._report:
                report.sections.append(("perdure invocations", harness._report))
