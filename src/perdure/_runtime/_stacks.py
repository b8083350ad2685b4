"""Where a suspended handler waits: the frames of its tasks, or the lines of its commands."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable
from dataclasses import dataclass

from perdure._core._frames import await_stack
from perdure._core._machine import State
from perdure._runtime._instance import LIVE, Instance

_LINE = re.compile(r"[0-9]{1,9}")
FRAMES_MAX = 1_000
"""Frames of one description: a handler may have any number of tasks."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A line at which a suspended handler waits.

    Attributes:
      file, line, function: Of the code that awaits.
      source: The line itself, without indentation; empty where the file can not be read.
      task: Name of the handler's task whose frame it is, ``handler`` for the first. Empty where
        the invocation is not in memory: then it is the line that issued what is awaited.
    """

    file: str
    line: int
    function: str
    source: str
    task: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def frames_in_memory(instance: Instance | None) -> list[Frame]:
    """The frames of a live handler and its tasks, outermost first; perdure's own are left out."""
    frames: list[Frame] = []
    if instance is None or instance.phase != LIVE or instance.machine.state is not State.LIVE:
        return frames
    for task in instance.machine.queue.tasks.values():
        for frame in await_stack(task.get_coro()):
            package = frame.f_globals.get("__name__", "").partition(".")[0]
            # Compiled code of perdure's has frames without a line.
            if frame.f_lineno is None or package == "perdure":
                continue
            code = frame.f_code
            frames.append(
                _frame(code.co_filename, frame.f_lineno, code.co_qualname, task.get_name())
            )
            if len(frames) == FRAMES_MAX:
                return frames
    return frames


def frames_at(sites: Iterable[str]) -> list[Frame]:
    """A frame for each of *sites*, ``file:line in function``; none for an empty one."""
    frames: list[Frame] = []
    for site in dict.fromkeys(sites):
        file, line, function = split_site(site)
        if file:
            frames.append(_frame(file, line, function, ""))
            if len(frames) == FRAMES_MAX:
                break
    return frames


def _frame(file: str, line: int, function: str, task: str) -> Frame:
    return Frame(file, line, function, code_at(file, line), task)


def split_site(site: str) -> tuple[str, int, str]:
    """File, line and function of a call site; line 0 where code without lines was called."""
    place, _, function = site.rpartition(" in ")
    file, _, line = place.rpartition(":")
    return file, int(line) if _LINE.fullmatch(line) else 0, function


def code_at(file: str, line: int) -> str:
    """The line of code; empty where it is not found."""
    return "" if "\0" in file else linecache.getline(file, line).strip()
