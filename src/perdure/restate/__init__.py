"""The same services on a Restate cluster: an ASGI app that a Restate server drives.

It needs ``pip install "perdure[restate]"``.
"""

from perdure.restate._app import app

__all__ = ["app"]
