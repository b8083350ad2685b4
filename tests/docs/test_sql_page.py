"""The page on SQL has the tables and columns that there are, with their types, in their order."""

from __future__ import annotations

import re
from pathlib import Path

from perdure._sql._virtual import TABLES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sql.md"


def documented() -> dict[str, list[tuple[str, str]]]:
    """The sections named like tables: column and type."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE):
        name = re.match(r"`(\w+)`\n", section)
        if name:
            found[name[1]] = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \|", section, re.MULTILINE)
    return found


def test_the_page_has_the_columns_of_the_code() -> None:
    assert documented() == {
        table.name: [(column.name, column.type) for column in table.columns] for table in TABLES
    }
