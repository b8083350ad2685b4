"""What an invocation waits for, for people and their programs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from perdure._core._entries import Kind, describe, word
from perdure._ids import format_awakeable, format_id
from perdure._runtime._layout import Backoff, Record, key_group
from perdure._runtime._outstanding import Outstanding
from perdure._runtime._times import utc

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

WAITING_SHOWN_MAX = 1_000
"""Things waited for that one description lists; it counts them all."""

# Where it is another word than the entry's.
_KINDS = {Kind.PROMISE_AWAIT: "promise", Kind.SIGNAL_AWAIT: "signal", Kind.ATTACH: "attachment"}
# A step runs here, and ends or fails by itself; a timer is the end of waiting.
_ENDS_BY_ITSELF = frozenset({Kind.RUN, Kind.TIMER})


@dataclass(frozen=True, slots=True)
class WaitingOn:
    """Something that could make an invocation go on; ``str()`` is its text.

    Attributes:
      kind: ``step``, ``timer``, ``promise``, ``call``, ``attachment``, ``awakeable`` or ``signal``;
        ``registration`` where the invocation is blocked, ``key`` where it waits for its key,
        ``start`` where it was sent with a delay, ``retry`` where its attempt has failed.
      name: Of the step, promise or signal; the target of a call, ``Service.handler/key``; the id of
        an awakeable; else empty.
      text: One line for people.
      since: When the handler asked for it; None for a registration.
      deadline: Of a timer, a start or a retry, else None.
      index: Journal index of the command; None for a registration.
      site: ``file:line in function`` of the command, or empty.
      target_id: The invocation that was called, is attached to, or has the key; else None.
      attempt: Of a step or a retry: the number of its attempt, from 1; else None.
      next_attempt_at, last_failure: Of a retry, or of a step that backs off; else None.
    """

    kind: str
    name: str
    text: str
    since: datetime | None = None
    deadline: datetime | None = None
    index: int | None = None
    site: str = ""
    target_id: str | None = None
    attempt: int | None = None
    next_attempt_at: datetime | None = None
    last_failure: str | None = None

    def __str__(self) -> str:
        return self.text


def waiting_on(
    scheduler: Scheduler,
    invocation_id: bytes,
    outstanding: Mapping[int, Outstanding],
    since_ms: Mapping[int, int],
) -> list[WaitingOn]:
    """The first of the *outstanding* commands, as they are shown."""
    return [
        _waiting_on(scheduler, invocation_id, index, command, since_ms[index])
        for index, command in itertools.islice(outstanding.items(), WAITING_SHOWN_MAX)
    ]


def _waiting_on(
    scheduler: Scheduler, invocation_id: bytes, index: int, command: Outstanding, since_ms: int
) -> WaitingOn:
    entry = command.entry
    kind = _KINDS.get(entry.kind) or word(entry.kind)
    name, text = entry.name, describe(entry)
    deadline = target_id = attempt = next_attempt_at = last_failure = None
    if entry.kind == Kind.TIMER:
        deadline = utc(entry.time_ms)
        text = f"timer due {deadline:%Y-%m-%d %H:%M:%S} UTC"
    elif entry.kind in (Kind.PROMISE_AWAIT, Kind.SIGNAL_AWAIT):
        text = f"{kind} {name!r}"
    elif entry.kind == Kind.CALL:
        target_id = format_id(command.child)
        text += f", {target_id}"
    elif entry.kind == Kind.ATTACH:
        name, target_id, text = "", name, f"{kind} to {name}"
    elif entry.kind == Kind.AWAKEABLE:
        name = format_awakeable(invocation_id, index)
        text = f"{kind} {name}"
    elif entry.kind == Kind.RUN:
        attempt = 1
        backoff = scheduler.ledger.backoffs.get(invocation_id, index)
        if backoff is not None:
            attempt, last_failure = backoff.attempts + 1, backoff.failure
            next_attempt_at = utc(backoff.due_ms)
            text += f", attempt {attempt} at {next_attempt_at:%H:%M:%S} UTC after {last_failure}"
    return WaitingOn(
        kind=kind,
        name=name,
        text=text,
        since=utc(since_ms),
        deadline=deadline,
        index=index,
        site=scheduler.sites.text(entry.site),
        target_id=target_id,
        attempt=attempt,
        next_attempt_at=next_attempt_at,
        last_failure=last_failure,
    )


def registration(why: str) -> WaitingOn:
    """What a blocked invocation waits for."""
    return WaitingOn(kind="registration", name="", text=why)


def held_key(record: Record, holder: bytes) -> WaitingOn:
    """What an invocation waits for whose key another has."""
    has_it = format_id(holder)
    text = f"{describe_key(record)}, which {has_it} has"
    return WaitingOn(kind="key", name=record.key, text=text, target_id=has_it)


def retry(backoff: Backoff) -> WaitingOn:
    """What an invocation waits for whose attempt has failed."""
    at = utc(backoff.due_ms)
    attempt = backoff.attempts + 1
    return WaitingOn(
        kind="retry",
        name="",
        text=f"attempt {attempt}, due {at:%Y-%m-%d %H:%M:%S}",
        since=utc(backoff.since_ms),
        deadline=at,
        attempt=attempt,
        next_attempt_at=at,
        last_failure=backoff.failure,
    )


def delayed_start(record: Record) -> WaitingOn:
    """What an invocation waits for that was sent with a delay."""
    at = utc(record.due_ms)
    text = f"its start, due {at:%Y-%m-%d %H:%M:%S}"
    return WaitingOn(kind="start", name="", text=text, since=utc(record.created_ms), deadline=at)


def describe_key(record: Record) -> str:
    return f"key {record.key!r} of {record.service}"


def blocks(scheduler: Scheduler, invocation_id: bytes, record: Record) -> str | None:
    """The key that an invocation has and others wait for; None if there is none."""
    group = key_group(record.service, record.key)
    waiting = scheduler.ledger.inboxes.behind(group, invocation_id)
    if not waiting:
        return None
    return f"{describe_key(record)}, for which {waiting} wait{'s' if waiting == 1 else ''}"


def waits_without_timeout(outstanding: Mapping[int, Outstanding]) -> bool:
    """Whether others must act before it goes on, and no timer ends the wait if they do not."""
    kinds = {command.entry.kind for command in outstanding.values()}
    return Kind.TIMER not in kinds and not kinds <= _ENDS_BY_ITSELF
