"""Call sites of commands, interned: an entry holds a number, the store its text once."""

from __future__ import annotations

from types import CodeType

from perdure._runtime._layout import u32
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
            text = value.decode()
            number = int.from_bytes(suffix, "big")
            self._texts[number] = text
            self._numbers[text] = number
        # Keyed by id(code), which stays true because the code object is kept alive here.
        self._known: dict[tuple[int, int], int] = {}
        self._codes: dict[int, CodeType] = {}
        self._unsaved: list[int] = []

    def of(self, code: CodeType, instruction: int, line: int) -> int:
        """The number of the call at *instruction* of *code*."""
        number = self._known.get((id(code), instruction))
        return self._intern(code, instruction, line) if number is None else number

    def _intern(self, code: CodeType, instruction: int, line: int) -> int:
        text = f"{code.co_filename}:{line} in {code.co_qualname}"
        number = self._numbers.get(text)
        if number is None:
            number = len(self._texts) + 1
            self._texts[number] = text
            self._numbers[text] = number
            self._unsaved.append(number)
        self._codes[id(code)] = code
        self._known[id(code), instruction] = number
        return number

    def text(self, site: int) -> str:
        """``file:line in function``."""
        return self._texts.get(site, "")

    def flush(self) -> None:
        """Append what the store does not have yet to its open unit."""
        for number in self._unsaved:
            self._store.put(Db.SITES, b"", u32(number), self._texts[number].encode())
        self._unsaved.clear()
