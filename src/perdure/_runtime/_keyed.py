"""State and promises of a key, read and written from outside its handlers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from perdure._ids import format_id
from perdure._limits import check_name
from perdure._runtime._layout import key_group, promise_waiters, unpack_promise, unpack_waiter
from perdure._runtime._shown import plain_value
from perdure._runtime._slices import Slices
from perdure._store import Db, next_prefix
from perdure.errors import Conflict, InvalidInput, TerminalError
from perdure.serde import UNTYPED, Serde, decode_failure, serde_for
from perdure.service import ServiceDefinition, ServiceKind

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class PromiseInfo:
    """A promise of a workflow's key: completed, or waited for.

    Attributes:
      value: Of a resolved one, decoded without its type: records are dicts.
      failure: Of a rejected one, else None.
      waiters: Ids of the invocations that wait for a pending one.
    """

    name: str
    status: Literal["pending", "resolved", "rejected"]
    value: Any
    failure: TerminalError | None
    waiters: list[str]


async def read_state(scheduler: Scheduler, service: str, key: str) -> dict[str, Any]:
    """The state of a key, of one moment, by name in byte order."""
    rows = scheduler.store.scan(Db.STATE, key_group(service, key))
    slices = Slices(scheduler)
    state: dict[str, Any] = {}
    for suffix, payload in rows:
        name = suffix.decode()
        state[name] = plain_value(payload, f"state {name!r}")
        await slices.turn()
    return state


def encode_state(state: Any) -> dict[bytes, bytes]:  # Any: what a caller gave.
    """Names and values as they are stored."""
    if not isinstance(state, Mapping):
        raise InvalidInput(f"state: expected a mapping of names, got `{type(state).__name__}`")
    serde: Serde[Any] = serde_for(UNTYPED)
    return {
        check_name(name, "state name"): serde.encode(value, f"state {name!r}")
        for name, value in state.items()
    }


def replace_state(
    scheduler: Scheduler, definition: ServiceDefinition, key: str, rows: Mapping[bytes, bytes]
) -> None:
    """Have a key's state be *rows* and nothing else, as one unit.

    Raises:
      Conflict: An unfinished invocation may write this state.
    """
    writer = _writer_of(scheduler, definition, key)
    if writer is not None:
        raise Conflict(
            f"{format_id(writer)} of {definition.name} {key!r} has not completed and may write "
            "this state; wait for its end"
        )
    store = scheduler.store
    group = key_group(definition.name, key)
    try:
        for suffix, _ in store.scan(Db.STATE, group):
            if suffix not in rows:
                store.delete(Db.STATE, group, suffix)
        for suffix, payload in rows.items():
            store.put(Db.STATE, group, suffix, payload)
        if rows and definition.kind is ServiceKind.WORKFLOW:
            scheduler.ledger.purges.written_early(group)
    except BaseException:
        store.discard()  # an interrupt, say: half of it must not go with the next unit
        raise
    store.seal()


def _writer_of(scheduler: Scheduler, definition: ServiceDefinition, key: str) -> bytes | None:
    """The unfinished invocation that may write the state of *key*, if there is one."""
    if definition.kind is ServiceKind.WORKFLOW:
        run = scheduler.find_run(definition.name, key)
        if run is None or scheduler.answers.record(run) is None:
            return None
        return run if scheduler.store.get(Db.OUTPUTS, run, b"") is None else None
    return scheduler.ledger.inboxes.holder(key_group(definition.name, key))


async def read_promises(scheduler: Scheduler, service: str, key: str) -> list[PromiseInfo]:
    """The promises of a workflow's key that are completed or waited for, by name in byte order.

    One that nobody but its handler knows of, because nobody has awaited it, has no row.
    """
    store = scheduler.store
    group = key_group(service, key)
    completed = dict(store.scan(Db.PROMISES, group))
    waiting: dict[bytes, list[bytes]] = {}
    prefix = promise_waiters(group, "")[:-2]  # of the names' rows, whatever the name
    for raw in _names_waited_for(scheduler, prefix):
        rows = store.scan(Db.WAITERS, prefix + len(raw).to_bytes(2, "big") + raw)
        waiting[raw] = [unpack_waiter(suffix)[0] for suffix, _ in rows]
    slices = Slices(scheduler)
    promises: list[PromiseInfo] = []
    for raw in sorted(completed.keys() | waiting.keys()):
        name = raw.decode()
        if raw not in completed:
            ids = dict.fromkeys(waiting[raw])
            if ids:
                promises.append(
                    PromiseInfo(name, "pending", None, None, [format_id(each) for each in ids])
                )
        else:
            payload, failed = unpack_promise(completed[raw])
            if failed:
                info = PromiseInfo(name, "rejected", None, decode_failure(payload), [])
            else:
                value = plain_value(payload, f"promise {name!r}")
                info = PromiseInfo(name, "resolved", value, None, [])
            promises.append(info)
        await slices.turn()
    return promises


def _names_waited_for(scheduler: Scheduler, prefix: bytes) -> list[bytes]:
    """Names of promises with a committed waiter: one look for each, however many wait."""
    names: list[bytes] = []
    position = prefix
    stop = next_prefix(prefix)
    while keys := scheduler.store.keys_committed(Db.WAITERS, position, stop, limit=1):
        start = len(prefix) + 2
        length = int.from_bytes(keys[0][len(prefix) : start], "big")
        names.append(keys[0][start : start + length])
        after = next_prefix(keys[0][: start + length])
        assert after is not None  # the prefix begins with a letter
        position = after
    return names
