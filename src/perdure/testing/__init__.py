"""The test kit: engines in memory whose time, crashes and orders of events a test decides."""

from perdure.testing._sim_environment import SimDisk
from perdure.testing._sim_store import SimStore

__all__ = ["SimDisk", "SimStore"]
