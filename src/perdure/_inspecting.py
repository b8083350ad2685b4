"""The verbs that read: results, listings, and what is known of an invocation or a key."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

from perdure._binding import bind_key
from perdure._ids import parse_id
from perdure._opened import Opened
from perdure._results import decode_output
from perdure._runtime._check import CheckReport, check_unfinished
from perdure._runtime._describe import Description, check_range, describe_invocation
from perdure._runtime._filter import InvocationFilter, wanted_by
from perdure._runtime._keyed import PromiseInfo, read_promises, read_state
from perdure._runtime._listing import (
    InvocationPage,
    InvocationSummary,
    check_limit,
    list_invocations,
    read_cursor,
)
from perdure._sql import QueryResult, query
from perdure.errors import InvalidInput
from perdure.service import ServiceKind

_ITEMS_PER_PAGE = 256


class Inspecting(Opened):
    """Results and introspection."""

    async def attach(self, invocation_id: str, returns: Any = None) -> Any:
        """Wait for the result of an invocation; *returns*: its type, else the handler's own.

        Raises:
          InvalidInput: Its handler is not registered here and *returns* is not given.
          NotFound: There is none with this id, or its result is not kept.
          TerminalError: As the invocation failed.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.wait(raw), serde)

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one now.

        Raises:
          NotReady: It has not completed.
          NotFound, TerminalError: As for :meth:`attach`.
        """
        raw = parse_id(invocation_id)
        serde = await self._results.serde_of(raw, returns)
        return decode_output(await self._results.now(raw), serde)

    async def describe(
        self, invocation_id: str, *, journal_from: int = 0, journal_limit: int = 1_000
    ) -> Description:
        """Status, what it waits for and where, last failure and journal of an invocation.

        Args:
          invocation_id: ``inv_`` and 26 characters.
          journal_from: Index of the first journal entry to show.
          journal_limit: Entries to show, 0 to 100,000; ``journal_next`` of the description is
            where to go on.

        Raises:
          InvalidInput: It is no id, or a number is out of its range.
          NotFound: There is none with this id.
        """
        raw = parse_id(invocation_id)
        check_range(journal_from, journal_limit)
        return await self._results.look(
            functools.partial(
                describe_invocation,
                invocation_id=raw,
                journal_from=journal_from,
                journal_limit=journal_limit,
            )
        )

    async def invocations(
        self,
        filter: InvocationFilter | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> InvocationPage:
        """A page of the invocations, those accepted first in front.

        Reading a page looks at 10,000 invocations at most. Where *filter* fits few of them, the
        page is short or empty, and its cursor leads on.

        Args:
          filter: Which are meant; None: all.
          limit: The most that the page has, 1 to 10,000.
          cursor: That of the page before, listed by the same filter; None: the first page.

        Raises:
          InvalidInput: *filter* is none, *limit* is out of its range, or *cursor* is no cursor of
            this listing.
        """
        wanted = wanted_by(filter)
        check_limit(limit)
        after = read_cursor(wanted, cursor)
        return await self._results.look(
            functools.partial(list_invocations, wanted=wanted, limit=limit, after=after)
        )

    async def all_invocations(
        self, filter: InvocationFilter | None = None
    ) -> AsyncIterator[InvocationSummary]:
        """The invocations one after the other, as ``async for`` asks for them.

        It reads page after page: what changes meanwhile may or may not be seen.

        Raises:
          InvalidInput: *filter* is none.
        """
        cursor: str | None = None
        while True:
            page = await self.invocations(filter, limit=_ITEMS_PER_PAGE, cursor=cursor)
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return
            await asyncio.sleep(0)  # where all is committed, a page does not wait for anything

    async def state(self, service: type | str, key: str) -> dict[str, Any]:
        """The state of a key by name, empty where nothing is set; records are dicts.

        Args:
          service: The class of a workflow or an object, or its name.
          key: The key.

        Raises:
          InvalidInput: It is no service with keys, or *key* is no key.
          NotFound: The service is not registered here.
        """
        definition, key = bind_key(self._services, service, key)
        return await self._results.look(
            functools.partial(read_state, service=definition.name, key=key)
        )

    async def promises(self, workflow: type | str, key: str) -> list[PromiseInfo]:
        """The promises of a workflow's key, by name: those completed, and those waited for.

        A promise that nobody has awaited or completed is known to its handler alone.

        Args:
          workflow: The class, or its name.
          key: The key.

        Raises:
          InvalidInput: It is no workflow, or *key* is no key.
          NotFound: The workflow is not registered here.
        """
        definition, key = bind_key(self._services, workflow, key)
        if definition.kind is not ServiceKind.WORKFLOW:
            raise InvalidInput(f"{definition.name} is no workflow, and has no promises")
        return await self._results.look(
            functools.partial(read_promises, service=definition.name, key=key)
        )

    async def query(
        self, sql: str, *, timeout_s: float = 10.0, rows_max: int = 10_000
    ) -> QueryResult:
        """What a statement of SQL selects from the store, of one moment.

        The tables are listed in docs/reference/sql.md. It needs apsw: ``perdure[server]``.

        Args:
          sql: One statement of SQLite's SQL; it only reads.
          timeout_s: After so long it is ended: more than 0, at most 3,600.
          rows_max: The most that the result has, 1 to 1,000,000.

        Raises:
          InvalidInput: It is no such statement, or a number is out of its range.
          TerminalError: It took longer (408), or more than 256 MiB (413).
          ImportError: apsw is not installed.
        """
        return await query(self._open_scheduler(), sql, timeout_s=timeout_s, rows_max=rows_max)

    async def check(self) -> CheckReport:
        """Replay the journal of every unfinished invocation against the code at hand, for nothing.

        Nothing is written or delivered, no step runs, and the invocations in memory are left as
        they are: each is replayed beside them and thrown away. Handlers' code runs, as in every
        replay, up to where its journal ends.

        Raises:
          StoreBroken, StoreClosed: The engine failed, or was closed, before the check ended.
        """
        return await check_unfinished(self._open_scheduler())
