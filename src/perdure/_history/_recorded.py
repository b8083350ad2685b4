"""What a history holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perdure._core._entries import Entry
from perdure._ids import created_at_ms, parse_id
from perdure._runtime._layout import Record
from perdure._runtime._status import Status


@dataclass(frozen=True, slots=True)
class RecordedInvocation:
    """One invocation with its journal, as it was when it was exported.

    Attributes:
      argument: As it is stored; None: it was given none.
      origin: Of one that was restarted from a part of another's journal: the id of that (16 bytes)
        and how many entries (u32) it has taken over; else empty.
      journal: Its activations: each a notification and the commands that followed.
      sites: The texts of the call sites; ``site`` of an entry counts them from 1.
    """

    id: str
    service: str
    handler: str
    key: str
    version: int
    status: Status
    argument: bytes | None
    headers: dict[str, str]
    idempotency_key: str | None
    origin: bytes
    journal: list[list[Entry]] = field(repr=False)
    sites: list[str] = field(repr=False)

    @property
    def journal_length(self) -> int:
        """How many entries the journal has."""
        return sum(map(len, self.journal))

    def text(self, site: int) -> str:
        """The text of a call site, ``file:line in function``; empty where there is none."""
        return self.sites[site - 1] if site else ""

    def record(self) -> Record:
        """What was asked, in the form of the store."""
        return Record(
            service=self.service,
            key=self.key,
            handler=self.handler,
            version=self.version,
            created_ms=created_at_ms(parse_id(self.id)),
            argument=self.argument,
            headers=self.headers,
            output_ms=0,
            journal_ms=0,
            idempotency_key=self.idempotency_key,
            origin=self.origin,
        )


class History:
    """Recorded invocations, to be replayed against the code of another day.

    Attributes:
      invocations: In the order in which they were exported.
      sources: The line of code at a call site, by the text of the site, where it was found.
    """

    def __init__(
        self,
        invocations: Sequence[RecordedInvocation] = (),
        sources: dict[str, str] | None = None,
    ) -> None:
        self.invocations = list(invocations)
        self.sources = dict(sources or {})

    def add(self, other: History) -> None:
        """Take over the invocations of *other*, after those that are here."""
        self.invocations += other.invocations
        self.sources.update(other.sources)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """The history in a file.

        Raises:
          InvalidInput: It is none, is damaged, or is of a newer release; the text has the place.
          OSError: It can not be read.
        """
        return cls._decode(Path(path).read_bytes(), os.fspath(path))

    @classmethod
    def loads(cls, text: str | bytes) -> History:
        """The history that *text* is; raises ``InvalidInput`` as :meth:`load` does."""
        return cls._decode(text.encode() if isinstance(text, str) else text, "history")

    @classmethod
    def _decode(cls, content: bytes, place: str) -> History:
        from perdure._history._reading import decode

        invocations, sources = decode(content, place)
        return cls(invocations, sources)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, in the place of what was there."""
        from perdure._history._writing import lines_of

        with Path(path).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines_of(self))

    def dumps(self) -> str:
        """The text of the file: JSON, an entry of a journal on each line."""
        from perdure._history._writing import lines_of

        return "".join(lines_of(self))

    def __len__(self) -> int:
        return len(self.invocations)

    def __repr__(self) -> str:
        entries = sum(each.journal_length for each in self.invocations)
        return f"<History of {len(self):,} invocations, {entries:,} entries>"
