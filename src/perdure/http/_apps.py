"""The apps, each behind its guard."""

from __future__ import annotations

from perdure.engine import Engine
from perdure.http._admin import Admin
from perdure.http._cors import AnySite
from perdure.http._ingress import Ingress
from perdure.http._limits import DEFAULT_LIMITS, Limits
from perdure.http._security import Guard, admin_error, ingress_error
from perdure.http._tokens import Tokens


def ingress(
    engine: Engine, *, tokens: Tokens | None = None, limits: Limits = DEFAULT_LIMITS
) -> Guard:
    """The app that invokes handlers, on the paths of Restate's ingress.

    Served by itself it opens *engine* when it starts, unless that is open, and closes it at the
    end. Mounted in another app it does not: open the engine in that app's lifespan.

    Args:
      engine: Whose handlers they are.
      tokens: What a request has to show one of; None: whoever reaches the app may use it.
      limits: What a request may ask. Its times, and ``connections``, are not the app's to hold.

    Raises:
      DefinitionError: A service is called as paths of the ingress begin: ``restate``, ``perdure``.
    """
    app = AnySite(Ingress(engine))
    return Guard(
        app, form=ingress_error, tokens=tokens, limits=limits, open_paths=["/restate/health"]
    )


def admin(
    engine: Engine, *, tokens: Tokens | None = None, limits: Limits = DEFAULT_LIMITS
) -> Guard:
    """The app that operators use: it sees and changes everything, so let in nobody else.

    It opens and closes *engine*, and takes *tokens* and *limits*, as :func:`ingress` does.
    """
    return Guard(
        Admin(engine), form=admin_error, tokens=tokens, limits=limits, open_paths=["/health"]
    )
