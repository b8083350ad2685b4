"""The invocation state machine: notifications in, commands out, the journal in between.

Theory of operation. The machine runs one handler on a deterministic loop. ``activate`` delivers one
notification, lets the handler run until nothing is ready, and returns the entries of that
activation: the notification and the commands issued. The driver makes them durable, *then* acts on
them. ``replay`` does the same with a recorded activation: each command the handler issues is
compared with the recorded one, and commands that complete at once take their answer from it.

It never reads a clock, a file or a random number. Once it has failed, each further use fails alike.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import sys
from asyncio import _get_running_loop as get_running_loop
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn, Protocol

from perdure._core._entries import (
    LOGIC_VERSION,
    PAYLOAD_KEPT_MAX,
    Entry,
    Flag,
    Kind,
    decode_names,
    describe,
    encode_names,
    kept,
)
from perdure._core._loop import CALLBACKS_MAX, DeterministicLoop
from perdure._core._operation import Operation
from perdure._core._replay import Recode, Sites, divergence, fits
from perdure._core._signals import Halted
from perdure._core._task import LoopTask, is_plumbing, where
from perdure.errors import HandlerStalled, InternalError, InvalidInput, PerdureError

PYTHON_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


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
_new_entry = functools.partial(tuple.__new__, Entry)


class Reads(Protocol):
    """What a handler may read of its key, as of the end of the previous activation."""

    def state(self, name: str) -> bytes | None: ...

    def state_names(self) -> list[str]: ...

    def promise(self, name: str) -> tuple[bytes, bool] | None:
        """(payload, failed) of a completed promise."""
        ...


class Activation(NamedTuple):
    """What one activation left behind.

    Attributes:
      first_index: Journal index of ``entries[0]``, the notification.
      entries: As issued, with whole payloads.
      ended: Operations that this activation cancelled.
      kept: The entries in the form the journal keeps.
      completed: The last entry is the output.
    """

    first_index: int
    entries: list[Entry]
    ended: list[Operation]
    kept: list[Entry]
    completed: bool


class Machine:
    """One attempt of one invocation.

    Args:
      main: Makes the handler's coroutine; it returns (payload, failed) and raises for a retry.
      reads: The key's state and promises.
      sites: Interns call sites.
      context: Context variables of the handler.
      report: Told what asyncio would give a loop's exception handler.
      show: Renders a payload for a nondeterminism report.
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
    ) -> None:
        self.loop = DeterministicLoop(self, report)
        self.state = State.NEW
        self.time_ms = 0  # of the activation delivered last
        self.outstanding: dict[int, Operation] = {}  # issued, not completed, by entry index
        self.promise_names: set[str] = set()  # that `run` has asked for
        self._main_factory = main
        self._reads = reads
        self._sites = sites
        self._context = context
        self._show = show
        self._main: LoopTask | None = None
        self._error: BaseException | None = None  # sticky
        self._next_index = 0
        self._completions = 0
        self._entries: list[Entry] = []  # of the live activation
        self._ended: list[Operation] = []  # by the live activation
        self._has_long = False  # the live activation has a payload of which the journal keeps less
        self._recorded: Sequence[Entry] | None = None  # of the activation being replayed
        self._first_replayed = 0  # index of its notification
        # Effects of this activation that its own later reads must see.
        self._has_writes = False
        self._state_writes: dict[str, bytes | None] = {}
        self._state_cleared = False
        self._promise_writes: dict[str, tuple[bytes, bool]] = {}

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
            now_ms = operation.time_ms
        if now_ms < self.time_ms:
            now_ms = self.time_ms
        first_index = self._next_index
        self._next_index += 1
        notification = _new_entry((kind, ref, name, payload, now_ms, 0, flags))
        entries = self._entries = [notification]
        ended = self._ended = []
        self._has_long = False
        self._run(notification)
        if not self.outstanding and self.state is _LIVE:
            self._fail(
                HandlerStalled(
                    f"the handler waits for nothing that can happen, at {self.waiting_line()}"
                )
            )
        kept_entries = [kept(entry) for entry in entries] if self._has_long else entries
        return Activation(first_index, entries, ended, kept_entries, self.state is _COMPLETED)

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
        return self.loop.evict()

    def waiting_line(self) -> str:
        """The user's line the handler waits at: ``file:line in function``."""
        return where(self._main.get_coro()) if self._main is not None else "its start"

    def _check_driver(self, allowed: frozenset[State]) -> None:
        if self._error is not None:
            raise self._error
        if self.state not in allowed:
            raise InternalError(f"a machine that is {self.state.value} was driven")

    def _run(self, notification: Entry) -> None:
        self.time_ms = notification.time_ms
        self.loop.set_time_ms(notification.time_ms)
        if self._has_writes:
            self._has_writes = self._state_cleared = False
            self._state_writes.clear()
            self._promise_writes.clear()
        if notification.kind == Kind.START:
            self._main = self.loop.create_task(
                self._main_factory(self), name="handler", context=self._context
            )
        else:
            self._deliver(notification)
        idle = self.loop.run_until_idle()
        if self._error is not None:
            raise self._error
        if not idle:
            self._fail(
                HandlerStalled(
                    f"the handler ran {CALLBACKS_MAX:,} callbacks without waiting for anything; "
                    f"it spins at {self._spinning_line()}"
                )
            )
        if self._main is not None and self._main.done():
            self._finish(self._main)

    def _deliver(self, notification: Entry) -> None:
        operation = self.outstanding.pop(notification.ref, None)
        if operation is None:
            self._fail(InternalError(f"{describe(notification)}, which nothing waits for"))
        self._completions += 1
        operation.complete(notification, self._completions)

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
                self._ended.append(operation)
                del self.outstanding[operation.index]
        self._record(Entry(Kind.OUTPUT, payload=payload, flags=Flag.FAILED if failed else 0))
        self.state = State.COMPLETED

    def _spinning_line(self) -> str:
        handle = self.loop.next_callback()
        callback = getattr(handle, "_callback", None)
        task = getattr(callback, "__self__", None)
        return where(task.get_coro()) if isinstance(task, LoopTask) else f"{callback!r}"

    def _fail(self, error: BaseException) -> NoReturn:
        self._error = error
        self.state = State.FAILED
        self.loop.halt()
        raise error

    # -- the handler's side -----------------------------------------------------------------

    def check_usable(self) -> None:
        """Raise unless the calling code runs in this handler, now."""
        if get_running_loop() is not self.loop:
            if self.state in (State.CLOSED, State.COMPLETED, State.FAILED):
                raise InvalidInput(
                    "this context was used after its handler ended, or left memory to wait; a "
                    "context lives as long as one run of its handler: pass values into steps and "
                    "tasks of the host instead"
                )
            raise InvalidInput(
                "this context was used outside its own handler (in a step, in a task of the "
                "host's loop, in another handler or in a thread); pass values into the step "
                "instead, and do durable operations in the handler itself"
            )
        if self.state is State.CLOSED or self._error is not None:
            raise Halted

    @property
    def is_over(self) -> bool:
        """Whether nothing the handler still asks for will happen."""
        return self._error is not None or self.state is State.CLOSED

    def begin(self, operation: Operation, frame: FrameType | None = None) -> None:
        """Issue the command that begins *operation*, called for at *frame* where that is known."""
        self.check_usable()
        site = self._site(sys._getframe(1)) if frame is None else self._sites.of(frame)
        index = self._next_index
        entry = _new_entry((operation.kind, 0, operation.name, None, operation.time_ms, site, 0))
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
        self._ended.append(operation)
        del self.outstanding[operation.index]

    def start_timer(self, deadline_ms: int, fire: Callable[[], None]) -> Callable[[], None]:
        """The loop's port for ``call_later``: an operation whose completion calls *fire*."""
        timer = _LoopTimer(self, deadline_ms, fire)
        timer.issue()
        return timer.end

    def get_state(self, name: str) -> bytes | None:
        return self._read(Kind.STATE_GET, name, self._state_now).payload

    def state_names(self) -> list[str]:
        return decode_names(self._read(Kind.STATE_KEYS, "", self._names_now).payload or b"")

    def set_state(self, name: str, payload: bytes, recode: Recode) -> None:
        self.issue(Entry(Kind.STATE_SET, name=name, payload=payload), recode)
        self._has_writes = True
        self._state_writes[name] = payload

    def clear_state(self, name: str) -> None:
        self.issue(Entry(Kind.STATE_CLEAR, name=name))
        self._has_writes = True
        self._state_writes[name] = None

    def clear_all_state(self) -> None:
        self.issue(Entry(Kind.STATE_CLEAR_ALL))
        self._has_writes = True
        self._state_writes.clear()
        self._state_cleared = True

    def peek_promise(self, name: str) -> tuple[bytes, bool] | None:
        entry = self._read(Kind.PROMISE_PEEK, name, self._promise_now)
        if entry.payload is None:
            return None
        return entry.payload, bool(entry.flags & Flag.FAILED)

    def complete_promise(
        self, name: str, payload: bytes, *, failed: bool, recode: Recode | None
    ) -> bool:
        """Resolve or reject; False if the promise was completed before."""
        self.check_usable()  # before the store is read
        entry = Entry(
            Kind.PROMISE_REJECT if failed else Kind.PROMISE_RESOLVE, name=name, payload=payload
        )
        if self._recorded is None and self._promise(name) is not None:
            entry = entry._replace(flags=Flag.REFUSED)
        entry = self.issue(entry, recode)
        if entry.flags & Flag.REFUSED:
            return False
        self._has_writes = True
        self._promise_writes[name] = payload, failed
        return True

    def issue(self, entry: Entry, recode: Recode | None = None) -> Entry:
        """Append *entry* to the activation, or match it with the recorded one and return that."""
        self.check_usable()
        return self._record(entry._replace(site=self._site(sys._getframe(1))), recode)

    def _site(self, frame: FrameType | None) -> int:
        """The user's call site nearest to *frame*."""
        while frame is not None and is_plumbing(frame):
            frame = frame.f_back
        return 0 if frame is None else self._sites.of(frame)

    def _read(self, kind: Kind, name: str, now: Callable[[Entry], Entry]) -> Entry:
        self.check_usable()  # before the store is read: it may be closed, this another thread
        entry = Entry(kind, name=name)
        return self.issue(now(entry) if self._recorded is None else entry)

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
        self.loop.halt()
        # Inside the handler, control flow that its `except Exception` can not swallow.
        raise Halted if get_running_loop() is self.loop else self._error

    # -- reads of the live activation -------------------------------------------------------

    def _state_now(self, entry: Entry) -> Entry:
        if entry.name in self._state_writes:
            payload = self._state_writes[entry.name]
        else:
            payload = None if self._state_cleared else self._reads.state(entry.name)
        return entry._replace(payload=payload)

    def _names_now(self, entry: Entry) -> Entry:
        names = set() if self._state_cleared else set(self._reads.state_names())
        for name, payload in self._state_writes.items():
            if payload is None:
                names.discard(name)
            else:
                names.add(name)
        return entry._replace(payload=encode_names(sorted(names)))

    def _promise(self, name: str) -> tuple[bytes, bool] | None:
        return self._promise_writes.get(name) or self._reads.promise(name)

    def _promise_now(self, entry: Entry) -> Entry:
        completed = self._promise(entry.name)
        if completed is None:
            return entry
        payload, failed = completed
        return entry._replace(payload=payload, flags=Flag.FAILED if failed else 0)


class _LoopTimer(Operation):
    """A timer that asyncio itself asked for: sleep, timeout, wait_for."""

    def __init__(self, machine: Machine, deadline_ms: int, fire: Callable[[], None]) -> None:
        super().__init__(machine, Kind.TIMER, "", deadline_ms)
        self._fire = fire

    def _wake(self) -> None:
        if not self.cancelled():
            self._fire()

    def end(self) -> None:
        self.cancel()
