"""What the command writes: results on stdout, all else on stderr.

Theory of operation. Under ``--json`` stdout is one JSON document. Otherwise it is text: on a
terminal with colours and cut to its width, elsewhere plain and whole, so that ``grep`` finds it.
Whatever comes from services, their keys and values, is shown with its control characters escaped:
a terminal must not obey it.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from perdure.cli._failures import Failure
from perdure.errors import TerminalError

# Any, in this module: what handlers return and stores hold.

Tell: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and of how much."""

_WHOLE: Final = 100_000
"""Columns of what is no terminal: nothing is cut."""

_COLUMN: Final = 40
_LAST_COLUMN: Final = 16
"""What is not cut off a column of a table, and of the last one."""

_ESCAPED: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"
}


def plain(text: object) -> str:
    """*text* without characters that a terminal would obey."""
    return str(text).translate(_ESCAPED)


def one_line(text: object) -> str:
    """The first line of *text*, safe to show."""
    lines = plain(text).splitlines()
    return f"{lines[0]} …" if len(lines) > 1 else "".join(lines)


def to_json(value: Any, *, indent: bool = False) -> str:
    """JSON of *value*, in the form of the admin interface."""
    encoded = msgspec.json.encode(value, enc_hook=_hook)
    return (msgspec.json.format(encoded, indent=2) if indent else encoded).decode()


def _hook(value: Any) -> Any:
    if isinstance(value, TerminalError):
        return {
            "kind": type(value).__name__,
            "message": value.message,
            "code": value.code,
            "metadata": value.metadata,
        }
    raise TypeError(f"a `{type(value).__name__}` has no JSON form")


def console(*, stderr: bool = False) -> Console:
    """A console on one of the two, as it is now; rich heeds ``NO_COLOR``."""
    file = sys.stderr if stderr else sys.stdout
    terminal = file.isatty() and os.environ.get("TERM") != "dumb"
    return Console(
        file=file,
        force_terminal=terminal,
        width=None if terminal else _WHOLE,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not terminal,
    )


def escape_what_can_not_be_encoded() -> None:
    """Have stdout and stderr write characters that their encoding lacks as JSON writes them."""
    codecs.register_error("perdure", _as_json_does)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="perdure")


def _as_json_does(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


class PipeClosed(Exception):
    """Who read stdout has left. Not an OSError, of which typer would make an exit code."""


@contextlib.contextmanager
def _pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise PipeClosed from error


class Output:
    """Where one command writes.

    Attributes:
      as_json: ``--json`` was given.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, value: Any, shown: Callable[[], RenderableType]) -> None:
        """The result of the command: *value* for programs, what *shown* makes for people."""
        if self.as_json:
            with _pipe():
                print(to_json(value, indent=sys.stdout.isatty()))
        else:
            self.show(shown())

    def value(self, value: Any) -> None:
        """A value of the user's: JSON for programs and people alike; for people bytes as such."""
        if isinstance(value, bytes) and not self.as_json:
            if sys.stdout.isatty():
                self.show(Text(plain(value.decode("utf-8", "backslashreplace"))))
            else:
                with _pipe():
                    sys.stdout.flush()
                    sys.stdout.buffer.write(value)
        else:
            self.result(value, lambda: Text(plain(to_json(value, indent=True))))

    def show(self, renderable: RenderableType) -> None:
        """Write for people."""
        on = console()
        with on.capture() as capture:
            on.print(renderable, crop=False)
        with _pipe():
            for line in capture.get().splitlines():
                print(line.rstrip())

    def note(self, text: str) -> None:
        """A remark for people, beside the result; none under ``--json``."""
        if not self.as_json:
            console(stderr=True).print(Text(plain(text), style="dim"), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Tell]:
        """A bar of bytes on the terminal while the block runs; nothing where there is none."""
        with _progress(BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """A bar without an end, where how much there is to do is not known."""
        with _progress(BarColumn()) as bar:
            bar.add_task(what, total=None)
            yield


def _progress(*columns: Any) -> Progress:
    on = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        *columns,
        console=on,
        transient=True,
        disable=not on.is_terminal,
    )


def report(failure: Failure, as_json: bool) -> None:
    """Say on stderr what went wrong."""
    if as_json:
        print(to_json(failure.as_json()), file=sys.stderr)
        return
    on = console(stderr=True)
    told = Text("perdure: ", style="bold red").append(plain(failure.message), style="not bold")
    on.print(told, soft_wrap=True)
    if failure.hint:
        on.print(Text(plain(failure.hint), style="dim"), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> Table:
    """A table; its last column is the one that is cut where the terminal is narrow.

    Where it would not be seen at all, each row has as many lines of the terminal as it takes.
    """
    cells = [[_cell(each) for each in row] for row in (columns, *rows)]
    natural = [max(each.cell_len for each in column) for column in zip(*cells, strict=True)]
    least = [min(each, _COLUMN) for each in natural]
    if least:
        least[-1] = min(least[-1], _LAST_COLUMN)
    gaps = 2 * (len(columns) - 1)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    width = console().width
    if sum(least) + gaps > width:
        whole_lines = math.ceil((sum(least) + gaps) / width) * width
        made.width = min(whole_lines, sum(natural) + gaps)
    for place, (name, narrowest) in enumerate(zip(cells[0], least, strict=True), start=1):
        # rich makes narrower first what may be wrapped; the cells of it are cut all the same.
        made.add_column(name, no_wrap=place < len(columns), min_width=narrowest)
    for row in cells[1:]:
        made.add_row(*row)
    return made


def _cell(given: Text | str) -> Text:
    text = given if isinstance(given, Text) else Text(one_line(given))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and what they are, a line each; empty ones are left out."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            made.add_row(name, value if isinstance(value, Text) else Text(plain(value)))
    return made


def lines(*parts: RenderableType | None) -> Group:
    """Parts below each other; None is left out."""
    return Group(*(part for part in parts if part is not None))
