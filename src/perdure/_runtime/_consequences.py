"""What must be done about an activation once its unit is sealed.

This module is compiled (see ``_consequences.pxd``); it also runs interpreted, with the same
behaviour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure._core._operation import Operation
    from perdure._runtime._layout import Output


class Consequences:
    """What follows; None: nothing of that kind.

    Attributes:
      steps: Issued, to be started after the commit.
      ended_steps: Cancelled, to be stopped after the commit.
      notified: Invocations that got something to do.
      output: How it ended, if it did.
    """

    __slots__ = ("ended_steps", "notified", "output", "steps")

    def __init__(self) -> None:
        self.steps: list[Operation] | None = None
        self.ended_steps: list[Operation] | None = None
        self.notified: list[bytes] | None = None
        self.output: Output | None = None

    def notify(self, invocation_id: bytes) -> None:
        """One more that got something to do."""
        if self.notified is None:
            self.notified = []
        self.notified.append(invocation_id)


def added(items: list[Any] | None, item: Any) -> list[Any]:
    if items is None:
        return [item]
    items.append(item)
    return items
