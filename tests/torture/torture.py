"""``make torture``: trials, one after the other, until the time is up; the first red one ends it.

A red trial says its seed, and leaves its directory behind: the data as it was, what the steps have
written outside, the ledger of the clients, the log of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

from ledger import Counts
from trial import Figures, Trial, TrialFailed

LIVES = 12
LOAD_S = 1.2


T = TypeVar("T", Counts, Figures)


def both(one: T, other: T) -> T:
    """The sums of their fields."""
    fields = [each.name for each in dataclasses.fields(one)]
    return type(one)(*(getattr(one, name) + getattr(other, name) for name in fields))


class Totals:
    """What all trials of this run have seen."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.figures = Figures()
        self._started = time.monotonic()

    def add(self, trial: Trial) -> None:
        for kind, counts in trial.ledger.counts.items():
            self.counts[kind] = both(self.counts[kind], counts)
        self.figures = both(self.figures, trial.figures)

    def of_all(self) -> Counts:
        total = Counts()
        for counts in self.counts.values():
            total = both(total, counts)
        return total

    def progress(self) -> str:
        all_kinds, took_s = self.of_all(), time.monotonic() - self._started
        return (
            f"{took_s:6.0f} s · {self.figures.trials} trials · {self.figures.kills} kills · "
            f"{all_kinds.acknowledged:,} acknowledged · {all_kinds.unknown:,} unknown"
        )

    def table(self) -> str:
        rows: list[tuple[str, ...]] = [("kind", "asked", "acknowledged", "unknown", "refused")]
        for kind, counts in [*sorted(self.counts.items()), ("all", self.of_all())]:
            rows.append((kind, *(f"{each:,}" for each in dataclasses.astuple(counts))))
        lines = [f"{name:<18}" + "".join(f"{each:>14}" for each in rest) for name, *rest in rows]
        seen, starts = self.figures, sorted(self.figures.recoveries_s) or [0.0]
        middle, longest = starts[len(starts) // 2], starts[-1]
        lines += [
            "",
            f"{seen.trials} trials, {seen.kills} kills (SIGKILL), {seen.stops} stops (SIGTERM)",
            f"{len(starts)} starts; to the first answer {middle:.2f} s, {longest:.2f} s at most",
            f"{seen.stories:,} stories, {seen.steps:,} steps, {seen.repeated:,} runs of them again",
            f"{seen.histories:,} histories of {seen.operations:,} operations, all linearizable",
        ]
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="no trial begins after them")
    parser.add_argument("--seed", type=int, help="of the first trial; the next has the next")
    parser.add_argument("--lives", type=int, default=LIVES, help="of a server in one trial")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    print(f"seeds from {seed}", flush=True)
    totals, until = Totals(), time.monotonic() + options.seconds
    while totals.figures.trials == 0 or time.monotonic() < until:
        root = Path(tempfile.mkdtemp(prefix="perdure-torture-"))
        trial = Trial(root, seed)
        try:
            asyncio.run(trial.run(options.lives, LOAD_S))
        except TrialFailed as error:
            totals.add(trial)
            print(f"{totals.progress()}\nRED: {error}")
            return 1
        except BaseException:
            print(f"seed {seed}, see {root}")
            raise
        shutil.rmtree(root)
        totals.add(trial)
        print(f"{totals.progress()} · seed {seed}", flush=True)
        seed += 1
    print(f"\n{totals.table()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
