"""Call sites of commands, interned: an entry holds a number, the store its text once.

This module is compiled (see ``_sites.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from types import CodeType, FrameType

from perdure._runtime._layout import stranger, u32
from perdure._store import Db, Store


class SiteTable:
    """Owner of the database ``sites``.

    A site new to the store is written with the next unit (:meth:`flush`).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._texts: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        for suffix, value in store.scan(Db.SITES, b""):
            try:
                text = value.decode()
            except UnicodeDecodeError as error:
                raise stranger("sites", suffix, error) from error
            number = int.from_bytes(suffix, "big")
            self._texts[number] = text
            self._numbers[text] = number
        self._last = max(self._texts, default=0)
        # Keyed by id(code), which stays true because the code object is kept alive here.
        self._known: dict[tuple[int, int], int] = {}
        self._codes: dict[int, CodeType] = {}
        self.unsaved: list[int] = []  # numbers that the store does not have yet

    def of(self, frame: FrameType) -> int:
        """The number of the call that *frame* is at."""
        number = self._known.get((id(frame.f_code), frame.f_lasti))
        return self._intern(frame) if number is None else number

    def _intern(self, frame: FrameType) -> int:
        code = frame.f_code
        text = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
        # The name of a file need not be UTF-8: what is none of it has become surrogates.
        text = text.encode(errors="backslashreplace").decode()
        number = self._numbers.get(text)
        if number is None:
            # Not by their count: were a row lost, the number of another would be given out again.
            number = self._last = self._last + 1
            self._texts[number] = text
            self._numbers[text] = number
            self.unsaved.append(number)
        self._codes[id(code)] = code
        self._known[id(code), frame.f_lasti] = number
        return number

    def text(self, site: int) -> str:
        """``file:line in function``."""
        return self._texts.get(site, "")

    def flush(self) -> None:
        """Append what the store does not have yet to its open unit."""
        for number in self.unsaved:
            self._store.put(Db.SITES, b"", u32(number), self._texts[number].encode())
        self.unsaved.clear()
