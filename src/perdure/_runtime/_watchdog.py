"""Who holds up the host's loop: a handler, a step or the program, with the line.

Theory of operation. A thread asks the loop now and then to call back. Where that does not come for
longer than it should, the thread looks at what the loop's thread is doing, and says so once. It
asks only while the engine has something to do: after some looks at an idle engine it sleeps, and
the pump wakes it. The pump's part is one comparison a turn.

A process that was stopped, or a machine that slept, has held up nothing: of the time between two
looks no more counts than was meant to pass, or than the loop's thread has computed.
"""

from __future__ import annotations

import asyncio
import linecache
import logging
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from perdure._runtime._instance import LOADING

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

logger = logging.getLogger("perdure")

IDLE_LOOKS = 20
"""After so many looks at an engine that had nothing to do, the thread sleeps."""

SLEEP_S = 60.0
"""After so long asleep the thread looks whether there is a loop yet."""

_LOOP_MODULES = frozenset({"asyncio.base_events", "asyncio.events", "asyncio.runners", "selectors"})
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


@dataclass(frozen=True, slots=True)
class _Culprit:
    """Who holds the loop, and what to do about it."""

    name: str
    remedy: str


class Watchdog:
    """Watches the loop of *scheduler* from a thread of its own, which starts with the first work.

    Args:
      warn_after_s: What holds the loop for longer is named in the log.
    """

    def __init__(
        self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop, warn_after_s: float
    ) -> None:
        self._scheduler = scheduler
        self._loop = loop
        self._warn_after_s = warn_after_s
        self._interval_s = warn_after_s / 2
        self._loop_thread = threading.get_ident()
        self._wake = threading.Event()
        self._started = False
        self._closed = False
        # Written by the loop's thread, read by the watching one.
        self._asleep = True
        self._back_at: float | None = None  # when the loop called back; None: it has not yet
        self._idle_looks = 0

    def open(self) -> None:
        """From now on the pump wakes it. On the loop, as all but the watching itself."""
        scheduler = self._scheduler
        scheduler.pump.rouse = self._rouse
        if scheduler.pump.queue or scheduler.residents.recovering:
            self._rouse()

    def close(self) -> None:
        """Let the thread end; does not wait for it, which may be in the middle of a log record."""
        self._closed = True
        self._scheduler.pump.rouse = None
        self._wake.set()

    def _rouse(self) -> None:
        self._scheduler.pump.rouse = None
        self._idle_looks = 0
        self._asleep = False
        self._wake.set()
        if not self._started:
            self._started = True
            threading.Thread(target=self._serve, name="perdure-watchdog", daemon=True).start()

    def _called_back(self) -> None:
        self._back_at = time.monotonic()
        scheduler = self._scheduler
        if not scheduler.is_quiet():
            self._idle_looks = 0
            return
        self._idle_looks += 1
        if self._idle_looks >= IDLE_LOOKS and not self._closed:
            self._asleep = True
            scheduler.pump.rouse = self._rouse

    # -- in the thread ----------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closed:
            while self._asleep and not self._wake.wait(SLEEP_S):
                if self._loop.is_closed():
                    return  # the engine was not closed, and nobody will wake this thread
            self._wake.clear()
            try:
                self._back_at = None
                self._loop.call_soon_threadsafe(self._called_back)
            except RuntimeError:
                return  # the loop is closed, and the engine with it
            self._watch_one()

    def _watch_one(self) -> None:
        """Until the loop has called back, or the engine is closed."""
        asked_at = looked_at = time.monotonic()
        begun_cpu_s = looked_cpu_s = self._cpu_s()
        held_s = 0.0
        culprit: _Culprit | None = None
        while True:
            if self._wake.wait(self._interval_s):
                self._wake.clear()  # set after the thread had got up by itself: it would not wait
            back_at, now, cpu_s = self._back_at, time.monotonic(), self._cpu_s()
            computed_s = cpu_s - looked_cpu_s
            late_s = now - looked_at - self._interval_s
            if back_at is None and self._loop.is_running():
                held_s += max(min(now - looked_at, self._interval_s), computed_s)
            elif min(computed_s, late_s) >= self._warn_after_s:
                # One call into C that kept the GIL: until it returned, nobody could look.
                held_s, begun_cpu_s = computed_s, looked_cpu_s
            looked_at, looked_cpu_s = now, cpu_s
            if held_s >= self._warn_after_s and culprit is None:
                culprit = self._warn(held_s, cpu_s - begun_cpu_s)
            if back_at is not None or self._closed:
                break
        if culprit is not None and back_at is not None:
            logger.warning(
                "the event loop goes on: %s held it for %.1f s",
                culprit.name,
                max(back_at - asked_at, held_s),
            )

    def _warn(self, held_s: float, cpu_s: float) -> _Culprit | None:
        """Say who holds the loop; None if nobody does any more."""
        frame = _culprit_frame(sys._current_frames().get(self._loop_thread))
        if frame is None:
            return None
        culprit = self._culprit()
        file, line = frame.f_code.co_filename, frame.f_lineno
        logger.warning(
            "%s has held the event loop for %.1f s (%.1f s of them computing), at %s:%s in %s: %s. "
            "Nothing else runs meanwhile: %s",
            culprit.name,
            held_s,
            cpu_s,
            file,
            line,
            frame.f_code.co_qualname,
            linecache.getline(file, line or 0).strip() or "(no source)",
            culprit.remedy,
        )
        return culprit

    def _culprit(self) -> _Culprit:
        scheduler = self._scheduler
        instance = scheduler.pump.current
        if instance is not None:
            record = instance.record
            doing = ", replaying" if instance.phase == LOADING else ""
            return _Culprit(
                f"{instance.text_id} ({record.service}.{record.handler}{doing})",
                "do it in a step, await ctx.run('name', function): a plain def runs in a thread",
            )
        try:
            task = asyncio.current_task(self._loop)
            for running in scheduler.running.all():
                if running.task is task and task is not None:
                    return _Culprit(
                        f"the step {running.step.name!r} of {running.text_id}",
                        "make it a plain def, which runs in a thread, or await what it waits for",
                    )
        except RuntimeError:
            pass  # the loop goes on, and the steps change while they are looked at
        return _Culprit(
            "the program, outside of handlers and steps,",
            "do it in a thread, await asyncio.to_thread(function)",
        )

    def _cpu_s(self) -> float:
        """Seconds that the loop's thread has computed; of the process, where threads tell not."""
        if sys.platform == "darwin":
            return time.process_time()
        try:
            return time.clock_gettime(time.pthread_getcpuclockid(self._loop_thread))
        except OSError:
            return 0.0  # the thread has ended


def _culprit_frame(innermost: FrameType | None) -> FrameType | None:
    """The innermost frame of somebody's own code; of a library's where there is none.

    None: the loop itself runs, and calls nobody.
    """
    first: FrameType | None = None
    frame = innermost
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _LOOP_MODULES:
            break
        if module.partition(".")[0] != "perdure":
            first = first or frame
            if not frame.f_code.co_filename.startswith(_LIBRARIES):
                return frame
        frame = frame.f_back
    return None if frame is innermost else first
