"""Where in the user's program something is declared."""

from __future__ import annotations

from types import FrameType
from typing import NamedTuple

from perdure.errors import DefinitionError


class Place(NamedTuple):
    """Where something is declared."""

    file: str
    line: int

    @classmethod
    def of_frame(cls, frame: FrameType | None) -> Place:
        return cls("?", 0) if frame is None else cls(frame.f_code.co_filename, frame.f_lineno)

    def error(self, text: str) -> DefinitionError:
        """Return the error that names this place."""
        return DefinitionError(f"{self.file}:{self.line}: {text}")
