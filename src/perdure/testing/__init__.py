"""The test kit: documented, without a server and with nothing to configure."""

from perdure._history import History, RecordedInvocation
from perdure._runtime._check import Verdict
from perdure.testing._perturbing import PerturbedRun, PerturbReport, perturb
from perdure.testing._replaying import ReplayedInvocation, ReplayReport, replay

__all__ = [
    "History",
    "PerturbReport",
    "PerturbedRun",
    "RecordedInvocation",
    "ReplayReport",
    "ReplayedInvocation",
    "Verdict",
    "perturb",
    "replay",
]
