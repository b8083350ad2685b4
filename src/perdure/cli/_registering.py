"""``register``: tell a Restate server of handlers that are served to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import httpx
import typer
from rich.console import RenderableType
from rich.text import Text

from perdure.cli._commands import Json, register
from perdure.cli._failures import CommandError, Exit, usage
from perdure.cli._output import Output, lines, plain, table
from perdure.cli._values import headers_of
from perdure.cli._where import token_of

# Any, in this module: what is in the JSON of Restate's.

_ANSWERED_S: Final = 60.0
"""Longer than Restate tries to reach handlers."""

_HTTP_2: Final = (
    "only HTTP/1.1 is spoken there: serve the handlers with HTTP/2, as `perdure serve --restate` "
    "and hypercorn do"
)
_SIGNED: Final = (
    "only signed requests are taken there: is the --identity-key of `perdure serve --restate` the "
    "one of this Restate?"
)
_OTHERS: Final = "something else answers there: `perdure serve --restate` says the URL to take"
_REACHED: Final = (
    "serve them with `perdure serve --restate`, and take a URL by which Restate reaches them: in a "
    "container 127.0.0.1 is the container itself"
)
_CHANGED: Final = (
    "serve changed code at an address of its own, so that what is in flight ends on the code it "
    "began with; or, while developing, take the place of what was registered with --force"
)
_HINTS: Final = {
    "META0014": _HTTP_2,
    "status code '401": _SIGNED,
    "status code": _OTHERS,
    "META0003": _REACHED,
    "META0006": _CHANGED,
}
"""What to do about an error by what its text has; the first one counts."""

Url = Annotated[str, typer.Argument(metavar="URL", help="Where Restate reaches the handlers.")]
AdminUrl = Annotated[
    str,
    typer.Option(
        "--admin-url", help="Of Restate's admin API.", envvar="PERDURE_ADMIN_URL", metavar="URL"
    ),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        help="Has the token for Restate's admin API; else PERDURE_ADMIN_TOKEN is it.",
        envvar="PERDURE_ADMIN_TOKEN_FILE",
        metavar="FILE",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="In the place of what was registered: what is in flight meets new code."
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", help="'name: value', sent with each request to them; repeatable."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to *app*."""

    def register_deployment(
        url: Url,
        admin_url: AdminUrl = "http://127.0.0.1:9070",
        admin_token_file: AdminTokenFile = None,
        force: Force = False,
        header: Headers = None,
        as_json: Json = False,
    ) -> None:
        """Tell a Restate server of handlers that `perdure serve --restate` serves."""
        for each in (url, admin_url):
            _check_url(each)
        asked: dict[str, Any] = {"uri": url, "force": force}
        if header:
            asked["additional_headers"] = headers_of(header)
        token = token_of(admin_token_file, "PERDURE_ADMIN_TOKEN")
        with _Admin(admin_url, token) as admin:
            is_new, found = admin.register(asked)
            if not is_new and not force:
                _check_unchanged(url, found, admin.look(asked))
        _tell(Output(as_json), url, found, is_new=is_new, force=force)

    register(app, "perdure register http://127.0.0.1:9080", "register")(register_deployment)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise usage(f"{url!r} is no URL: write it as http://127.0.0.1:9080")


