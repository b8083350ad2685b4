"""What tests of the core share: the driver of the stateful tests, which needs no engine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stateful"))

from driver import Driver, Handler, World, encode

__all__ = ["Driver", "Handler", "World", "encode"]
