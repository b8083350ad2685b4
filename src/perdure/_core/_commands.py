"""What a handler asks of its machine: commands, issued live or matched with the journal.

Theory of operation. Between its notification and idleness, an activation consists of the commands
the handler issues. Live, each is appended to the activation's entries. In replay, each is compared
with the recorded entry in its place, and one that completes at once takes its answer from there.

This module is compiled (see ``_commands.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

import enum
import sys
from asyncio import _get_running_loop as get_running_loop
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from perdure._core._entries import PAYLOAD_KEPT_MAX, Entry, Flag, Kind, new_entry
from perdure._core._frames import is_plumbing
from perdure._core._future import LoopFuture
from perdure._core._loop import DeterministicLoop
from perdure._core._operation import Operation
from perdure._core._outgoing import Outgoing
from perdure._core._question import Question
from perdure._core._replay import Recode, Sites, divergence, fits
from perdure._core._signals import Halted
from perdure._core._task import ReadyQueue
from perdure._core._view import LATER, KeyView, Reads
from perdure.errors import InvalidInput


class State(enum.Enum):
    NEW = "new"  # nothing delivered yet
    REPLAYING = "replaying"  # between recorded activations
    LIVE = "live"  # idle, between activations of its own
    COMPLETED = "completed"  # the handler returned or failed for good
    FAILED = "failed"  # the attempt is over: an exception, a divergence, a stall
    CLOSED = "closed"  # evicted; the coroutine is gone


class Commands:
    """The handler's side of a machine; :class:`~perdure._core._machine.Machine` drives it."""

    def __init__(
        self,
        reads: Reads,
        sites: Sites,
        report: Callable[[dict[str, Any]], None],
        show: Callable[[bytes], str],
    ) -> None:
        self.queue = ReadyQueue()
        # What it seems to lack is set below its class.
        self.loop = DeterministicLoop(self.queue, self, report)  # type: ignore[abstract]
        self.state = State.NEW
        self.running = False  # inside an activation or a replay
        self.time_ms = 0  # of the activation delivered last
        self.outstanding: dict[int, Operation] = {}  # issued, not completed, by entry index
        self.outgoing: dict[int, Outgoing] = {}  # begun in the live activation, by entry index
        self.cancel_requested = False
        self.asked: Entry | None = None  # the activation has stopped until this is answered
        self._asker: LoopFuture | None = None  # who waits for that
        self._promise_names: set[str] | None = None  # that `run` has asked for
        self._patches: dict[str, bool] | None = None  # answered so far: they stand for the run
        self._view = KeyView(reads)
        self._has_writes = False  # the view has something that the next activation must not see
        self._sites = sites
        self._show = show
        self._error: BaseException | None = None  # sticky
        self._next_index = 0
        self._entries: list[Entry] = []  # of the live activation
        self._ended: list[Operation] | None = None  # by the live activation
        self._has_long = False  # the live activation has a payload of which the journal keeps less
        self._recorded: Sequence[Entry] | None = None  # of the activation being replayed
        self._first_replayed = 0  # index of its notification
        self._host_frame: FrameType | None = None  # of who drives, during an activation

    @property
    def replaying(self) -> bool:
        return self.state is State.REPLAYING

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
        payload = operation.payload  # of a call: its argument
        fields = (operation.kind, 0, operation.name, payload, operation.time_ms, site, 0)
        entry = new_entry(fields)
        if self._recorded is None and payload is None:
            self._entries.append(entry)
            self._next_index = index + 1
        else:
            # In replay, with the recorded deadline.
            operation.time_ms = self._record(entry, operation.recode()).time_ms
        operation.payload = None  # from here on: the answer
        operation.index = index
        self.outstanding[index] = operation

    def begin_call(self, operation: Operation, outgoing: Outgoing) -> None:
        """Issue a call, whose argument is the *operation*'s payload so far."""
        operation.options = outgoing
        operation.issue()
        self._begun(operation.index, outgoing)

    def send(self, outgoing: Outgoing, payload: bytes | None, due_ms: int, recode: Recode) -> None:
        """Begin an invocation for whose end nobody waits; *due_ms*: later, unless 0."""
        index = self._next_index
        self.issue(Entry(Kind.SEND, 0, outgoing.target, payload, due_ms), recode)
        self._begun(index, outgoing)

    def _begun(self, index: int, outgoing: Outgoing) -> None:
        if self._recorded is None:
            self.outgoing[index] = outgoing
            self._has_writes = True
            self._view.begin(outgoing)

    def look_up(self, outgoing: Outgoing) -> bytes | None:
        """The invocation that stands already where *outgoing* would begin one."""

        self.check_usable()
        entry = Entry(Kind.LOOK_UP, name=outgoing.target)
        if self._recorded is None:
            entry = entry._replace(payload=self._view.existing(outgoing))
        return self.issue(entry).payload

    def cancel_invocation(self, invocation_id: str) -> None:
        """Ask for the end of another invocation."""
        self.issue(Entry(Kind.CANCEL_INVOCATION, name=invocation_id))

    def awakeable_made(self, name: str) -> None:
        """An awakeable with the id *name* was issued: it can be completed in this activation."""
        if self._recorded is None:
            self._has_writes = True
            self._view.make_awakeable(name)

    def complete_awakeable(
        self, name: str, payload: bytes, *, failed: bool, recode: Recode | None
    ) -> bool:
        """Resolve or reject the awakeable with the id *name*; False if it does not wait."""
        self.check_usable()  # before the store is read
        kind = Kind.AWAKEABLE_REJECT if failed else Kind.AWAKEABLE_RESOLVE
        entry = Entry(kind, name=name, payload=payload)
        if self._recorded is None and not self._view.awakeable_waits(name):
            entry = entry._replace(flags=Flag.REFUSED)
        if self.issue(entry, recode).flags & Flag.REFUSED:
            return False
        self._has_writes = True
        self._view.complete_awakeable(name)
        return True

    def cancel_operation(self, operation: Operation) -> None:
        """Issue the command that ends *operation*."""
        self.issue(Entry(Kind.CANCEL, operation.index))
        self._end(operation)
        del self.outstanding[operation.index]

    def _end(self, operation: Operation) -> None:
        if self._ended is None:
            self._ended = []
        self._ended.append(operation)

    def claim_promise(self, name: str) -> bool:
        """Note that `run` asks for the promise *name*; False if it did so before."""
        if self._promise_names is None:
            self._promise_names = set()
        elif name in self._promise_names:
            return False
        self._promise_names.add(name)
        return True

    def patched(self, name: str) -> bool:
        """Whether the code of the patch *name* is for this invocation.

        Yes where that was recorded, and where it is asked for the first time live. Where a journal
        goes on without it, the code that wrote it did not know the patch: no, and nothing is
        recorded, for each replay comes to that place alike.
        """
        self.check_usable()
        if self._patches is None:
            self._patches = {}
        answer = self._patches.get(name)
        if answer is None:
            answer = self._recorded is None or self._is_next(Kind.PATCHED, name)
            if answer:
                self.issue(Entry(Kind.PATCHED, name=name))
            self._patches[name] = answer
        return answer

    def _is_next(self, kind: int, name: str) -> bool:
        """Whether the activation being replayed goes on with this command."""
        assert self._recorded is not None
        position = self._next_index - self._first_replayed
        if position >= len(self._recorded):
            return False
        recorded = self._recorded[position]
        return recorded.kind == kind and recorded.name == name

    def start_timer(self, deadline_ms: int, fire: Callable[[], None]) -> Callable[[], None]:
        """The loop's port for ``call_later``: an operation whose completion calls *fire*."""
        timer = _LoopTimer(self, deadline_ms, fire)
        timer.issue()
        return timer.end

    def get_state(self, name: str) -> Entry | Question:
        """Its payload: the value, or None."""
        return self._read(Entry(Kind.STATE_GET, name=name), self._view.answer_get)

    def state_names(self) -> Entry | Question:
        """Its payload: the encoded names."""
        return self._read(Entry(Kind.STATE_KEYS), self._view.answer_keys)

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

    def peek_promise(self, name: str) -> Entry | Question:
        """Its payload: what the promise is completed with, or None."""
        return self._read(Entry(Kind.PROMISE_PEEK, name=name), self._view.answer_peek)

    def complete_promise(
        self, name: str, payload: bytes, *, failed: bool, recode: Recode | None
    ) -> Entry | Question:
        """Resolve or reject; REFUSED if the promise was completed before."""
        self.check_usable()  # before the store is read
        kind = Kind.PROMISE_REJECT if failed else Kind.PROMISE_RESOLVE
        entry = Entry(kind, name=name, payload=payload)
        if self._recorded is None:
            completed = self._view.promise(name)
            if completed is LATER:
                return Question(self, entry, recode)
            if completed is not None:
                entry = entry._replace(flags=Flag.REFUSED)
        entry = self.issue(entry, recode)
        if not entry.flags & Flag.REFUSED:
            self._has_writes = True
            self._view.complete_promise(name, payload, failed)
        return entry

    def ask(self, entry: Entry) -> LoopFuture:
        """Stop the activation until the driver answers *entry*; for who awaits a question."""
        self.check_usable()
        self.asked = entry
        # Nobody's set has it. A number of its own would change the hashes of what comes after it.
        self._asker = LoopFuture(self.loop, 0)
        self.queue.stopped = True
        return self._asker

    def issue(self, entry: Entry, recode: Recode | None = None) -> Entry:
        """Append *entry* to the activation, or match it with the recorded one and return that."""
        self.check_usable()
        kind, ref, name, payload, time_ms, _, flags = entry
        site = self._site(sys._getframe(0))
        return self._record(new_entry((kind, ref, name, payload, time_ms, site, flags)), recode)

    def _site(self, frame: FrameType | None) -> int:
        """The user's call site nearest to *frame*; 0 where a callback of a library asks."""
        while frame is not None and is_plumbing(frame):
            if frame is self._host_frame:
                return 0
            frame = frame.f_back
        return 0 if frame is None or frame is self._host_frame else self._sites.of(frame)

    def _read(self, entry: Entry, answer: Callable[[Entry], Entry | None]) -> Entry | Question:
        self.check_usable()  # before the store is read: it may be closed, this another thread
        if self._recorded is not None:
            return self.issue(entry)
        answered = answer(entry)
        return Question(self, entry, None) if answered is None else self.issue(answered)

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


class _LoopTimer(Operation):
    """A timer that asyncio itself asked for: sleep, timeout, wait_for."""

    def __init__(self, machine: Commands, deadline_ms: int, fire: Callable[[], None]) -> None:
        super().__init__(machine, Kind.TIMER, "", time_ms=deadline_ms)
        self._fire = fire

    def _wake(self) -> None:
        if not self.cancelled():
            self._fire()

    def _let_go(self) -> None:
        super()._let_go()
        self._fire = _drop_fire

    def end(self) -> None:
        self.cancel()


def _drop_fire() -> None:
    """A closed machine's timer calls nobody."""
