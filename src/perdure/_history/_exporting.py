"""Reading an invocation out of a store, with the lines of code that its journal names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure._core._entries import Entry
from perdure._history._recorded import History, RecordedInvocation
from perdure._ids import format_id
from perdure._runtime._slices import Slices
from perdure._runtime._stacks import code_at, split_site
from perdure._runtime._status import status_of
from perdure.errors import NotFound

if TYPE_CHECKING:
    from perdure._runtime._scheduler import Scheduler

_PAGE_BYTES: Final = 32 * 1024
"""Of a journal, read at a time: decoding it takes about a millisecond."""


async def read_invocation(scheduler: Scheduler, invocation_id: bytes) -> History:
    """A history of one invocation, its journal as committed.

    Raises:
      NotFound: There is none, or it has no journal: nothing is done yet, or it is not kept.
      StoreClosed, StoreBroken: The engine has closed or failed meanwhile.
    """
    text_id = format_id(invocation_id)
    sites: dict[int, int] = {}  # numbers of the store, and of the history
    journal: list[list[Entry]] = []
    position = 0
    slices = Slices(scheduler)
    while page := scheduler.store.journal(invocation_id, position, Entry, bytes_max=_PAGE_BYTES):
        for first_index, entries in page:
            if first_index != position:
                raise NotFound(f"the journal of {text_id} is being removed")
            journal.append([_renumbered(entry, sites) for entry in entries])
            position = first_index + len(entries)
        await slices.turn()
    # From here to the end nothing else runs: all the rest is of one moment.
    record = scheduler.answers.record(invocation_id)
    if record is None:
        raise NotFound(f"there is no invocation {text_id}")
    completed = scheduler.output(invocation_id) is not None
    # It may have completed while its journal was read, and that may have gone.
    if not journal or not scheduler.store.journal(invocation_id, 0, Entry, bytes_max=1):
        raise NotFound(
            f"{text_id} has completed, and its journal is not kept: declare "
            f"journal_retention= on {record.service}, and export what completes from then on"
            if completed
            else f"{text_id} has no journal yet: nothing of it has been done"
        )
    texts = [scheduler.sites.text(site) for site in sites]
    recorded = RecordedInvocation(
        id=text_id,
        service=record.service,
        handler=record.handler,
        key=record.key,
        version=record.version,
        status=status_of(scheduler, invocation_id, record),
        argument=record.argument,
        headers=record.headers,
        idempotency_key=record.idempotency_key,
        origin=record.origin,
        journal=journal,
        sites=texts,
    )
    return History([recorded], {text: line for text in texts if (line := source_line(text))})


def _renumbered(entry: Entry, sites: dict[int, int]) -> Entry:
    if not entry.site:
        return entry
    return entry._replace(site=sites.setdefault(entry.site, len(sites) + 1))


def source_line(site: str) -> str:
    """The line of code at a call site, ``file:line in function``; empty where it is not found."""
    file, line, _ = split_site(site)
    return code_at(file, line)
