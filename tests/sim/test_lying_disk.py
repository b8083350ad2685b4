"""A disk that says "synced" before it is: the simulation finds the loss, and names the seed."""

from __future__ import annotations

import pytest
from sim_workload import mixed, simulate_mixed

from perdure.testing import Simulation, SimulationFailed
from perdure.testing._sim_disk import SectorDisk


class LyingDisk(SectorDisk):
    """Says that a sync is done, and does it a moment later: commits are reported too early."""

    def _make_durable(self) -> None:
        self._loop.call_later(0.001, super()._make_durable)


@pytest.fixture
def _lying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulation, "_disk_type", LyingDisk)


@pytest.mark.usefixtures("_lying")
def test_a_store_that_reports_commits_before_the_sync_is_found_with_its_seed() -> None:
    with pytest.raises(SimulationFailed) as failed:
        simulate_mixed(seeds=50)
    assert "is not on" in str(failed.value)
    seed = failed.value.run.seed
    assert f"PERDURE_SIM_SEED={seed} python -m pytest" in str(failed.value)
    with pytest.raises(SimulationFailed) as again:
        simulate_mixed(seed=seed)
    assert again.value.run == failed.value.run


@pytest.mark.usefixtures("_lying")
def test_without_power_losses_nobody_sees_the_lie() -> None:
    """So kills alone prove nothing about syncs."""

    async def killed(sim: Simulation) -> None:
        crashes = sim.crash_randomly(every=0.02, power=0)
        sim.world.calm = crashes.cancel
        await mixed(sim)
        await sim.kill()
        await sim.restart()
        await sim.sleep(1)

    simulate_mixed(killed, seeds=range(5))
