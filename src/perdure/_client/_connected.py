"""What the verbs of a client share: the wires to its server, and the kind that it is of.

Theory of operation. Most of what an ingress is asked is the same at perdure's and at Restate's. For
the rest there is one class for each kind, with the same methods, and the verbs use the one that
fits. Which that is the server says itself, when first it matters: ingress and admin interface each
for itself, for a client may reach only one of them. It is asked once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure._client._perdure import PerdureAdmin, PerdureIngress
from perdure._client._requests import is_perdure
from perdure._client._restate import RestateIngress
from perdure._client._restate_admin import RestateAdmin
from perdure.errors import InvalidInput

if TYPE_CHECKING:
    from perdure._client._wire import Wire


class Connected:
    """The part of a client that its verbs rest on; *admin* may be missing."""

    def __init__(self, ingress: Wire, admin: Wire | None) -> None:
        self._ingress = ingress
        self._admin = admin
        self._ingress_of: PerdureIngress | RestateIngress | None = None
        self._admin_of: PerdureAdmin | RestateAdmin | None = None

    async def _at_ingress(self) -> PerdureIngress | RestateIngress:
        """The ingress, by the kind of its server."""
        if self._ingress_of is None:
            ours = await is_perdure(self._ingress, "/restate/health", "services")
            self._ingress_of = (PerdureIngress if ours else RestateIngress)(self._ingress)
        return self._ingress_of

    async def _at_admin(self) -> PerdureAdmin | RestateAdmin:
        """The admin interface, by the kind of its server.

        Raises:
          InvalidInput: There is none.
        """
        if self._admin is None:
            raise InvalidInput(
                "this is done at the admin interface of a server: "
                "perdure.connect(url, admin_url=…) says where that is"
            )
        if self._admin_of is None:
            ours = await is_perdure(self._admin, "/version", "max_admin_api_version")
            self._admin_of = (PerdureAdmin if ours else RestateAdmin)(self._admin)
        return self._admin_of
