"""Replays in other processes, which hash, collect and allocate otherwise.

Theory of operation. What depends on a hash seed, on the moment of a garbage collection or on an
address is the same all through one process, so a replay beside the recording can not find it. Each
run is a process of its own (:func:`run_child`): it is given a history and where services are, and
writes its report to a file, for what handlers print is on stdout.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from perdure._history import History
from perdure._loading import LoadingError, load_services
from perdure.errors import InvalidInput, NondeterminismError, PerdureError
from perdure.testing._replaying import ReplayReport, replay
from perdure.testing._telling import fields_of

# Any, in this module: what msgspec hands to its hooks.

_CHILD: Final = (
    "import sys; from perdure.testing._perturbing import run_child; run_child(*sys.argv[1:])"
)


@dataclass(frozen=True, slots=True)
class _Perturbation:
    """In which way a process is another.

    Attributes:
      gc_threshold: Of the youngest generation; 0: nothing is collected.
    """

    gc_threshold: int
    environment: dict[str, str]

    def told(self, hash_seed: int) -> str:
        """The environment as a command line has it, and the collector in words."""
        variables = {"PYTHONHASHSEED": str(hash_seed), **self.environment}
        collector = (
            f"gc.set_threshold({self.gc_threshold})" if self.gc_threshold else "gc.disable()"
        )
        return " ".join([*(f"{name}={value}" for name, value in variables.items()), collector])


_PERTURBATIONS: Final = (
    _Perturbation(1, {}),
    _Perturbation(0, {}),
    _Perturbation(50, {"PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "165"}),
    _Perturbation(700, {"PYTHONMALLOC": "debug"}),
)


@dataclass(slots=True)
class PerturbedRun:
    """One replay in a process of its own.

    Attributes:
      environment: What was other in it: ``PYTHONHASHSEED=3 PYTHONMALLOC=debug …``.
    """

    environment: str
    report: ReplayReport


@dataclass(slots=True)
class PerturbReport:
    """What the runs have found; ``str(report)`` is for people."""

    runs: list[PerturbedRun] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the report of each run is, and all have found the same results."""
        return all(run.report.ok for run in self.runs) and not self._differ

    @property
    def _differ(self) -> bool:
        return len({_found(run.report) for run in self.runs}) > 1

    def raise_for_divergence(self) -> None:
        """Raise ``AssertionError`` with the text of the report, unless it is :attr:`ok`."""
        if not self.ok:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        bad = [run for run in self.runs if not run.report.ok]
        lines = [f"{len(self.runs):,} perturbed replays, {len(bad):,} of them not ok"]
        # Where runs differ in nothing but a result, no one of them is the wrong one.
        told = bad or (self.runs if self._differ else [])
        lines += [f"under {run.environment}:\n{run.report}" for run in told]
        if self._differ:
            lines.append(
                "the runs differ: the code depends on something that is not the same in each "
                "process, such as the order of a set"
            )
        return "\n".join(lines)


def _found(report: ReplayReport) -> tuple[str, ...]:
    """What differs between two reports, where they do."""
    return tuple(
        f"{each.id} {each.divergence or each.verdict} {each.result_change}"
        for each in report.invocations
    )


def perturb(history: History, services: str, *, runs: int = 4) -> PerturbReport:
    """Replay a history in child processes, each with another hash seed, collector and allocator.

    What iterates over a set of strings, say, or acts when something is collected, may fit its
    journal in this process and not in the next: here it is found. One process runs after the other.

    Args:
      history: As of :func:`replay`.
      services: ``"module:name"``, as ``perdure serve`` takes it; modules are found as they are
        here, and in the current directory.
      runs: How many processes, 1 to 1,000; from the fifth on, only the hash seed is another.

    Raises:
      InvalidInput: *runs* is out of its range.
      LoadingError: There are no services at *services*, or they can not be imported.
      PerdureError: A process has died; the text has the end of what it said.
    """
    if type(runs) is not int or not 1 <= runs <= 1_000:
        raise InvalidInput(f"runs must be an int from 1 to 1,000, not {runs!r:.100}")
    with tempfile.TemporaryDirectory(prefix="perdure-perturb-") as folder:
        recorded = Path(folder, "history.json")
        history.save(recorded)
        report = PerturbReport()
        for number in range(runs):
            how = _PERTURBATIONS[number % len(_PERTURBATIONS)]
            found = _run(recorded, services, how, hash_seed=number + 1)
            report.runs.append(PerturbedRun(how.told(number + 1), found))
        return report


def _run(history: Path, services: str, how: _Perturbation, hash_seed: int) -> ReplayReport:
    told = history.with_name("report.json")
    environment = {
        **os.environ,
        **how.environment,
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
    }
    process = subprocess.run(
        [sys.executable, "-c", _CHILD, str(history), services, str(how.gc_threshold), str(told)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if process.returncode != 0:
        end = process.stderr.strip()[-2000:]
        raise PerdureError(
            f"a replay under {how.told(hash_seed)} ended with {process.returncode}:\n{end}"
        )
    found = msgspec.json.decode(told.read_bytes(), type=_Told, dec_hook=_divergence)
    if found.not_loaded is not None:
        raise LoadingError(*found.not_loaded)
    return found.report


class _Told(msgspec.Struct):
    """What a child process tells: a report, or why it could not load the services."""

    report: ReplayReport
    not_loaded: tuple[str, str, str] | None = None


def _plain(value: Any) -> Any:
    if isinstance(value, NondeterminismError):
        return fields_of(value)
    raise TypeError(f"a `{type(value).__name__}` has no JSON form")


def _divergence(kind: Any, fields: Any) -> Any:
    if kind is NondeterminismError and isinstance(fields, dict):
        return NondeterminismError(**fields)
    raise TypeError(f"{fields!r:.100} is no {kind}")


def run_child(history: str, services: str, gc_threshold: str, told: str) -> None:
    """What a child process does."""
    if gc_threshold == "0":
        gc.disable()
    else:
        gc.set_threshold(int(gc_threshold))
    found = _Told(ReplayReport())
    try:
        found.report = replay(History.load(history), load_services(services))
    except LoadingError as error:
        found.not_loaded = str(error), error.hint, error.raised
    Path(told).write_bytes(msgspec.json.encode(found, enc_hook=_plain))
