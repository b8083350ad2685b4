"""The test kit: engines in memory whose time, crashes and orders of events a test decides."""

from perdure._history import History, RecordedInvocation
from perdure._loading import LoadingError
from perdure._runtime._check import Verdict
from perdure.testing._perturbing import PerturbedRun, PerturbReport, perturb
from perdure.testing._replaying import ReplayedInvocation, ReplayReport, replay
from perdure.testing._sim_environment import SimDisk
from perdure.testing._sim_store import SimStore

__all__ = [
    "History",
    "LoadingError",
    "PerturbReport",
    "PerturbedRun",
    "RecordedInvocation",
    "ReplayReport",
    "ReplayedInvocation",
    "SimDisk",
    "SimStore",
    "Verdict",
    "perturb",
    "replay",
]
