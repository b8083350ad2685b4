"""One of two servers that are asked the same, and what of its answers is compared."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

import httpx

COMPARED = ("content-type", "x-restate-error-source")
PRESENT = (
    "x-restate-id",
    "idempotency-expires",
    "retry-after",
    "access-control-allow-origin",
    "access-control-allow-headers",
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
_ID = re.compile(r"\b(?:inv_[0-9A-Za-z]{10,}|(?:sign|awk)_[-\w]+)")
# Both say so with the same words; what was wrong with it each says with words of its own.
_OWN_WORDS = re.compile(
    r"(bad path|bad invocation id '.*?'|must be a ISO8601 duration|cannot read body)\W.*", re.DOTALL
)


class Seen(NamedTuple):
    """An answer without what is different each time: of an id, only whether it was seen before.

    Attributes:
      headers: Those that are compared, with their values; of others only that they are there.
    """

    status: int
    body: Any
    headers: dict[str, str]


class Side:
    """One of the two, and what it has answered so far, by the name of the question."""

    def __init__(self, name: str, ingress: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        self.name = name
        self.ingress = ingress
        self.admin = admin
        self.seen: dict[str, Seen] = {}
        self._known: set[str] = set()

    async def ask(self, method: str, path: str, value: Any = ..., **parts: Any) -> httpx.Response:
        """Ask the ingress, or the admin where the path begins with ``admin:``; note the answer.

        Args:
          value: The body as JSON; otherwise *parts* says what to send.
        """
        if value is not ...:
            parts["json"] = value
        asked = " ".join([method, path, *(f"{name}={part}" for name, part in parts.items())])
        asked = _ID.sub("ID", asked)
        while asked in self.seen:
            asked += " again"
        if path.startswith("admin:"):
            answer = await self.admin.request(method, path.removeprefix("admin:"), **parts)
            # Its texts are each one's own, and where Restate's is empty perdure's is ``{}``.
            named = sorted(answer.json()) if answer.is_success and answer.content else []
            self.seen[asked] = Seen(answer.status_code, named, {})
        else:
            try:
                answer = await self.ingress.request(method, path, **parts)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                # What Restate refuses by its path alone it answers, now and then, by closing the
                # connection: it has not read the body.
                if self.name == "perdure":
                    raise
                answer = await self.ingress.request(method, path, **parts)
            self.seen[asked] = self._of(answer)
        return answer

    async def post(self, path: str, value: Any = ..., **parts: Any) -> httpx.Response:
        return await self.ask("POST", path, value, **parts)

    async def get(self, path: str, **parts: Any) -> httpx.Response:
        return await self.ask("GET", path, **parts)

    async def patch(self, path: str) -> httpx.Response:
        return await self.ask("PATCH", path)

    async def sent(self, path: str, value: Any = ..., **parts: Any) -> str:
        """Send, and give the id."""
        return str((await self.post(path, value, **parts)).json()["invocationId"])

    async def settled(self, path: str, status: int, method: str = "GET") -> None:
        """Ask until the answer has *status*: what was asked for before may take its time."""
        async with asyncio.timeout(20):
            while (await self.ingress.request(method, path)).status_code != status:
                pass

    def _of(self, answer: httpx.Response) -> Seen:
        noted = {name: answer.headers[name] for name in COMPARED if name in answer.headers}
        noted |= {name: "…" for name in PRESENT if name in answer.headers}
        text = _ID.sub(self._shown, _TIME.sub("TIME", answer.text))
        try:
            body = json.loads(text)
        except ValueError:
            body = text
        if isinstance(body, dict) and "message" in body:
            body.pop("stacktrace", None)
            body["message"] = _OWN_WORDS.sub(r"\1 …", body["message"])
        return Seen(answer.status_code, body, noted)

    def _shown(self, found: re.Match[str]) -> str:
        if found[0] in self._known:
            return "KNOWN ID"
        self._known.add(found[0])
        return "NEW ID"
