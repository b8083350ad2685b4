"""A process of the perturbation test: records programs, and replays what another has recorded.

Usage: perturbed.py CORE COUNT JUNK GC OUT [REPLAY]. CORE says what the core must be, compiled or
interpreted. COUNT programs are made from the seeds below it. JUNK seeds the objects that are
allocated and freed around them, so that addresses differ; GC is a threshold of the garbage
collector, 0 for none. The journals go to the file OUT; those in REPLAY, written by another such
process, are replayed.
"""

from __future__ import annotations

import gc
import json
import random
import sys
from pathlib import Path
from typing import Any

from driver import Driver, outstanding_of
from interpreted import assert_loaded
from programs import build, interpret

from perdure._core._entries import Entry
from perdure.errors import HandlerStalled

NOTIFICATIONS_MAX = 60


class Junk:
    """Objects that come and go, so that no two processes lay theirs out alike."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kept: list[object] = []

    def stir(self) -> None:
        choose = self._random
        if not choose.random():
            return
        made = [
            _MAKERS[choose.randrange(len(_MAKERS))](choose) for _ in range(choose.randrange(40))
        ]
        self._kept += made[:: choose.randrange(2, 5)]
        if len(self._kept) > 2000:
            choose.shuffle(self._kept)
            del self._kept[1000:]


_MAKERS = (
    lambda choose: bytearray(choose.randrange(1, 600)),
    lambda choose: [None] * choose.randrange(60),
    lambda choose: {number: number for number in range(choose.randrange(12))},
    lambda choose: Entry(choose.randrange(60)),
    lambda choose: lambda: choose,
    lambda choose: (number for number in range(3)),
)


def record(seed: int, junk: Junk) -> list[Any]:
    """What the program of *seed* left behind, the world answering by the same seed.

    Its journal, how it ended, what it waits for, complaints, and the texts of its call sites.
    """
    choose = random.Random(seed)
    driver = Driver(interpret(build(choose.randrange)))
    end = "the world gave up"
    try:
        junk.stir()
        driver.start()
        for _ in range(NOTIFICATIONS_MAX):
            junk.stir()
            if driver.completed:
                end = "completed"
                break
            driver.world.now_ms += choose.randrange(3) * 7
            answerable = driver.deliverable()
            driver.answer(answerable[choose.randrange(len(answerable))])
    except HandlerStalled as stalled:
        end = str(stalled)
    waiting = outstanding_of(driver.machine) if end == "the world gave up" else []
    complaints = driver.evict()
    journal = [[_plain(entry) for entry in activation] for activation in driver.world.journal]
    return [journal, end, waiting, complaints, driver.sites.texts]


def replay(seed: int, recorded: list[Any]) -> None:
    """Replay another process's journal; raises where this one does anything else."""
    driver = Driver(interpret(build(random.Random(seed).randrange)))
    driver.world.journal = [[_entry(plain) for plain in activation] for activation in recorded[0]]
    driver.replay()
    if recorded[1] == "the world gave up":
        assert [list(row) for row in outstanding_of(driver.machine)] == recorded[2]
    driver.evict()


def _plain(entry: Entry) -> list[Any]:
    return [*entry[:3], None if entry.payload is None else entry.payload.hex(), *entry[4:]]


def _entry(plain: list[Any]) -> Entry:
    payload = None if plain[3] is None else bytes.fromhex(plain[3])
    return Entry._make([*plain[:3], payload, *plain[4:]])


def main(
    core: str, count: str, junk_seed: str, threshold: str, out: str, recorded: str = ""
) -> None:
    assert_loaded(compiled={"compiled": True, "interpreted": False}[core])
    if threshold == "0":
        gc.disable()
    else:
        gc.set_threshold(int(threshold))
    junk = Junk(int(junk_seed))
    journals = [record(seed, junk) for seed in range(int(count))]
    Path(out).write_text(json.dumps(journals))
    if recorded:
        others = json.loads(Path(recorded).read_text())
        for seed, other in enumerate(others):
            junk.stir()
            try:
                replay(seed, other)
            except Exception as error:
                raise AssertionError(f"the journal of seed {seed} does not replay") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
