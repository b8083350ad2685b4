"""The ``perdure`` command: serve an engine, and look into and act on one that is served.

Needs ``pip install perdure[server]``.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = frozenset({"httpx", "rich", "typer"})


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    try:
        from perdure.cli._main import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(
            f"perdure: the command needs {missing}: pip install 'perdure[server]'", file=sys.stderr
        )
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))
