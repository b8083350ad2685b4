"""Handlers whose code has an odd file, or no lines: they run, and leave sound rows."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

import pytest
from engine_support import Place, run, until_status

from perdure import Context, Service, Status, handler
from perdure._doctor import check_directory

SOURCE = """
async def go(self, ctx: Context) -> None:
    await ctx.run("step", str)
    await ctx.signal("end", int)
"""


def service_from(file: str, *, lines: bool = True) -> Service:
    """One whose handler comes from *file*."""
    names: dict[str, Any] = {"Context": Context}
    exec(compile(SOURCE, file, "exec", dont_inherit=True), names)
    function: FunctionType = names["go"]
    code: CodeType = function.__code__
    if not lines:
        function.__code__ = code.replace(co_linetable=b"")
    odd: Service = type("Odd", (Service,), {"go": handler(function)}, journal_retention=3600)()
    return odd


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("", True),
        ("two\nlines.py", True),
        ("here in there:7 in all.py", True),
        ("latin-\udce9.py", True),  # as Python decodes a name that is no UTF-8
        ("rules.py", False),
    ],
)
def test_a_handler_of_an_odd_file_leaves_a_directory_that_a_deep_check_finds_sound(
    place: Place, file: str, lines: bool
) -> None:
    async def main() -> None:
        async with place.engine(service_from(file, lines=lines)) as engine:
            handle = await engine.send("Odd.go")
            await until_status(engine, handle, Status.SUSPENDED)
            assert (await engine.describe(handle.id)).waiting_on[0].name == "end"
            assert (await engine.export(handle.id)).invocations

    run(main())
    assert check_directory(place.path, deep=True).findings == []
