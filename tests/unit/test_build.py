"""What is tested is what the sources say: compiled modules are there, and not older than these."""

from __future__ import annotations

import importlib
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "perdure"
SUFFIX = EXTENSION_SUFFIXES[0]  # of this Python; those of others may be there, too
TYPES = sorted(PACKAGE.rglob("*.pxd"))


def name_of(types: Path) -> str:
    return ".".join(types.relative_to(PACKAGE.parent).with_suffix("").parts)


def test_the_core_has_modules_that_are_compiled() -> None:
    assert {"perdure._core._machine", "perdure._core._task"} <= set(map(name_of, TYPES))


@pytest.mark.parametrize("types", TYPES, ids=name_of)
def test_a_module_with_types_beside_it_is_compiled(types: Path) -> None:
    spec = importlib.import_module(name_of(types)).__spec__
    assert spec is not None
    assert type(spec.loader) is ExtensionFileLoader, "interpreted: run `make clean setup`"
    assert spec.origin == str(types.with_suffix(SUFFIX))


@pytest.mark.parametrize("types", TYPES, ids=name_of)
def test_a_compiled_module_is_not_older_than_its_source(types: Path) -> None:
    built_ns = types.with_suffix(SUFFIX).stat().st_mtime_ns
    newer = [
        source.name
        for source in (types, types.with_suffix(".py"))
        if source.stat().st_mtime_ns > built_ns
    ]
    assert newer == [], "changed since it was compiled: run `make setup`"


def test_no_compiled_module_outlives_its_types() -> None:
    expected = {types.with_suffix(SUFFIX) for types in TYPES} | {PACKAGE / f"_journal{SUFFIX}"}
    left = set(PACKAGE.rglob(f"*{SUFFIX}")) - expected
    assert left == set(), "Python prefers these to what is in the sources: delete them"
