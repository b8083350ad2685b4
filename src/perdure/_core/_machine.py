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
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from perdure._core._commands import Commands, State
from perdure._core._entries import LOGIC_VERSION, Entry, Flag, Kind, describe, kept, new_entry
from perdure._core._frames import where
from perdure._core._loop import Stage
from perdure._core._operation import Operation
from perdure._core._replay import Sites
from perdure._core._task import LoopTask
from perdure._core._view import Reads
from perdure.errors import HandlerStalled, InternalError, PerdureError

__all__ = ["CALLBACKS_MAX", "PYTHON_MINOR", "START", "Activation", "Machine", "State"]

PYTHON_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"

CALLBACKS_MAX = 100_000
"""Callbacks one activation may run before it counts as a handler that never goes idle."""

START = Entry(Kind.START, LOGIC_VERSION, PYTHON_MINOR)
"""The notification that begins a journal."""

_MAY_ACTIVATE = frozenset({State.NEW, State.REPLAYING, State.LIVE})
_MAY_REPLAY = frozenset({State.NEW, State.REPLAYING})
_MAY_ANSWER = frozenset({State.LIVE})
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


class Machine(Commands):
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
        Commands.__init__(self, reads, sites, report, show)
        self._main_factory = main
        self._context = context
        self._report = report
        self._own_stage = stage is None
        self._stage = Stage() if stage is None else stage
        self._main: LoopTask | None = None
        self._completions = 0

    @property
    def next_index(self) -> int:
        """Index of the entry that follows the journal."""
        return self._next_index

    def activate(self, notification: Entry, now_ms: int) -> Activation:
        """Deliver *notification* live and run until idle, or until something is :attr:`asked`.

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
        self.outgoing.clear()
        self._run(notification)
        return self._settled(first_index, entries)

    def answer(self, entry: Entry) -> Activation:
        """Go on with the activation that stopped: *entry* is what was :attr:`asked`, answered.

        The result has what followed; the command itself is its first entry. Errors are those of
        :meth:`activate`.
        """
        self._check_driver(_MAY_ANSWER)
        asker = self._asker
        if asker is None:
            raise InternalError("a machine that asked for nothing was answered")
        self.asked = self._asker = None
        first_index = self._next_index
        entries = self._entries = []
        self._ended = None
        self._has_long = False
        self.outgoing.clear()
        # It goes before all else that is ready: no time has passed for the handler.
        waiting = list(self.queue.items)
        self.queue.items.clear()
        asker.set_result(entry)
        self.queue.items.extend(waiting)
        self.queue.stopped = False
        self._drive(False)
        return self._settled(first_index, entries)

    def _settled(self, first_index: int, entries: list[Entry]) -> Activation:
        if not self.outstanding and self.state is _LIVE and self._asker is None:
            self._fail(
                HandlerStalled(
                    f"the handler waits for nothing that can happen, at {self.waiting_line()}"
                )
            )
        self._entries = []  # what the journal has is not kept here too
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
        for operation in self.outstanding.values():
            operation._let_go()
        self.outstanding.clear()
        self.asked = self._asker = None
        self._error = None  # its traceback leads to the handler's frames
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
        elif kind != Kind.CANCELLED:
            operation = self.outstanding.pop(ref, None)
            if operation is None:
                self._fail(InternalError(f"{describe(notification)}, which nothing waits for"))
            self._completions += 1
            operation.complete(payload, flags, self._completions)
        self._drive(kind == Kind.CANCELLED)

    def _drive(self, cancelled: bool) -> None:
        """Run until nothing is ready, or something is asked."""
        loop = self.loop
        self._stage.enter(loop)
        self.running = True
        self._host_frame = sys._getframe(0)
        try:
            if cancelled:
                self._cancel()
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
        if main is not None and main.done() and not self.queue.stopped:
            self._finish(main)

    def _cancel(self) -> None:
        """Cancel the handler as asyncio does, the calls it has outstanding before it."""
        self.cancel_requested = True
        for operation in list(self.outstanding.values()):
            if operation.kind == Kind.CALL:
                operation.cancel()
        if self._main is not None:
            self._main.cancel()

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


def _refuse_to_start(machine: Machine) -> NoReturn:
    raise InternalError("a machine that is closed was started")


def _drop_report(problem: dict[str, Any]) -> None:
    """Nobody hears what a closed machine reports."""
