"""What a command works on: a server, or a data directory that no engine has open."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, Union
from urllib.parse import urlsplit

from perdure.cli._failures import CommandError, Exit, usage
from perdure.cli._output import Output

if TYPE_CHECKING:
    from perdure._viewing import View
    from perdure.client import Client

Reader: TypeAlias = Union["Client", "View"]

_REACHED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Where:
    """A server by its URLs, or a directory.

    Attributes:
      token_file, admin_token_file: Files whose first token is sent; None: the environment's.
      data: A directory to be read in the place of a server, or None.
    """

    url: str
    admin_url: str
    token_file: Path | None
    admin_token_file: Path | None
    out: Output
    data: Path | None = None

    @contextlib.asynccontextmanager
    async def client(self, *, ingress: bool = False) -> AsyncIterator[Client]:
        """A client of the server, which is there; *ingress*: it is invocations that are asked for.

        Raises:
          CommandError: Nothing listens there.
        """
        from perdure.client import connect

        await _reach(self.url if ingress else self.admin_url)
        async with connect(
            self.url,
            admin_url=self.admin_url,
            token=token_of(self.token_file, "PERDURE_TOKEN"),
            admin_token=token_of(self.admin_token_file, "PERDURE_ADMIN_TOKEN"),
        ) as client:
            yield client

    @contextlib.asynccontextmanager
    async def reader(self, *, ingress: bool = False) -> AsyncIterator[Reader]:
        """The directory, if one was given, else the server."""
        if self.data is None:
            async with self.client(ingress=ingress) as client:
                yield client
            return
        from perdure._viewing import View

        async with View(self.data) as view:
            yield view


async def _reach(url: str) -> None:
    """See that something listens: a client would go on trying, which people do not wait for."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise usage(f"{url!r} is no URL: write it as http://127.0.0.1:9070")
    try:
        async with asyncio.timeout(_REACHED_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except OSError as error:  # a TimeoutError too
        why = os.strerror(error.errno) if error.errno else "no answer"
        raise CommandError(
            f"there is no server at {url} ({why})",
            exit_code=Exit.UNREACHABLE,
            kind="Unavailable",
            hint="start one with `perdure serve`, say where it is with --url and --admin-url, or "
            "read a directory that no engine has open with --data",
        ) from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def token_of(file: Path | None, variable: str) -> str | None:
    """The first token of a file, or of what the server takes its own from."""
    if file is None:
        given = os.environ.get(variable, "").split(",")
    else:
        try:
            lines = file.read_text("utf-8").splitlines()
        except OSError as error:
            raise usage(f"can not read the token in {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise usage(f"can not read the token in {file}: it is not UTF-8") from error
        given = [line for line in lines if not line.startswith("#")]
    tokens = [each.strip() for each in given if each.strip()]
    if file is not None and not tokens:
        raise usage(f"{file}: there is no token in it")
    return tokens[0] if tokens else None
