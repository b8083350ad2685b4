"""A served engine under mixed load, killed again and again: nothing it has said is untrue after.

``make torture`` does the same for as long as one likes. PERDURE_TORTURE_S has the long test do so.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from trial import Trial, lives_of

import torture

TORTURE_S = float(os.environ.get("PERDURE_TORTURE_S", "10"))


def test_killed_three_times_under_load_a_server_has_kept_all_that_it_said(tmp_path: Path) -> None:
    seed = 6
    assert [life.way for life in lives_of(seed, 3, 0.5)] == ["load", "recovery", "stalled"]
    trial = Trial(tmp_path / "trial", seed)
    asyncio.run(trial.run(3, 0.5))
    figures = trial.figures
    assert figures.kills == 3
    assert figures.histories > 0
    assert figures.steps > 0
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
        asyncio.run(trial.run(6, 1.0))
        kills += trial.figures.kills
        if time.monotonic() > until:
            break
    assert kills > 0


def test_a_red_trial_says_its_seed_and_leaves_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["torture", "--seconds", "0", "--seed", "7", "--lives", "1"])
    monkeypatch.setattr("trial.violations", lambda path: ["a row too many"])
    assert torture.main() == 1
    (root,) = tmp_path.iterdir()
    said = capsys.readouterr().out
    assert f"RED: seed 7, 1 kills; see {root}: Violation: after life 0" in said
    assert "a row too many" in said
    asked = [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]
    assert any(line[2] == "asks" for line in asked)
