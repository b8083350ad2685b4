"""The invocation state machine: notifications in, commands out, the journal in between.

Theory of operation. The machine runs one handler on a deterministic loop. ``activate`` delivers one
notification, lets the handler run until nothing is ready, and returns the entries of that
activation: the notification and the commands issued. The driver makes them durable, *then* acts on
them. ``replay`` does the same with a recorded activation: each command the handler issues is
compared with the recorded one, and commands that complete at once take their answer from it.

It never reads a clock, a file or a random number. Once it has failed, each further use fails alike.

This module is compiled (see ``_machine.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import contextvars
import enum
import sys
from asyncio import _get_running_loop as get_running_loop
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import Any, NoReturn

from perdure._core._entries import (
    LOGIC_VERSION,
    PAYLOAD_KEPT_MAX,
    Entry,
    Flag,
    Kind,
    decode_names,
    describe,
    kept,
    new_entry,
)
from perdure._core._frames import is_plumbing, where
from perdure._core._loop import DeterministicLoop, Stage
from perdure._core._operation import Operation
from perdure._core._replay import Recode, Sites, divergence, fits
from perdure._core._signals import Halted
from perdure._core._task import LoopTask, ReadyQueue
from perdure._core._view import KeyView, Reads
from perdure.errors import HandlerStalled, InternalError, InvalidInput, PerdureError

PYTHON_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"

CALLBACKS_MAX = 100_000
"""Callbacks one activation may run before it counts as a handler that never goes idle."""

START = Entry(Kind.START, LOGIC_VERSION, PYTHON_MINOR)
"""The notification that begins a journal."""


class State(enum.Enum):
    NEW = "new"  # nothing delivered yet
    REPLAYING = "replaying"  # between recorded activations
    LIVE = "live"  # idle, between activations of its own
    COMPLETED = "completed"  # the handler returned or failed for good
    FAILED = "failed"  # the attempt is over: an exception, a divergence, a stall
    CLOSED = "closed"  # evicted; the coroutine is gone


_MAY_ACTIVATE = frozenset({State.NEW, State.REPLAYING, State.LIVE})
_MAY_REPLAY = frozenset({State.NEW, State.REPLAYING})
# Bound once: looking a member up in its class costs more than the comparison.
_LIVE, _COMPLETED = State.LIVE, State.COMPLETED


class Activation:
    """What one activation left behind.

    Attributes:
      first_index: Journal index of ``entries[0]``, the notification.
      entries: As issued, with whole payloads.
      ended: Operations that this activation cancelled.
      kept: The entries in the form the journal keeps.
      completed: The last entry is the output.
    """

    __slots__ = ("completed", "ended", "entries", "first_index", "kept")

    def __init__(
        self,
        first_index: int,
        entries: list[Entry],
        ended: Sequence[Operation],
        kept: list[Entry],
        completed: bool,
    ) -> None:
        self.first_index = first_index
        self.entries = entries
        self.ended = ended
        self.kept = kept
        self.completed = completed


class Machine:
    """One attempt of one invocation.

    Args:
      main: Makes the handler's coroutine; it returns (payload, failed) and raises for a retry.
      reads: The key's state and promises.
      sites: Interns call sites.
      context: Context variables of the handler.
      report: Told what asyncio would give a loop's exception handler.
      show: Renders a payload for a nondeterminism report.
      stage: Shared by machines that are driven one after the other; whoever drives them leaves it.
        None: entered and left at each activation.
    """

    def __init__(
        self,
        main: Callable[[Machine], Coroutine[Any, Any, tuple[bytes, bool]]],
        *,
        reads: Reads,
        sites: Sites,
        context: contextvars.Context,
        report: Callable[[dict[str, Any]], None],
        show: Callable[[bytes], str] = repr,
        stage: Stage | None = None,
    ) -> None:
        self.queue = ReadyQueue()
        self.loop = DeterministicLoop(self.queue, self, report)
        self.state = State.NEW
        self.running = False  # inside an activation or a replay
        self.time_ms = 0  # of the activation delivered last
        self.outstanding: dict[int, Operation] = {}  # issued, not completed, by entry index
        self.promise_names: set[str] = set()  # that `run` has asked for
        self._main_factory = main
        self._view = KeyView(reads)
        self._has_writes = False  # the view has something that the next activation must not see
        self._sites = sites
        self._context = context
        self._report = report
        self._show = show
        self._own_stage = stage is None
        self._stage = Stage() if stage is None else stage
        self._main: LoopTask | None = None
        self._error: BaseException | None = None  # sticky
        self._next_index = 0
        self._completions = 0
        self._entries: list[Entry] = []  # of the live activation
        self._ended: list[Operation] | None = None  # by the live activation
        self._has_long = False  # the live activation has a payload of which the journal keeps less
        self._recorded: Sequence[Entry] | None = None  # of the activation being replayed
        self._first_replayed = 0  # index of its notification
        self._host_frame: FrameType | None = None  # of who drives, during an activation

    # -- the driver's side ------------------------------------------------------------------

    @property
    def replaying(self) -> bool:
        return self.state is State.REPLAYING

    @property
    def next_index(self) -> int:
        """Index of the entry that follows the journal."""
        return self._next_index

    def activate(self, notification: Entry, now_ms: int) -> Activation:
        """Deliver *notification* live and run until idle.

        Raises:
          HandlerStalled: The handler waits for nothing that can happen, or never goes idle.
          BaseException: What the handler raised; the attempt leaves no trace.
        """
        self._check_driver(_MAY_ACTIVATE)
        self.state = _LIVE
        kind, ref, name, payload, _, _, flags = notification
        operation = self.outstanding.get(ref)
        if operation is not None and operation.time_ms > now_ms:
            now_ms = operation.time_ms  # a timer is never delivered before its deadline
        if now_ms < self.time_ms:
            now_ms = self.time_ms
        first_index = self._next_index
        self._next_index = first_index + 1
        notification = new_entry((kind, ref, name, payload, now_ms, 0, flags))
        entries = self._entries = [notification]
        self._ended = None
        self._has_long = False
        self._run(notification)
        if not self.outstanding and self.state is _LIVE:
            self._fail(
                HandlerStalled(
                    f"the handler waits for nothing that can happen, at {self.waiting_line()}"
                )
            )
        kept_entries = [kept(entry) for entry in entries] if self._has_long else entries
        return Activation(
            first_index, entries, self._ended or (), kept_entries, self.state is _COMPLETED
        )

    def replay(self, entries: Sequence[Entry]) -> None:
        """Deliver a recorded activation, comparing each command with the recorded one.

        Raises:
          NondeterminismError: The code does not fit the journal.
          BaseException: What the handler raised where the journal goes on.
        """
        self._check_driver(_MAY_REPLAY)
        self.state = State.REPLAYING
        notification = entries[0]
        if notification.kind == Kind.START and notification.ref > LOGIC_VERSION:
            self._fail(
                InternalError(
                    f"this journal was written by logic version {notification.ref} of perdure; "
                    f"this release knows {LOGIC_VERSION}: upgrade perdure to continue it"
                )
            )
        self._recorded = entries
        self._first_replayed = self._next_index
        self._next_index += 1
        self._run(notification)
        done = self._next_index - self._first_replayed
        if done < len(entries):
            self._diverge(entries[done], None)
        self._recorded = None

    def close(self) -> list[str]:
        """Evict: close the coroutines; complaints about those that awaited in ``finally``."""
        self.state = State.CLOSED
        complaints = self.loop.evict()
        # The circles that a machine is in are cut, so that it goes at once, with all it has, and
        # not when the garbage collector comes to it.
        self._main = None
        self._main_factory = _refuse_to_start
        self._report = _drop_report
        return complaints

    def waiting_line(self) -> str:
        """The user's line the handler waits at: ``file:line in function``."""
        return where(self._main.get_coro()) if self._main is not None else "its start"

    def _check_driver(self, allowed: frozenset[State]) -> None:
        if self._error is not None:
            raise self._error
        if self.state not in allowed:
            raise InternalError(f"a machine that is {self.state.value} was driven")

    def _run(self, notification: Entry) -> None:
        kind, ref, _, payload, time_ms, _, flags = notification
        self.time_ms = self.loop.time_ms = time_ms
        if self._has_writes:
            self._has_writes = False
            self._view.forget()
        if kind == Kind.START:
            self._main = self.loop.create_task(
                self._main_factory(self), name="handler", context=self._context
            )
        else:
            operation = self.outstanding.pop(ref, None)
            if operation is None:
                self._fail(InternalError(f"{describe(notification)}, which nothing waits for"))
            self._completions += 1
            operation.complete(payload, flags, self._completions)
        loop = self.loop
        self._stage.enter(loop)
        self.running = True
        self._host_frame = sys._getframe(0)
        try:
            idle = self.queue.run(CALLBACKS_MAX, self._report)
        finally:
            self._host_frame = None
            self.running = False
            if self._own_stage:
                self._stage.leave()
        if self._error is not None:
            raise self._error
        if not idle:
            self._fail(
                HandlerStalled(
                    f"the handler ran {CALLBACKS_MAX:,} callbacks without waiting for anything; "
                    f"it spins at {self._spinning_line()}"
                )
            )
        main = self._main
        if main is not None and main.done():
            self._finish(main)

    def _finish(self, main: LoopTask) -> None:
        if main.cancelled():
            self._fail(
                PerdureError("the handler raised CancelledError although nobody cancelled it")
            )
        failure = main.exception()
        if failure is not None:
            self._fail(failure)
        payload, failed = main.result()
        for operation in list(self.outstanding.values()):
            if operation.kind == Kind.RUN:
                self._record(Entry(Kind.CANCEL, operation.index))
                self._end(operation)
                del self.outstanding[operation.index]
        self._record(Entry(Kind.OUTPUT, payload=payload, flags=Flag.FAILED if failed else 0))
        self.state = State.COMPLETED

    def _spinning_line(self) -> str:
        item: Any = self.queue.items[0]
        callback = getattr(item, "_callback", None)
        if callback is not None:
            item = getattr(callback, "__self__", None)
        if isinstance(item, LoopTask):
            return where(item.get_coro())
        return getattr(callback, "__qualname__", None) or repr(callback)

    def _fail(self, error: BaseException) -> NoReturn:
        self._error = error
        self.state = State.FAILED
        self.queue.halt()
        raise error

    # -- the handler's side -----------------------------------------------------------------

    def check_usable(self) -> None:
        """Raise unless the calling code runs in this handler, now."""
        if get_running_loop() is not self.loop:
            if self.state in (State.CLOSED, State.COMPLETED, State.FAILED):
                raise InvalidInput(
                    "this context was used after its handler ended, or was suspended and left "
                    "memory; a context lives as long as one run of its handler: pass values into "
                    "steps and tasks of the host instead"
                )
            raise InvalidInput(
                "this context was used outside its own handler (in a step, in a task of the "
                "host's loop, in another handler or in a thread): pass values into steps and tasks "
                "of the host instead, and do durable operations in the handler itself"
            )
        if self.state is State.CLOSED or self._error is not None:
            raise Halted

    @property
    def is_over(self) -> bool:
        """Whether nothing the handler still asks for will happen."""
        return self._error is not None or self.state is State.CLOSED

    def begin(self, operation: Operation, frame: FrameType | None = None) -> None:
        """Issue the command that begins *operation*, called for at *frame* where that is known.

        Whoever calls this has checked that the context may be used.
        """
        site = self._site(sys._getframe(0)) if frame is None else self._sites.of(frame)
        index = self._next_index
        entry = new_entry((operation.kind, 0, operation.name, None, operation.time_ms, site, 0))
        if self._recorded is None:
            self._entries.append(entry)
            self._next_index = index + 1
        else:
            operation.time_ms = self._record(entry).time_ms  # the recorded deadline
        operation.index = index
        self.outstanding[index] = operation

    def cancel_operation(self, operation: Operation) -> None:
        """Issue the command that ends *operation*."""
        self.issue(Entry(Kind.CANCEL, operation.index))
        self._end(operation)
        del self.outstanding[operation.index]

    def _end(self, operation: Operation) -> None:
        if self._ended is None:
            self._ended = []
        self._ended.append(operation)

    def start_timer(self, deadline_ms: int, fire: Callable[[], None]) -> Callable[[], None]:
        """The loop's port for ``call_later``: an operation whose completion calls *fire*."""
        timer = _LoopTimer(self, deadline_ms, fire)
        timer.issue()
        return timer.end

    def get_state(self, name: str) -> bytes | None:
        return self._read(Entry(Kind.STATE_GET, name=name), self._view.answer_get).payload

    def state_names(self) -> list[str]:
        entry = self._read(Entry(Kind.STATE_KEYS), self._view.answer_keys)
        return decode_names(entry.payload or b"")

    def set_state(self, name: str, payload: bytes, recode: Recode) -> None:
        self.issue(Entry(Kind.STATE_SET, name=name, payload=payload), recode)
        self._has_writes = True
        self._view.set_state(name, payload)

    def clear_state(self, name: str) -> None:
        self.issue(Entry(Kind.STATE_CLEAR, name=name))
        self._has_writes = True
        self._view.set_state(name, None)

    def clear_all_state(self) -> None:
        self.issue(Entry(Kind.STATE_CLEAR_ALL))
        self._has_writes = True
        self._view.clear_all_state()

    def peek_promise(self, name: str) -> tuple[bytes, bool] | None:
        entry = self._read(Entry(Kind.PROMISE_PEEK, name=name), self._view.answer_peek)
        if entry.payload is None:
            return None
        return entry.payload, bool(entry.flags & Flag.FAILED)

    def complete_promise(
        self, name: str, payload: bytes, *, failed: bool, recode: Recode | None
    ) -> bool:
        """Resolve or reject; False if the promise was completed before."""
        self.check_usable()  # before the store is read
        kind = Kind.PROMISE_REJECT if failed else Kind.PROMISE_RESOLVE
        entry = Entry(kind, name=name, payload=payload)
        if self._recorded is None and self._view.promise(name) is not None:
            entry = entry._replace(flags=Flag.REFUSED)
        entry = self.issue(entry, recode)
        if entry.flags & Flag.REFUSED:
            return False
        self._has_writes = True
        self._view.complete_promise(name, payload, failed)
        return True

    def issue(self, entry: Entry, recode: Recode | None = None) -> Entry:
        """Append *entry* to the activation, or match it with the recorded one and return that."""
        self.check_usable()
        return self._record(entry._replace(site=self._site(sys._getframe(0))), recode)

    def _site(self, frame: FrameType | None) -> int:
        """The user's call site nearest to *frame*; 0 where a callback of a library asks."""
        while frame is not None and is_plumbing(frame):
            if frame is self._host_frame:
                return 0
            frame = frame.f_back
        return 0 if frame is None or frame is self._host_frame else self._sites.of(frame)

    def _read(self, entry: Entry, answer: Callable[[Entry], Entry]) -> Entry:
        self.check_usable()  # before the store is read: it may be closed, this another thread
        return self.issue(answer(entry) if self._recorded is None else entry)

    def _record(self, entry: Entry, recode: Recode | None = None) -> Entry:
        if self._recorded is None:
            self._entries.append(entry)
            if entry.payload is not None and len(entry.payload) > PAYLOAD_KEPT_MAX:
                self._has_long = True
        else:
            position = self._next_index - self._first_replayed
            if position >= len(self._recorded):
                self._diverge(None, entry)
            recorded = self._recorded[position]
            if not fits(recorded, entry, recode):
                self._diverge(recorded, entry)
            entry = recorded
        self._next_index += 1
        return entry

    def _diverge(self, recorded: Entry | None, issued: Entry | None) -> NoReturn:
        self._error = divergence(self._next_index, recorded, issued, self._sites, self._show)
        self.state = State.FAILED
        self.queue.halt()
        # Inside the handler, control flow that its `except Exception` can not swallow.
        raise Halted if self.running else self._error


def _refuse_to_start(machine: Machine) -> NoReturn:
    raise InternalError("a machine that is closed was started")


def _drop_report(problem: dict[str, Any]) -> None:
    """Nobody hears what a closed machine reports."""


class _LoopTimer(Operation):
    """A timer that asyncio itself asked for: sleep, timeout, wait_for."""

    def __init__(self, machine: Machine, deadline_ms: int, fire: Callable[[], None]) -> None:
        super().__init__(machine, Kind.TIMER, "", time_ms=deadline_ms)
        self._fire = fire

    def _wake(self) -> None:
        if not self.cancelled():
            self._fire()

    def end(self) -> None:
        self.cancel()
