"""Everything at once, in many worlds: nothing acknowledged is lost, nothing journalled repeated.

The auditor of a simulation looks at each death whether all that was acknowledged is on the disk, in
whole batches, and whether its rows keep the rules; at each step, whether its command is durable and
its result is not; the clients keep a ledger of their own.
"""

from __future__ import annotations

import os

import pytest
from sim_workload import mixed, simulate_mixed

from perdure.testing import Faults

SEEDS = int(os.environ.get("PERDURE_SIM_SEEDS", "250"))
"""Of each long test: a thousand take about a minute."""


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 40 + SEEDS), marks=pytest.mark.long)], ids=str
)
def test_nothing_acknowledged_is_lost_while_processes_die_and_the_power_goes(seeds: range) -> None:
    runs = simulate_mixed(seeds=seeds)
    assert sum(run.deaths for run in runs) > 3 * len(runs)


@pytest.mark.parametrize(
    "seeds",
    [range(1000, 1020), pytest.param(range(1020, 1020 + SEEDS), marks=pytest.mark.long)],
    ids=str,
)
def test_nothing_is_lost_when_syncs_fail_the_disk_is_full_and_the_clock_is_wrong(
    seeds: range,
) -> None:
    simulate_mixed(seeds=seeds, faults=Faults(failed=0.02, slow=0.1, stalled=0.02, drift=0.05))


SYNCS = simulate_mixed(mixed, seed=1)[0].syncs


@pytest.mark.parametrize("power_loss_at", range(1, SYNCS + 1))
def test_after_a_power_loss_at_any_sync_all_that_was_acknowledged_is_there(
    power_loss_at: int,
) -> None:
    for landed in ("none", "all", "some") if power_loss_at % 8 == 0 else (None,):
        simulate_mixed(mixed, seed=1, power_loss_at=power_loss_at, landed=landed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("landed", ["none", "all", "some"])
def test_after_a_power_loss_at_any_sync_of_other_worlds_it_is_there_too(
    seed: int, landed: str
) -> None:
    for power_loss_at in range(1, 1 + simulate_mixed(mixed, seed=seed)[0].syncs):
        simulate_mixed(mixed, seed=seed, power_loss_at=power_loss_at, landed=landed)
