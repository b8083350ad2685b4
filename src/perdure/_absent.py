"""An argument left out, which is not the same as None."""

from __future__ import annotations

import enum
from typing import Final


class Absent(enum.Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
