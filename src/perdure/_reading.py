"""The verbs that read invocations, of an engine and of a view alike."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from perdure import _verbs
from perdure._ids import parse_id
from perdure._opened import Opened
from perdure._runtime._describe import Description, check_range, describe_invocation
from perdure._runtime._filter import InvocationFilter, wanted_by
from perdure._runtime._listing import (
    InvocationPage,
    check_limit,
    list_invocations,
    read_cursor,
)
from perdure._sql import QueryResult, query

if TYPE_CHECKING:
    from perdure._history import History


class Reading(_verbs.Listing, Opened):
    """Listings, what is known of an invocation, and SQL."""

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

    async def export(self, *invocation_ids: str) -> History:
        """Invocations with their journals, to be replayed elsewhere: a ``testing.History``.

        Completed ones are exported as well, where their journal is kept.

        Raises:
          InvalidInput: One is no id.
          NotFound: There is none with an id; or it has no journal: nothing is done yet, or it has
            completed and its journal is not kept.
        """
        from perdure._history import History, read_invocation

        history = History()
        for raw in [parse_id(each) for each in invocation_ids]:
            read = functools.partial(read_invocation, invocation_id=raw)
            history.add(await self._results.look(read))
        return history

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
