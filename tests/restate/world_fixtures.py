"""The four worlds: each driver, in its normal mode and suspending at every await."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from worlds import Place, World

# All tests load this module; what it takes to serve to a Restate is imported where that is done.


@pytest.fixture(scope="session")
def handlers() -> Iterator[list[str]]:
    """Where the scripted services are served to Restate, and what is no handler of perdure's."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("Restate's server on npm is for Linux on x86-64")
    from scripted import SERVICES
    from worlds import hosted, outside

    import perdure.restate

    services = [service() for service in SERVICES]
    with hosted(perdure.restate.app(services)) as url, hosted(outside()) as other:
        yield [url, other]


@pytest.fixture(scope="session")
def restate_normal(
    handlers: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    from worlds import QUICK_RETRIES, restate_server

    directory = tmp_path_factory.mktemp("restate") / "server"
    with restate_server(directory, handlers, QUICK_RETRIES) as place:
        yield place


@pytest.fixture(scope="session")
def restate_suspending(
    handlers: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    from worlds import QUICK_RETRIES, SUSPENDING, restate_server

    directory = tmp_path_factory.mktemp("suspending") / "server"
    with restate_server(directory, handlers, QUICK_RETRIES + SUSPENDING) as place:
        yield place


@pytest.fixture(params=["resident", "evicted", "restate", "restate-suspending"])
def world(request: pytest.FixtureRequest) -> World:
    """One of the four worlds."""
    from worlds import World

    if request.param == "restate":
        return World(request.getfixturevalue("restate_normal"), suspends=False)
    if request.param == "restate-suspending":
        return World(request.getfixturevalue("restate_suspending"), suspends=True)
    tmp_path = request.getfixturevalue("tmp_path")
    return World(tmp_path / "data", suspends=request.param == "evicted")
