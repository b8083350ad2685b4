"""Packages of npm that tests need, installed as a lock file says, once for all runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "perdure-tests"


def node_modules(folder: Path) -> Path:
    """``node_modules`` with what the package-lock.json of *folder* names; skips without npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("the packages come from npm, and there is no npm")
    lock = (folder / "package-lock.json").read_bytes()
    place = CACHE / f"{folder.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            fresh = Path(made) / "fresh"
            fresh.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, fresh)
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=fresh,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            with contextlib.suppress(OSError):  # another run was quicker
                fresh.rename(place)
    return place / "node_modules"
