"""An engine on the wire, as ASGI apps: serve them, or mount them in an app of yours.

Needs ``pip install perdure[server]``.
"""

from __future__ import annotations

try:
    import starlette  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        f"perdure.http needs {error.name}: pip install 'perdure[server]'", name=error.name
    ) from error

from perdure.http._apps import admin, ingress
from perdure.http._limits import Limits
from perdure.http._tokens import Tokens

__all__ = ["Limits", "Tokens", "admin", "ingress"]
