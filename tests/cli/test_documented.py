"""The page of the command names what there is, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from perdure.cli._app import app
from perdure.cli._failures import Exit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
OF_A_SERVER = {"--url", "--admin-url", "--token-file", "--admin-token-file"}
SHARED = {*OF_A_SERVER, "--data", "--json", "--help"}


def commands(command: Any, path: str = "perdure") -> Iterator[tuple[str, Any]]:
    """Each command with its name; a click object, of whichever click typer has."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    else:
        for name, each in inner.items():
            yield from commands(each, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app)))
TEXT = PAGE.read_text("utf-8")
SECTIONS = dict(re.findall(r"^### `(.*?)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))


def options(command: Any) -> set[str]:
    return {each.opts[0] for each in command.params if each.param_type_name == "option"}


def usage(name: str, command: Any) -> str:
    arguments = [each.metavar for each in command.params if each.param_type_name == "argument"]
    return " ".join([name, *arguments])


def test_each_command_has_its_section_with_its_arguments() -> None:
    assert sorted(SECTIONS) == sorted(usage(*each) for each in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_lists_the_options_of_its_command(name: str) -> None:
    command = COMMANDS[name]
    section = SECTIONS[usage(name, command)]
    cells = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
    listed = set(re.findall(r"`(--[a-z-]+)`", " ".join(cells)))
    found = options(command)
    has_shared = "--url" in found
    assert listed == (found - SHARED if has_shared else found - {"--json", "--help"})
    assert ("`--data`" in section) is ("--data" in found)
    if has_shared:
        assert found >= {*OF_A_SERVER, "--json"}


def test_every_command_but_serve_has_json() -> None:
    assert [name for name, each in COMMANDS.items() if "--json" not in options(each)] == [
        "perdure serve"
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_is_of_it(name: str) -> None:
    assert COMMANDS[name].epilog.startswith(f"Example: {name}")
    assert COMMANDS[name].help


def test_the_table_of_exit_codes_has_all_of_them() -> None:
    table = TEXT.partition("## Exit codes")[2].partition("\n## ")[0]
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert listed == [*Exit, 141]
