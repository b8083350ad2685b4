"""The test kit: engines in memory whose time, crashes and orders of events a test decides."""

from perdure.testing._behaviours import Double, Recorded
from perdure.testing._call_doubles import CallDouble
from perdure.testing._faults import DoubleError, HarnessError, Stuck
from perdure.testing._harness import Harness
from perdure.testing._sim_disk import Faults
from perdure.testing._sim_environment import SimDisk
from perdure.testing._sim_loop import SimulationStuck
from perdure.testing._sim_process import ProcessDied
from perdure.testing._sim_store import SimStore
from perdure.testing._simulate import SimulationFailed, simulate
from perdure.testing._simulation import Simulation, SimulationRun
from perdure.testing._step_doubles import StepDouble

__all__ = [
    "CallDouble",
    "Double",
    "DoubleError",
    "Faults",
    "Harness",
    "HarnessError",
    "ProcessDied",
    "Recorded",
    "SimDisk",
    "SimStore",
    "Simulation",
    "SimulationFailed",
    "SimulationRun",
    "SimulationStuck",
    "StepDouble",
    "Stuck",
    "simulate",
]
