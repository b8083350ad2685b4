"""A served engine under mixed load, killed again and again: nothing it has said is untrue after.

``make torture`` does the same for as long as one likes. PERDURE_TORTURE_S has the long test do so.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from trial import Trial, lives_of

TORTURE_S = float(os.environ.get("PERDURE_TORTURE_S", "10"))


def test_killed_three_times_under_load_a_server_has_kept_all_that_it_said(tmp_path: Path) -> None:
    seed = 6
    assert [life.way for life in lives_of(seed, 3, 0.5)] == ["load", "recovery", "stalled"]
    trial = Trial(tmp_path / "trial", seed)
    asyncio.run(trial.run(3, 0.5))
    figures = trial.figures
    assert figures.kills == 3
    assert figures.histories > 0
    assert figures.steps > 100
    assert sum(each.unknown for each in trial.ledger.counts.values()) > 0


@pytest.mark.long
def test_killed_again_and_again_under_load_servers_have_kept_all_that_they_said(
    tmp_path: Path,
) -> None:
    until = time.monotonic() + TORTURE_S
    kills = 0
    for seed in range(1_000, 1_000_000):
        print(f"seed {seed}")
        trial = Trial(tmp_path / str(seed), seed)
        asyncio.run(trial.run(12, 1.0))
        kills += trial.figures.kills
        if time.monotonic() > until:
            break
    assert kills >= 6
