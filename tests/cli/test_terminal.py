"""The command on a terminal: colours, bars, and neither where there is none."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import environment
from rich.text import Text

from perdure.cli import _output


def on_terminal(*arguments: str, cwd: Path, **env: str) -> tuple[int, str]:
    """Exit code, and all that the command wrote to the terminal that it runs on."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure", *arguments],
        cwd=cwd,
        env={**environment(TERM="xterm-256color", COLUMNS="120"), **env},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # so a terminal says that its last writer has gone
        while piece := os.read(ours, 65_536):
            written += piece
    os.close(ours)
    return process.wait(), written.decode()


def test_an_error_is_red_on_a_terminal(tmp_path: Path) -> None:
    code, written = on_terminal("ps", "--admin-url", "http://127.0.0.1:1", cwd=tmp_path)
    assert code == 3
    assert "\x1b[1;31mperdure: \x1b[0m" in written


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_there_are_no_colours_where_they_are_not_wanted(
    tmp_path: Path, env: dict[str, str]
) -> None:
    code, written = on_terminal("ps", "--admin-url", "http://127.0.0.1:1", cwd=tmp_path, **env)
    assert code == 3
    assert "there is no server" in written
    assert "\x1b[1;31m" not in written
    assert "\x1b[31m" not in written


def test_long_work_shows_a_bar_on_a_terminal_which_goes_when_it_is_done(tmp_path: Path) -> None:
    make = (
        "import asyncio, perdure\nasync def f():\n  async with perdure.Engine('data', []): pass\n"
    )
    subprocess.run(
        [sys.executable, "-c", f"{make}asyncio.run(f())"],
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    code, written = on_terminal("backup", "copy", "--data", "data", cwd=tmp_path)
    assert code == 0
    assert "backup" in written
    assert "━" in written
    assert "copy has" in written
    cleared = written.index("\x1b[2K", written.rindex("━"))
    assert cleared < written.index("copy has")


def test_on_a_narrow_terminal_only_the_last_column_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    row = ("inv_06h2rot3r4001iod0i8gvoss7c", "suspended", "promise 'place' and a good deal more")
    _output.Output(as_json=False).show(_output.table(("ID", "STATUS", "WAITS"), [row]))
    cut = capsys.readouterr().out.splitlines()[1]
    assert cut == "inv_06h2rot3r4001iod0i8gvoss7c  suspended  promise 'place' …"


def test_what_an_invocation_waits_for_is_seen_on_a_terminal_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    row = ("inv_06h2rot3r4001iod0i8gvoss7c", "Counter/slowk/slow", "backing-off", "1m 47s", "12")
    columns = ("ID", "INVOCATION", "STATUS", "AGE", "ATTEMPT", "LAST FAILURE")
    failure = "RuntimeError: the upstream is down, and " + "so on " * 30
    _output.Output(as_json=False).show(_output.table(columns, [(*row, failure)]))
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(
        "inv_06h2rot3r4001iod0i8gvoss7c  Counter/slowk/slow  backing-off  1m 47s"
    )
    assert "RuntimeError: the upstream is down, and so on" in line
    assert len(line) <= 160


@pytest.mark.parametrize("option", ["", "--json"])
def test_what_the_encoding_lacks_is_written_as_json_writes_it(tmp_path: Path, option: str) -> None:
    script = f"""if True:
        from perdure.cli import _main, _output
        code = _main.run(["call", "Ä/日", '"ü"', "--url", "ü", *{option.split()}])
        assert code == 2, code
        _output.Output({bool(option)}).value("hé 日 😀")
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING="ascii"),
        check=True,
        capture_output=True,
    )
    assert done.stdout == b'"h\\u00e9 \\u65e5 \\ud83d\\ude00"\n'
    assert b"'\\u00fc' is no URL" in done.stderr


def test_json_on_a_terminal_is_indented(tmp_path: Path) -> None:
    code, written = on_terminal("version", "--json", cwd=tmp_path)
    assert code == 0
    assert written.startswith('{\r\n  "perdure": ')


def test_elsewhere_there_is_neither_colour_nor_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = _output.Output(as_json=False)
    with out.progress("backup") as tell, out.busy("cancel"):
        tell(1, 2)
        out.show(Text("paused", style="red"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("paused\n", "")


def test_a_line_that_is_wider_than_a_page_is_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _output.Output(as_json=False).show(_output.table(("NAME",), [("x" * 500,)]))
    assert capsys.readouterr().out == "NAME\n" + "x" * 500 + "\n"
