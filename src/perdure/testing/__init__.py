"""The test kit: engines in memory whose time, crashes and orders of events a test decides."""

from perdure._history import History, RecordedInvocation
from perdure._loading import LoadingError
from perdure._runtime._check import Verdict
from perdure.testing._assertions import Effects, assert_steps, ran_exactly_once_across_crashes
from perdure.testing._behaviours import Double, Recorded
from perdure.testing._call_doubles import CallDouble
from perdure.testing._crash_everywhere import CrashFound, CrashPoint, CrashReport, crash_everywhere
from perdure.testing._explore_orders import OrderFound, OrdersReport, explore_orders
from perdure.testing._faults import DoubleError, HarnessError, Stuck
from perdure.testing._harness import Harness
from perdure.testing._ordered_trial import Event, NoSuchOrder
from perdure.testing._outside import Client
from perdure.testing._perturbing import PerturbedRun, PerturbReport, perturb
from perdure.testing._replaying import ReplayedInvocation, ReplayReport, replay
from perdure.testing._sim_audit import PromiseBroken
from perdure.testing._sim_disk import Faults
from perdure.testing._sim_environment import SimDisk
from perdure.testing._sim_loop import SimulationStuck
from perdure.testing._sim_process import ProcessDied
from perdure.testing._sim_store import SimStore
from perdure.testing._simulate import SimulationFailed, simulate
from perdure.testing._simulation import Simulation, SimulationRun
from perdure.testing._step_doubles import StepDouble
from perdure.testing._trial import TrialFailed

__all__ = [
    "CallDouble",
    "Client",
    "CrashFound",
    "CrashPoint",
    "CrashReport",
    "Double",
    "DoubleError",
    "Effects",
    "Event",
    "Faults",
    "Harness",
    "HarnessError",
    "History",
    "LoadingError",
    "NoSuchOrder",
    "OrderFound",
    "OrdersReport",
    "PerturbReport",
    "PerturbedRun",
    "ProcessDied",
    "PromiseBroken",
    "Recorded",
    "RecordedInvocation",
    "ReplayReport",
    "ReplayedInvocation",
    "SimDisk",
    "SimStore",
    "Simulation",
    "SimulationFailed",
    "SimulationRun",
    "SimulationStuck",
    "StepDouble",
    "Stuck",
    "TrialFailed",
    "Verdict",
    "assert_steps",
    "crash_everywhere",
    "explore_orders",
    "perturb",
    "ran_exactly_once_across_crashes",
    "replay",
    "simulate",
]
