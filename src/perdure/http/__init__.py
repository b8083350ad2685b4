"""An engine on the wire, as ASGI apps: serve them, or mount them in an app of yours.

Needs ``pip install perdure[server]``.
"""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware

from perdure.engine import Engine
from perdure.http._admin import Admin
from perdure.http._ingress import Ingress
from perdure.http._requests import App

__all__ = ["admin", "ingress"]


def ingress(engine: Engine) -> App:
    """The app that invokes handlers, on the paths of Restate's ingress.

    Served by itself it opens *engine* when it starts, unless that is open, and closes it at the
    end. Mounted in another app it does not: open the engine in that app's lifespan.

    Raises:
      DefinitionError: A service is called as paths of the ingress begin: ``restate``, ``perdure``.
    """
    return CORSMiddleware(
        Ingress(engine),
        allow_origins=["*"],
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
    )


def admin(engine: Engine) -> App:
    """The app that operators use: it sees and changes everything, so let in nobody else.

    It opens and closes *engine* as :func:`ingress` does.
    """
    return Admin(engine)
