"""Bearer tokens: where they are kept, and whether one that is presented is among them."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final

logger = logging.getLogger("perdure.http")

LOOK_AGAIN_S: Final = 1.0
"""How old what is known of a file of tokens may be."""

SETTLED_NS: Final = 100_000_000
"""How old a change of a file has to be, for the next one to have another time for sure."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1

_Version = tuple[int, int, int]
"""Of a file: what changes when it does."""


class Tokens:
    """The tokens that open an app; any one of them does.

    Several are valid at once, so that a token is changed without a gap: add the new one, give it
    to the clients, remove the old one. A file is looked at again at most once a second while
    requests come, without a restart. What is wrong with a changed file is logged, and the tokens
    that were read last stay valid.

    Only digests are kept, so that no log and no dump of an object shows a token.

    Args:
      tokens: The tokens themselves.

    Raises:
      ValueError: There is none, or one has characters that no token may have.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = _digests(enumerate(tokens, start=1), "token")
        self._path: Path | None = None
        self._version: _Version | None = None
        self._trouble = ""  # why the file can not be read, as told
        self._look_at = 0.0
        self._now: Callable[[], float] = time.monotonic

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, now: Callable[[], float] = time.monotonic
    ) -> Tokens:
        """The tokens in a file, one a line; empty lines and lines that begin with ``#`` are none.

        A file that others than its owner may read or change gives a warning in the log.

        Raises:
          OSError: It can not be read.
          ValueError: It holds no token, or a line is none.
        """
        self = cls.__new__(cls)
        self._path = Path(path)
        self._now = now
        self._version = _version(self._path)
        self._digests = _read(self._path)
        self._trouble = ""
        _warn_of_access(self._path)
        self._look_at = now() + LOOK_AGAIN_S
        return self

    @classmethod
    def from_environment(
        cls, name: str, environment: Mapping[str, str] = os.environ
    ) -> Tokens | None:
        """What the variable *name*_FILE or *name* says: a path, or tokens with commas between.

        None if neither is set.

        Raises:
          OSError: The file can not be read.
          ValueError: Both are set, there is no token, or one is none.
        """
        path, text = environment.get(f"{name}_FILE"), environment.get(name)
        if path is not None and text is not None:
            raise ValueError(f"{name}_FILE and {name} are both set: unset one of them")
        if path is not None:
            return cls.from_file(path)
        if text is None:
            return None
        try:
            return cls(each for part in text.split(",") if (each := part.strip()))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def accepts(self, presented: bytes) -> bool:
        """Whether *presented* is one of them, in a time that does not tell how nearly."""
        if self._path is not None and self._now() >= self._look_at:
            self._look_again(self._path)
        digest = sha256(presented).digest()
        found = False
        for each in self._digests:  # all of them: which one fits is not told either
            found |= compare_digest(each, digest)
        return found

    def _look_again(self, path: Path) -> None:
        self._look_at = self._now() + LOOK_AGAIN_S
        try:
            version = _version(path)
            if version is not None and version == self._version:
                return
            digests = _read(path)
        except (OSError, ValueError) as error:
            if str(error) != self._trouble:  # else it was told a second ago
                logger.error("the tokens stay as they were: %s", error)
            self._trouble = str(error)
            return
        self._version = version
        self._trouble = ""
        if digests != self._digests:
            self._digests = digests
            logger.info("the tokens in %s have changed: there are %d", path, len(digests))
            _warn_of_access(path)


def _version(path: Path) -> _Version | None:
    """None: it has just changed, and might change again and not look different."""
    status = path.stat()
    if time.time_ns() - status.st_ctime_ns < SETTLED_NS:
        return None
    return status.st_ctime_ns, status.st_size, status.st_ino


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not UTF-8") from None  # that error shows a byte of it
    tokens = [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line and not line.startswith("#")
    ]
    return _digests(tokens, f"{path}, line")


def _warn_of_access(path: Path) -> None:
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return  # it has just gone: whoever looks at it next tells of that
    if mode & 0o077:
        logger.warning(
            "others than its owner have access to the tokens in %s (mode %04o): chmod 600 it",
            path,
            mode,
        )


def _digests(tokens: Iterable[tuple[int, str]], place: str) -> tuple[bytes, ...]:
    digests = []
    for number, token in tokens:
        if _TOKEN.fullmatch(token) is None:  # the text must not say what it is
            raise ValueError(
                f"{place} {number}: a token has letters, digits and -._~+/ only, and = at its end"
            )
        digests.append(sha256(token.encode()).digest())
    if not digests:
        raise ValueError(f"{place.removesuffix(', line')}: there is none")
    return tuple(digests)
