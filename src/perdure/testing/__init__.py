"""The test kit: engines in memory whose time, crashes and orders of events a test decides."""

from perdure.testing._behaviours import Double, Recorded
from perdure.testing._call_doubles import CallDouble
from perdure.testing._faults import DoubleError, HarnessError, Stuck
from perdure.testing._harness import Harness
from perdure.testing._sim_environment import SimDisk
from perdure.testing._sim_store import SimStore
from perdure.testing._step_doubles import StepDouble

__all__ = [
    "CallDouble",
    "Double",
    "DoubleError",
    "Harness",
    "HarnessError",
    "Recorded",
    "SimDisk",
    "SimStore",
    "StepDouble",
    "Stuck",
]
