"""A program: prints the digests of some runs of the mixed workload."""

from __future__ import annotations

from sim_workload import simulate_mixed

from perdure.testing import Faults


def digests() -> list[str]:
    runs = simulate_mixed(seeds=3) + simulate_mixed(seed=3, faults=Faults(failed=0.05, drift=0.01))
    return [run.digest for run in runs]


if __name__ == "__main__":
    print(*digests())
