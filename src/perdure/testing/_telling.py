"""A divergence, a failure, a changed result: as people read them, with the lines of code."""

from __future__ import annotations

import difflib
import traceback
from typing import Any

from perdure._core._entries import FIRST_COMMAND, describe
from perdure._core._frames import is_plumbing
from perdure._core._machine import PYTHON_MINOR
from perdure._history import RecordedInvocation
from perdure._history._exporting import source_line
from perdure._runtime._rehearsal import show_output
from perdure.errors import NondeterminismError
from perdure.serde import describe_failure

CONTEXT_ENTRIES = 3
"""Of a journal, shown before the entry at which the code parts from it."""


def sides_told(
    divergence: NondeterminismError, recorded: RecordedInvocation, sources: dict[str, str]
) -> str:
    """A diff of journal and code, from the entries before it to the difference of the payloads.

    The journal's line of code is the one that was exported with it; today's file may have another
    there.
    """
    index = divergence.index
    lines = ["--- journal", "+++ code"]
    entries = [entry for activation in recorded.journal for entry in activation]
    for number in range(max(0, index - CONTEXT_ENTRIES), index):
        entry = entries[number]
        arrow = "   " if entry.kind >= FIRST_COMMAND else "<- "
        lines.append(f"  {number:>4}  {arrow}{describe(entry)}")
    then, now = divergence.expected_site, divergence.actual_site
    source = sources.get(then, "")
    if then == now and source == source_line(now):
        source = ""  # exported when the file had changed already: it is no line of then
    lines += _side("-", index, divergence.expected, then, source)
    lines += _side("+", index, divergence.actual, now, source_line(now))
    if divergence.diff:
        lines += ["payload:", divergence.diff]
    written_by = recorded.journal[0][0].name
    if written_by != PYTHON_MINOR:
        lines.append(f"(recorded under Python {written_by}, replayed under {PYTHON_MINOR})")
    return "\n".join(f"  {line}" for each in lines for line in each.splitlines())


def _side(sign: str, index: int, what: str, site: str, source: str) -> list[str]:
    lines = [f"{sign} {index:>4}     {what}"]
    if site:
        lines.append(f"{sign}           at {site}")
    if source:
        lines.append(f"{sign}             {source}")
    return lines


def fields_of(divergence: NondeterminismError) -> dict[str, Any]:
    """A divergence for programs; its class takes these keywords."""
    names = ("invocation_id", "index", "expected", "actual")
    return {
        name: getattr(divergence, name) for name in (*names, "expected_site", "actual_site", "diff")
    }


def failure_told(failure: BaseException) -> str:
    """What a handler raised, and the line of the user's that raised it."""
    told = describe_failure(failure)
    for frame, line in reversed(list(traceback.walk_tb(failure.__traceback__))):
        if not is_plumbing(frame) and frame.f_code.co_filename != __file__:
            code = frame.f_code
            site = f"{code.co_filename}:{line} in {code.co_qualname}"
            source = source_line(site)
            return f"{told}\n    at {site}" + (f"\n      {source}" if source else "")
    return told


def result_told(recorded: tuple[bytes, bool], returned: tuple[bytes, bool]) -> str:
    """The difference of two results."""
    before, now = (f"result {show_output(*each)}".splitlines() for each in (recorded, returned))
    diff = difflib.unified_diff(before, now, "journal", "code", lineterm="")
    return "\n".join(f"  {line}" for line in diff)
