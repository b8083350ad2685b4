"""Runs a program with the modules of perdure that are compiled loaded from their Python source.

Usage: interpreted.py PROGRAM [ARGUMENT…].
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def sources() -> dict[str, Path]:
    """The sources of all modules that are compiled, by name: those with a .pxd beside them."""
    spec = find_spec("perdure")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    found = {
        ".".join(types.relative_to(package.parent).with_suffix("").parts): types.with_suffix(".py")
        for types in package.rglob("*.pxd")
    }
    assert found
    return found


class SourceFinder(MetaPathFinder):
    """Finds the sources, where Python by itself would prefer what they are compiled to."""

    def __init__(self) -> None:
        self._sources = sources()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        source = self._sources.get(fullname)
        return None if source is None else spec_from_file_location(fullname, source)


def assert_loaded(*, compiled: bool) -> None:
    """Fail unless all these modules are loaded, and each from where *compiled* says."""
    expected = ExtensionFileLoader if compiled else SourceFileLoader
    for name, source in sources().items():
        module = sys.modules[name]
        assert module.__spec__ is not None
        assert type(module.__spec__.loader) is expected, f"{name} is {module.__file__}"
        assert module.__file__ is not None
        assert (Path(module.__file__) == source) is not compiled


if __name__ == "__main__":
    sys.meta_path.insert(0, SourceFinder())
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
