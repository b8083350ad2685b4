"""Finding LMDB: the wheel's library, and what is said when there is none."""

from __future__ import annotations

import ctypes.util
import importlib
from pathlib import Path

import pytest

from perdure import _journal


def test_lmdb_comes_from_the_wheel() -> None:
    module = importlib.import_module("lmdb.cpython")
    assert module.__file__ is not None
    assert Path(module.__file__).samefile(_journal.LIBRARY)
    assert (0, 9, 20) <= _journal.LMDB_VERSION < (0, 10, 0)


def test_the_first_usable_candidate_is_taken() -> None:
    candidates = ["/nowhere/liblmdb.so", _journal.LIBRARY]
    assert _journal.find_library(candidates) == (_journal.LIBRARY, _journal.LMDB_VERSION)


def test_the_system_library_is_the_last_resort() -> None:
    assert "lmdb" in Path(_journal.library_candidates()[0]).parent.name
    assert "liblmdb" in _journal.library_candidates()[-1]


def test_a_missing_symbol_is_named_with_the_remedy() -> None:
    libc = ctypes.util.find_library("c")
    assert libc is not None
    with pytest.raises(ImportError) as raised:
        _journal.find_library([libc])
    text = str(raised.value)
    assert f"{libc}: no symbol mdb09_version and no mdb_version" in text
    assert "pip install --force-reinstall lmdb" in text
    assert raised.value.name == "perdure._journal"


def test_a_missing_library_is_named_with_the_remedy() -> None:
    with pytest.raises(ImportError, match=r"(?s)/nowhere/liblmdb\.so.*--force-reinstall lmdb"):
        _journal.find_library(["/nowhere/liblmdb.so"])


def test_no_candidates_at_all_is_an_import_error_too() -> None:
    with pytest.raises(ImportError, match="no usable LMDB"):
        _journal.find_library([])
