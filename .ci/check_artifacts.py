"""Looks into the wheel and the sdist: nothing missing, nothing that does not belong there."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import PurePosixPath


def check_wheel(path: str) -> list[str]:
    """Complaints about the wheel at *path*."""
    names = zipfile.ZipFile(path).namelist()
    complaints = [
        f"wheel: {name} does not belong there"
        for name in names
        if PurePosixPath(name).suffix in {".c", ".h", ".pyx", ".pxd", ".pxi", ".pyc"}
        or not name.startswith(("perdure/", "perdure-", "perdure.libs/"))
    ]
    complaints += [
        f"wheel: {needed} is missing"
        for needed in ("perdure/py.typed", "perdure/_journal.pyi", "perdure/__init__.py")
        if needed not in names
    ]
    extensions = [name for name in names if name.endswith(".so")]
    if len(extensions) != 1 or not extensions[0].startswith("perdure/_journal."):
        complaints.append(f"wheel: one extension is expected, not {extensions}")
    if not any(name.endswith("licenses/LICENSE") for name in names):
        complaints.append("wheel: the licence is missing")
    return complaints


def check_sdist(path: str) -> list[str]:
    """Complaints about the sdist at *path*."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    complaints = [
        f"sdist: {needed} is missing"
        for needed in (
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "LICENSE",
            "Makefile",
            "README.md",
            ".ci/run",
            "docs/reference/journal-format.md",
            "examples/demo.py",
            "ext/perdure/_journal.pyx",
            "ext/perdure/_journal.pxd",
            "ext/perdure/platform.h",
            "pyproject.toml",
            "setup.py",
            "src/perdure/_journal.pyi",
            "src/perdure/py.typed",
            "tests/docs/test_code_blocks.py",
        )
        if needed not in names
    ]
    complaints += [
        f"sdist: no file of {part}/"
        for part in ("benchmarks", "tests")
        if not any(name.startswith(f"{part}/") for name in names)
    ]
    complaints += [
        f"sdist: {name} does not belong there"
        for name in sorted(names)
        if PurePosixPath(name).suffix in {".so", ".c", ".pyc"} or name.startswith("build/")
    ]
    return complaints


def main() -> int:
    wheel, sdist = sys.argv[1:]
    complaints = check_wheel(wheel) + check_sdist(sdist)
    for complaint in complaints:
        print(complaint)
    if not complaints:
        print(f"{wheel} and {sdist} hold what they should")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
