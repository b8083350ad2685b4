"""The same services on a Restate cluster: an ASGI app that a Restate server drives.

It needs ``pip install "perdure[restate]"``.
"""

from __future__ import annotations

try:
    import restate  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        f"perdure.restate needs {error.name}: pip install 'perdure[restate]'", name=error.name
    ) from error

from perdure.restate._app import app

__all__ = ["app"]
