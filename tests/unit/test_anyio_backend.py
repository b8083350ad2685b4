"""anyio's cancel scopes are given an order, whether anyio is imported before perdure or after."""

from __future__ import annotations

import subprocess
import sys

import pytest

BACKEND = "import anyio._backends._asyncio as backend"
MENDING = "import perdure._runtime._anyio as mending"
CHECK = "assert backend.CancelScope.__hash__ is mending._hash_of_scope"


@pytest.mark.parametrize("program", [[BACKEND, MENDING, CHECK], [MENDING, BACKEND, CHECK]])
def test_the_backend_is_mended_in_either_order_of_imports(program: list[str]) -> None:
    subprocess.run([sys.executable, "-c", "\n".join(program)], check=True, timeout=60)


def test_perdure_does_not_import_anyio() -> None:
    program = "import perdure, sys; assert 'anyio' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
