"""What a call of a handler means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from perdure.serde import Serde


class Bound(NamedTuple):
    """Which handler a call means, and its argument.

    Attributes:
      payload: The argument, checked and encoded; None where it was left out.
      is_run: It is the ``run`` of a workflow.
      is_exclusive: It has its key for itself while it runs.
    """

    service: str
    handler: str
    key: str
    payload: bytes | None
    is_run: bool
    is_exclusive: bool
    argument_serde: Serde[Any]
    result_serde: Serde[Any]


Binder = Callable[[Any, Any, "str | None"], Bound]
"""Takes handler, argument and key; raises ``NotFound`` and ``InvalidInput``."""
