"""How much is tried."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return how many examples to try where *count* are usual.

    PERDURE_FUZZ_EXAMPLES multiplies all of them: 20 is a night's worth, 0.1 a glance.
    """
    return max(1, round(count * float(os.environ.get("PERDURE_FUZZ_EXAMPLES", "1"))))
