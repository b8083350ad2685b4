"""What tests of the engine share: a place for its data, and the rules of the store afterwards."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place
from faults_support import HERE as FAULTS
from hypothesis import HealthCheck, settings
from invariants import assert_invariants

from perdure import Engine

pytest_plugins = ("world_fixtures",)

# A machine under load is no failure, and two runs try the same, unless more is asked for.
settings.register_profile(
    "perdure",
    deadline=None,
    derandomize="PERDURE_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("perdure")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Who silences perdure's log, a test or what several share, silences it for itself alone."""
    log = logging.getLogger("perdure")
    log.setLevel(logging.NOTSET)
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _examples_are_guarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples show how handlers are written: engines of their tests have the guard."""
    if request.path.parent.name == "examples":
        defaults: Any = Engine.__init__.__kwdefaults__
        monkeypatch.setitem(defaults, "guard", "raise")


@pytest.fixture(params=[10_000, 0], ids=["resident", "evicted"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A data directory, once with every invocation kept in memory and once with none."""
    place = Place(tmp_path / "data", request.param)
    yield place
    if place.path.exists():
        assert_invariants(place.path)


@pytest.fixture
def resident_place(tmp_path: Path) -> Iterator[Place]:
    """A data directory, for what has nothing to do with eviction."""
    place = Place(tmp_path / "data", 10_000)
    yield place
    if place.path.exists():
        assert_invariants(place.path)


@pytest.fixture(scope="session")
def failing_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets calls to the disk fail in a process it is preloaded in."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("calls are made to fail by a preloaded library, which takes Linux and gcc")
    library = tmp_path_factory.mktemp("faults") / "failing_calls.so"
    source = FAULTS / "failing_calls.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
