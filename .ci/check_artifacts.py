"""Looks into the wheel and the sdist: nothing missing, nothing that does not belong there."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
HOME = "src/"  # the package, and what pytest loads of it
GENERATED = {"PKG-INFO", "setup.cfg"}
MADE = re.compile(r"\.git|\.venv.*|build|dist|\..*_cache|\.hypothesis|__pycache__|.*\.egg-info")
COMPILED_FROM = {".c", ".h", ".pyx", ".pxd", ".pxi", ".pyc"}


def tracked_files() -> set[str]:
    """What git tracks; where this is no repository, all files but those that make has made."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        return {
            path.as_posix()
            for path in files
            if path.suffix not in {".so", ".pyc"} and not any(map(MADE.fullmatch, path.parts))
        } - GENERATED
    return set(listed.split("\0")) - {""}


def check_wheel(path: str, tracked: set[str]) -> list[str]:
    """Complaints about the wheel at *path*."""
    names = zipfile.ZipFile(path).namelist()
    complaints = [
        f"wheel: {name} does not belong there"
        for name in names
        if PurePosixPath(name).suffix in COMPILED_FROM
        or not name.startswith(("perdure/", "perdure-", "perdure.libs/", "pytest_perdure.py"))
    ]
    package = [PurePosixPath(name).relative_to(HOME) for name in tracked if name.startswith(HOME)]
    # The types serve the compiler alone: nobody outside compiles against the core.
    types = [file for file in package if file.suffix == ".pxd"]
    needed = {str(file) for file in package} - {str(file) for file in types}
    complaints += [f"wheel: {name} is missing" for name in sorted(needed - set(names))]
    modules = {"perdure/_journal", *(str(file.with_suffix("")) for file in types)}
    extensions = sorted(
        name.partition(".")[0]
        for name in names
        if name.startswith("perdure/") and name.endswith(".so")
    )
    if extensions != sorted(modules):
        complaints.append(f"wheel: it holds the extensions {extensions}, not {sorted(modules)}")
    if not any(name.endswith("licenses/LICENSE") for name in names):
        complaints.append("wheel: the licence is missing")
    if sys.platform == "linux" and "manylinux" not in path:
        complaints.append(f"wheel: {path} runs on this machine only, it is no manylinux wheel")
    return complaints


def check_sdist(path: str, tracked: set[str]) -> list[str]:
    """Complaints about the sdist at *path*."""
    with tarfile.open(path) as archive:
        names = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        }
    complaints = [f"sdist: {name} is missing" for name in sorted(tracked - names)]
    complaints += [
        f"sdist: {name} does not belong there"
        for name in sorted(names - tracked - GENERATED)
        if not name.startswith("src/perdure.egg-info/")
    ]
    return complaints


def main() -> int:
    wheel, sdist = sys.argv[1:]
    tracked = tracked_files()
    complaints = check_wheel(wheel, tracked) + check_sdist(sdist, tracked)
    for complaint in complaints:
        print(complaint)
    if not complaints:
        print(f"{Path(wheel).name} and {Path(sdist).name} hold what they should")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
