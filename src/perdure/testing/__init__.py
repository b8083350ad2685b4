"""The test kit: engines in memory whose time, crashes and orders of events a test decides."""

from perdure.testing._sim_disk import Faults
from perdure.testing._sim_environment import SimDisk
from perdure.testing._sim_loop import SimulationStuck
from perdure.testing._sim_process import ProcessDied
from perdure.testing._sim_store import SimStore
from perdure.testing._simulate import SimulationFailed, simulate
from perdure.testing._simulation import Simulation, SimulationRun

__all__ = [
    "Faults",
    "ProcessDied",
    "SimDisk",
    "SimStore",
    "Simulation",
    "SimulationFailed",
    "SimulationRun",
    "SimulationStuck",
    "simulate",
]
