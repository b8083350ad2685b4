"""What the verbs of a client share: the wires to its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.errors import InvalidInput

if TYPE_CHECKING:
    from perdure._client._wire import Wire


class Connected:
    """The part of a client that its verbs rest on; *admin* may be missing."""

    def __init__(self, ingress: Wire, admin: Wire | None) -> None:
        self._ingress = ingress
        self._admin_wire = admin

    @property
    def _admin(self) -> Wire:
        if self._admin_wire is None:
            raise InvalidInput(
                "this is done at the admin interface of a server: "
                "perdure.connect(url, admin_url=…) says where that is"
            )
        return self._admin_wire
