"""An engine on the wire, as ASGI apps: serve them, or mount them in an app of yours.

Needs ``pip install perdure[server]``.
"""

from __future__ import annotations

from perdure.http._apps import admin, ingress
from perdure.http._limits import Limits
from perdure.http._tokens import Tokens

__all__ = ["Limits", "Tokens", "admin", "ingress"]
