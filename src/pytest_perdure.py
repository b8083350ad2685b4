"""What pytest loads of perdure in every run: next to nothing. See ``perdure.testing.plugin``.

It stands outside of the package, which would be imported with it: a run that has no test of perdure
is not to wait for that.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pluggy

    from perdure.testing import Harness

FIXTURE = "perdure_harness"


@pytest.fixture
def perdure_harness(request: pytest.FixtureRequest) -> Iterator[type[Harness]]:
    """A ``perdure.testing.Harness``: ``async with perdure_harness([Order()]) as h``.

    An ``async def`` test that asks for it needs no plugin that runs such tests. If the test fails,
    the report has the journals of its invocations.
    """
    from perdure.testing.plugin import harness_class

    with harness_class(request.node) as harness:
        yield harness


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that has the fixture, and that no other plugin has taken."""
    if FIXTURE not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    from perdure.testing.plugin import run_test

    run_test(pyfuncitem)
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Add the journals to the report of a failed test that has the fixture."""
    outcome = yield
    if FIXTURE in getattr(item, "fixturenames", ()):
        from perdure.testing.plugin import add_journals

        add_journals(item, outcome.get_result())
