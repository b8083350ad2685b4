"""Each test that a page names as what holds a promise exists, and would run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "ARCHITECTURE.md", ROOT / "docs" / "explanation" / "guarantees.md"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")

REFERENCES = [
    pytest.param(page.name, match[1], match[2], id=f"{page.stem}-{match[1]}-{match[2]}")
    for page in PAGES
    for match in {m.groups(): m for m in NAMED.finditer(page.read_text("utf-8"))}.values()
]


@pytest.mark.parametrize(("page", "file", "name"), REFERENCES)
def test_a_test_that_a_page_names_exists(page: str, file: str, name: str | None) -> None:
    path = ROOT / file
    assert path.is_file(), f"{page} names {file}, which does not exist"
    defined = {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert name is None or name in defined, f"{page} names {name}, which {file} has not"
