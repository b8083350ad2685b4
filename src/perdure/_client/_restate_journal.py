"""Journals of a Restate server, as perdure shows its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from perdure._client._replies import terminal_of
from perdure._client._restate_listing import Row, summary_of
from perdure._client._restate_values import completion_of, time_of
from perdure._runtime._describe import Description
from perdure._runtime._shown import VALUE_SHOWN_BYTES_MAX, JournalEntry
from perdure._runtime._status import Status
from perdure._runtime._times import utc
from perdure._runtime._waiting import WAITING_SHOWN_MAX, WaitingOn
from perdure.errors import TerminalError
from perdure.serde import UNTYPED, serde_for

# Any, in this module: entries have values of any type.

Fields = Mapping[str, Any]

_COMMANDS: Final = {
    "Input": "start",
    "Output": "return",
    "Run": "step",
    "Sleep": "timer",
    "GetPromise": "wait for promise",
    "PeekPromise": "peek at promise",
    "CompletePromise": "complete promise",
    "Call": "call",
    "OneWayCall": "send",
    "AttachInvocation": "attach to",
    "SendSignal": "send signal",
    "CompleteAwakeable": "complete awakeable",
    "GetLazyState": "get state",
    "GetEagerState": "get state",
    "GetLazyStateKeys": "list state keys",
    "GetEagerStateKeys": "list state keys",
    "SetState": "set state",
    "ClearState": "clear state",
    "ClearAllState": "clear all state",
}
_NOTIFICATIONS: Final = {
    "Run": "step done",
    "Sleep": "timer fired",
    "GetPromise": "promise completed",
    "Call": "call completed",
    "Signal": "signal",
}
_WAITS: Final = {
    "Run": "step",
    "Sleep": "timer",
    "GetPromise": "promise",
    "Call": "call",
    "AttachInvocation": "attachment",
}
"""Commands that a handler waits for, by what it waits for then."""

_CANCEL_SIGNAL: Final = 1
_FIRST_AWAKEABLE: Final = 17
"""Signals have numbers or names; those of awakeables have these numbers and higher ones."""

_TEXT_SHOWN_MAX: Final = 200


@dataclass(slots=True)
class Outline:
    """What one pass over the short forms of a journal's entries has found.

    Attributes:
      outstanding: The commands that nothing has answered and that are waited for, by index.
      answers: The command that each notification answers.
      length: Entries read.
    """

    outstanding: dict[int, WaitingOn] = field(default_factory=dict)
    answers: dict[int, int] = field(default_factory=dict)
    length: int = 0


def outline_of(rows: list[dict[str, Any]]) -> Outline:
    """The outline of a journal, from ``index``, ``name``, ``entry_lite_json``, ``appended_at``."""
    outline = Outline()
    asked: dict[int, int] = {}  # completion id -> index of its command
    for row in rows:
        index = int(row["index"])
        outline.length = index + 1
        for is_command, kind, fields in _entries(row["entry_lite_json"]):
            if not is_command:
                answered = asked.get(fields.get("id", {}).get("CompletionId"))
                if answered is not None:
                    outline.answers[index] = answered
                    outline.outstanding.pop(answered, None)
            elif kind in _WAITS:
                asked[fields.get("result_completion_id", fields.get("completion_id"))] = index
                since = time_of(row["appended_at"])
                name = row.get("name") or _name(kind, fields)
                outline.outstanding[index] = _waiting(kind, name, fields, index, since)
            elif "completion_id" in fields:
                asked[fields["completion_id"]] = index
    return outline


def _entries(text: str) -> Iterator[tuple[bool, str, Fields]]:
    """Whether it is a command, its kind and its fields: of the one entry in JSON."""
    for what, entry in msgspec.json.decode(text).items():
        if what != "Command" and "ty" in entry:  # the short form of a notification
            kind = entry["ty"]
            yield False, kind["Completion"] if isinstance(kind, dict) else str(kind), entry
        elif what != "Command" and "Completion" in entry:
            yield from ((False, kind, fields) for kind, fields in entry["Completion"].items())
        else:
            yield from ((what == "Command", kind, fields) for kind, fields in entry.items())


def _waiting(kind: str, name: str, fields: Fields, index: int, since: datetime) -> WaitingOn:
    what = _WAITS[kind]
    deadline = utc(fields["wake_up_time"]) if kind == "Sleep" else None
    target_id = fields.get("invocation_id") if kind == "Call" else None
    text = f"{what} {name!r}" if name else what
    if deadline is not None:
        text = f"timer due {deadline:%Y-%m-%d %H:%M:%S} UTC"
    elif target_id is not None:
        text += f", {target_id}"
    return WaitingOn(
        what, name, text, since=since, deadline=deadline, index=index, target_id=target_id
    )


def entry_of(row: Row, answers: Mapping[int, int]) -> JournalEntry:
    """One entry, from its ``index``, ``name``, ``entry_json``, ``appended_at``."""
    index = int(row["index"])
    ((is_command, kind, fields),) = _entries(row["entry_json"])
    name = row.get("name") or _name(kind, fields)
    shown = _COMMANDS.get(kind, kind) if is_command else _notification(kind, fields)
    has_value, value, failure, size = _value(fields)
    text = f"{shown} {name!r}" if name else shown
    if kind == "Sleep" and is_command:
        text += f" due {utc(fields['wake_up_time']):%Y-%m-%d %H:%M:%S}"
    elif failure is not None:
        text += f" failed: {failure} (code {failure.code})"
    elif has_value:
        value_text = serde_for(UNTYPED).to_json(value, "value of an entry").decode()
        cut = value_text[:_TEXT_SHOWN_MAX]
        text += f": {cut}{' …' if cut != value_text else ''}"
    elif size:
        text += f": {size} bytes"
    return JournalEntry(
        index=index,
        time=time_of(row["appended_at"]),
        kind=shown,
        name=name,
        text=text,
        site="",
        is_command=is_command,
        answers=answers.get(index),
        has_value=has_value,
        value=value,
        failure=failure,
    )


def _name(kind: str, fields: Fields) -> str:
    """What an entry is about, where it has no name of its own."""
    request = fields.get("request", fields)
    for target in request.get("invocation_target", {}).values():
        key = f"/{target['key']}" if "key" in target else ""
        return f"{target['name']}.{target['handler']}{key}"
    if kind == "Signal":
        return str(fields["id"].get("Name", ""))
    if kind == "AttachInvocation" and "target" in fields:
        return str(fields["target"].get("InvocationId", ""))
    return str(fields.get("key", fields.get("target_invocation_id", "")))


def _notification(kind: str, fields: Fields) -> str:
    number = fields["id"].get("Index", 0) if kind == "Signal" else 0
    if number == _CANCEL_SIGNAL:
        return "cancellation"
    if number >= _FIRST_AWAKEABLE:
        return "awakeable completed"
    return _NOTIFICATIONS.get(kind) or f"{_COMMANDS.get(kind, kind)} completed"


def _value(fields: Fields) -> tuple[bool, Any, TerminalError | None, int]:
    """Whether there is a value to show, the value, the failure, the bytes that it takes."""
    found = fields.get("request", fields)
    for name in ("payload", "value", "result", "parameter"):
        result = found.get(name)
        if isinstance(result, dict) and "Failure" in result:
            return False, None, _failure(result["Failure"]), 0
        if isinstance(result, dict) and "Success" in result:
            result = result["Success"]
        if result == "Void":
            return True, None, None, 0
        if isinstance(result, list):
            if len(result) > VALUE_SHOWN_BYTES_MAX:
                return False, None, None, len(result)
            value, failure = completion_of(bytes(result))
            # No bytes: that is an argument, or a result, that was left out.
            return bool(result) and failure is None, value, failure, len(result)
    return False, None, None, 0


def _failure(fields: Fields) -> TerminalError:
    metadata = {each["key"]: each["value"] for each in fields.get("metadata") or ()}
    return terminal_of(fields["message"], fields["code"], metadata)


def description_of(
    row: Row, outline: Outline, shown: list[JournalEntry], journal_from: int
) -> Description:
    """One invocation, from its row in ``sys_invocation`` and what was read of its journal."""
    summary = summary_of(row)
    waiting: list[WaitingOn] = []
    if summary.status is not Status.COMPLETED:
        waiting = [*outline.outstanding.values(), *_signals(row)]
    kinds = {each.kind for each in waiting}
    first = _before_all(row, summary.status, summary.attempt)
    count = len(waiting) + (first is not None)
    shown_to = journal_from + len(shown)
    return Description(
        id=summary.id,
        service=summary.service,
        key=summary.key,
        handler=summary.handler,
        version=summary.version,
        status=summary.status,
        created_at=summary.created_at,
        completed_at=summary.completed_at,
        attempt=summary.attempt,
        waiting_on=[*([first] if first else []), *waiting[:WAITING_SHOWN_MAX]],
        waiting_count=count,
        waits_without_timeout="timer" not in kinds and not kinds <= {"step"},
        await_stack=[],
        last_failure=summary.last_failure,
        blocks=None,
        journal=shown,
        journal_length=outline.length,
        journal_next=shown_to if shown_to < outline.length else None,
        journal_kept=outline.length > 0,
    )


def _signals(row: Row) -> list[WaitingOn]:
    """The signals that a suspended invocation waits for, which no command tells."""
    waiting: list[WaitingOn] = []

    def look(part: Any) -> None:
        if isinstance(part, list):
            for each in part:
                look(each)
        elif isinstance(part, dict):
            for name, inner in part.items():
                if name == "SignalName":
                    waiting.append(WaitingOn("signal", inner, f"signal {inner!r}"))
                elif name == "SignalIndex" and inner >= _FIRST_AWAKEABLE:
                    waiting.append(WaitingOn("awakeable", "", "awakeable"))
                else:
                    look(inner)

    look(msgspec.json.decode(row.get("suspended_waiting_future_json") or "null"))
    return waiting


def _before_all(row: Row, status: Status, attempt: int) -> WaitingOn | None:
    """What has to happen before anything that its handler waits for counts."""
    if status is Status.PENDING:
        key, service = row.get("target_service_key", ""), row["target_service_name"]
        return WaitingOn("key", key, f"key {key!r} of {service}, which another has")
    if status is Status.SCHEDULED and "scheduled_start_at" in row:
        at = time_of(row["scheduled_start_at"])
        text = f"its start, due {at:%Y-%m-%d %H:%M:%S}"
        return WaitingOn("start", "", text, since=time_of(row["created_at"]), deadline=at)
    if status is Status.BACKING_OFF and "next_retry_at" in row:
        at = time_of(row["next_retry_at"])
        return WaitingOn(
            kind="retry",
            name="",
            text=f"attempt {attempt}, due {at:%Y-%m-%d %H:%M:%S}",
            deadline=at,
            attempt=attempt,
            next_attempt_at=at,
            last_failure=row.get("last_failure"),
        )
    return None