class _Admin:
    """Restate's admin API."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._client = httpx.Client(headers=headers, timeout=_ANSWERED_S)

    def __enter__(self) -> _Admin:
        return self

    def __exit__(self, *failure: object) -> None:
        self._client.close()

    def register(self, asked: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Whether the address is new, and what is registered there.

        What is registered already Restate leaves as it is, and does not look at, unless forced.

        Raises:
          CommandError: Restate is not there, or does not register it.
        """
        answer = self._post(asked)
        return answer.status_code == httpx.codes.CREATED, answer.json()

    def look(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What would be registered now, were it forced.

        Raises:
          CommandError: As of :meth:`register`.
        """
        found: dict[str, Any] = self._post({**asked, "force": True, "dry_run": True}).json()
        return found

    def _post(self, asked: dict[str, Any]) -> httpx.Response:
        try:
            answer = self._client.post(f"{self._url}/deployments", json=asked)
        except httpx.HTTPError as error:
            raise CommandError(
                f"there is no Restate server at {self._url} ({error})",
                exit_code=Exit.UNREACHABLE,
                kind="Unavailable",
                hint="start one, or say with --admin-url where its admin API is",
            ) from error
        if not _is_restates(answer):
            raise CommandError(
                f"{self._url} is no admin API of Restate's: it answers {answer.status_code}",
                hint="say with --admin-url where Restate's is; a `perdure serve` without --restate "
                "has its own at the same port",
            )
        if answer.is_error:
            raise _refusal(asked["uri"], answer)
        return answer


def _is_restates(answer: httpx.Response) -> bool:
    try:
        found = answer.json()
    except ValueError:
        # A proxy in front of Restate answers for it, and not in JSON.
        return answer.status_code in (401, 403)
    known = "restate_code" if answer.is_error else "services"
    return isinstance(found, dict) and (known in found or answer.status_code in (401, 403))


def _refusal(url: str, answer: httpx.Response) -> CommandError:
    if answer.status_code in (401, 403):
        return CommandError(
            f"Restate's admin API refuses who asks: {answer.status_code}",
            hint="a token comes from PERDURE_ADMIN_TOKEN, or the file of --admin-token-file",
        )
    found = answer.json()
    code = found["restate_code"]
    text = found["message"]
    while code and text.startswith(f"[{code}]"):  # it says so twice
        text = text.removeprefix(f"[{code}]").lstrip()
    told = f"{code} {text}" if code else text
    hint = next((hint for part, hint in _HINTS.items() if part in told), "")
    if code in ("META0003", "META0014"):
        return CommandError(
            f"Restate can not take up {url}: {told}",
            exit_code=Exit.UNREACHABLE,
            kind="Unavailable",
            hint=hint,
        )
    kind = "Conflict" if answer.status_code == httpx.codes.CONFLICT else "Failed"
    return CommandError(f"Restate does not register {url}: {told}", kind=kind, hint=hint)


def _check_unchanged(url: str, registered: dict[str, Any], served: dict[str, Any]) -> None:
    """See that what is registered is what is served: Restate itself says nothing of it."""
    before, now = _by_name(registered), _by_name(served)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        raise CommandError(
            f"{url} is registered as {registered['id']}, and other code is served there now: "
            f"{', '.join(sorted(changed))}",
            kind="Conflict",
            hint=_CHANGED,
        )


def _by_name(deployment: dict[str, Any]) -> dict[str, Any]:
    """The services without their order, and what a registration adds to them."""
    return {
        service["name"]: {
            **{name: value for name, value in service.items() if name not in _OF_A_REGISTRATION},
            "handlers": {handler["name"]: handler for handler in service["handlers"]},
        }
        for service in deployment["services"]
    }


_OF_A_REGISTRATION: Final = frozenset({"deployment_id", "revision"})


def _tell(out: Output, url: str, found: dict[str, Any], *, is_new: bool, force: bool) -> None:
    services = [
        {
            "name": each["name"],
            "kind": each["ty"],
            "revision": each["revision"],
            "handlers": sorted(handler["name"] for handler in each["handlers"]),
        }
        for each in sorted(found["services"], key=lambda each: each["name"])
    ]
    told = {"id": found["id"], "url": url, "is_new": is_new, "services": services}

    def shown() -> RenderableType:
        how = "is registered as" if is_new else "is registered anew as"
        if not is_new and not force:
            how = "is unchanged and was registered before, as"
        rows = [
            (each["name"], each["kind"], str(each["revision"]), ", ".join(each["handlers"]))
            for each in services
        ]
        return lines(
            Text(plain(f"{url} {how} {found['id']}\n")),
            table(("service", "kind", "revision", "handlers"), rows),
        )

    out.result(told, shown)
