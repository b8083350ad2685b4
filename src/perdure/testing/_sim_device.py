"""A block device that loses power: what was synced stays, of the rest any part may.

The fault model, in full:

- It writes sectors of 512 bytes, each whole or not at all. A longer write is torn between any two.
- A write is in the page cache at once, where every process reads it. A process that is killed
  leaves the cache as it is.
- A sync that returns has made all earlier writes durable. Until then each sector is on its own:
  whichever of the writes to it, or none, may have reached the disk, in any order.
- Power loss empties the cache. What is read afterwards is what had reached the disk.
- A sync that fails does to the writes before it what power loss does: some have reached the disk,
  the others are gone, from the cache too. That is the worst that kernels do.
- Nothing that was durable is lost or changes later: no bit rot, no lying controller.
"""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

SECTOR = 512
_BLANK = bytes(SECTOR)

Landed: TypeAlias = Literal["none", "all", "some"]
"""How much of what was not synced has reached the disk when the power goes."""


class Device:
    """Sectors, those that are durable and those that are only in the cache."""

    def __init__(self) -> None:
        self._durable: dict[int, bytes] = {}
        self._cached: dict[int, list[bytes]] = {}  # the writes to a sector since the last sync

    def write(self, sector: int, content: bytes) -> int:
        """Write *content* from *sector* on; how many sectors that took."""
        count = -(-len(content) // SECTOR)
        content = content.ljust(count * SECTOR, b"\0")
        for number in range(count):
            part = content[number * SECTOR : (number + 1) * SECTOR]
            self._cached.setdefault(sector + number, []).append(part)
        return count

    def read(self, sector: int, length: int) -> bytes:
        """*length* bytes from *sector* on, as any process sees them."""
        count = -(-length // SECTOR)
        return b"".join(self._sector(sector + number) for number in range(count))[:length]

    def _sector(self, number: int) -> bytes:
        writes = self._cached.get(number)
        return writes[-1] if writes else self._durable.get(number, _BLANK)

    def sync(self) -> None:
        """Make all writes durable."""
        for number, writes in self._cached.items():
            self._durable[number] = writes[-1]
        self._cached.clear()

    def lose(self, landed: Landed, chance: random.Random) -> None:
        """The cache goes; of the writes in it, *landed* have reached the disk."""
        for number, writes in self._cached.items():
            if landed == "all":
                self._durable[number] = writes[-1]
            elif landed == "some":
                which = chance.randrange(-1, len(writes))
                if which >= 0:
                    self._durable[number] = writes[which]
        self._cached.clear()
