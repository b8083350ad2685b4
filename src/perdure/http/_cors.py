"""What browsers may do from pages of other sites."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware

from perdure.http._requests import App, Receive, Scope, Send


class AnySite(CORSMiddleware):
    """ASGI app before *app*: pages of all sites may use it. Nothing for who is no browser."""

    def __init__(self, app: App) -> None:
        super().__init__(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    await super().__call__(scope, receive, send)
                    return
        await self.app(scope, receive, send)
