"""What is given on the command line, as values: JSON, handlers, keys, durations."""

from __future__ import annotations

import codecs
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer

from perdure.cli._failures import usage

# Any, in this module: what JSON has.

_SHOWN_MAX: Final = 60


def id_of(given: str | None) -> str | None:
    """An id without the space around it that it was copied with."""
    return None if given is None else given.strip()


Id = Annotated[
    str,
    typer.Argument(metavar="ID", callback=id_of, help="Of the invocation."),
]


class Target(NamedTuple):
    """A handler, and the key that it is invoked with."""

    handler: str
    key: str | None


def target_of(text: str, key: str | None) -> Target:
    """``Service/handler``, ``Service/key/handler``, or ``Service.handler`` and *key*.

    A key may have slashes: what is before the first is the service, after the last the handler.

    Raises:
      CommandError: It is none of these, or names two keys.
    """
    service, slash, rest = text.partition("/")
    if not slash:
        service, _, handler = text.rpartition(".")
    else:
        inner, has_key, handler = rest.rpartition("/")
        if has_key:
            if key is not None:
                raise usage(f"{text} has the key {inner!r}, and --key says {key!r}: give one")
            key = inner
    if not service or not handler:
        raise usage(
            f"{text!r} names no handler: write Service/handler, or Service/key/handler for "
            "workflows and objects"
        )
    return Target(f"{service}.{handler}", key)


def keyed_of(text: str, what: str = "Service") -> tuple[str, str]:
    """``Service/key``: both parts.

    Raises:
      CommandError: It is none.
    """
    service, slash, key = text.partition("/")
    if not service or not slash:
        raise usage(f"{text!r} names no key: write {what}/key")
    return service, key


def promise_of(text: str) -> Target:
    """``Workflow/key/promise``, as the client takes it.

    Raises:
      CommandError: It is none.
    """
    workflow, _, rest = text.partition("/")
    key, slash, promise = rest.rpartition("/")
    if not workflow or not slash or not promise:
        raise usage(f"{text!r} names no promise: write Workflow/key/promise")
    return Target(f"{workflow}.{promise}", key)


def read_bytes(text: str) -> bytes:
    """What an argument stands for: itself, stdin for ``-``, or a file for ``@file``.

    Raises:
      CommandError: The file can not be read.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise usage(f"can not read {text[1:]!r}: {error.strerror}") from error


def text_of(text: str) -> str:
    """The text of an argument; ``-`` and ``@file`` as in :func:`read_bytes`.

    Raises:
      CommandError: It is not UTF-8.
    """
    try:
        return read_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise usage(f"{text[:_SHOWN_MAX]!r} is no text: {error}") from error


def json_of(text: str) -> Any:
    """The value of an argument in JSON; ``-`` and ``@file`` as in :func:`read_bytes`.

    Raises:
      CommandError: It is no JSON; the text shows how to write a string.
    """
    content = read_bytes(text).removeprefix(codecs.BOM_UTF8)  # editors on Windows begin with it
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        where = {"-": "stdin"}.get(text, text[1:] if text.startswith("@") else "")
        if where:
            raise usage(f"{where} is no JSON: {error}") from error
        hint = "an argument is JSON, @FILE, or - for stdin"
        if not text.lstrip().startswith(("{", "[", '"')):
            quoted = msgspec.json.encode(text[:_SHOWN_MAX]).decode().replace("'", "'\\''")
            hint = f"a string needs quotes for JSON inside those for the shell: '{quoted}'"
        raise usage(f"{text[:_SHOWN_MAX]!r} is no JSON: {error}", hint) from error


def duration_of(text: str, option: str) -> timedelta:
    """A duration as ``90s``, ``2h 30m`` or ``P1D``.

    Raises:
      CommandError: It is none.
    """
    from perdure.errors import InvalidInput
    from perdure.http._durations import parse_duration

    try:
        return parse_duration(text, option)
    except InvalidInput as error:
        raise usage(
            f"{option}: {text[:_SHOWN_MAX]!r} is no duration: a number with a unit, as 90s or 2h"
        ) from error


def headers_of(given: list[str]) -> dict[str, str]:
    """Headers from ``name: value`` texts.

    Raises:
      CommandError: One is none.
    """
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise usage(f"--header {each!r}: write it as 'name: value'")
        headers[name.strip()] = value.strip()
    return headers
