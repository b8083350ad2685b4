"""SQL over a store: one statement that reads, on one committed snapshot.

Theory of operation. A query runs on an SQLite of its own, which is empty: the tables are virtual,
and each row is read off the store when SQLite asks for it. What a query says of ids, services,
keys, statuses and times leads to the rows in question; all else is a scan. It has a thread of its
own, for the host's loop must go on, and one read transaction for all of it, which is why its time
is limited: what a reader needs can not be overwritten, so the file grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

from perdure._runtime._scheduler import Scheduler
from perdure._sql._running import Found, Running
from perdure.errors import InvalidInput

__all__ = ["QueryResult", "query"]

QUERIES_MAX = 2
"""Of one engine, at a time; others wait for their turn, within their time."""

TIMEOUT_S_MAX = 3600.0
ROWS_MAX = 1_000_000

_turns: weakref.WeakKeyDictionary[Scheduler, asyncio.Semaphore] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of a query.

    Attributes:
      columns: Their names; of several that SQLite calls alike, the later have a number: ``id:1``.
      rows: Values are str, int, float, bytes or None.
      truncated: There were more rows than are here.
    """

    columns: list[str]
    # Any: a caller knows what it has asked for.
    rows: list[tuple[Any, ...]]
    truncated: bool


async def query(
    scheduler: Scheduler, sql: str, *, timeout_s: float = 10.0, rows_max: int = 10_000
) -> QueryResult:
    """What *sql* selects from all that was acknowledged before the call.

    Raises:
      InvalidInput: It is no statement, more than one, or one that does not only read.
      TerminalError: It took longer than *timeout_s*, or too much memory.
      StoreClosed, StoreBroken, StoreCorrupt: As for every read.
      ImportError: There is no apsw; the text says how to get it.
    """
    _check(sql, timeout_s, rows_max)
    running = Running(
        scheduler.store,
        sql,
        rows_max,
        timeout_s=timeout_s,
        deadline=time.monotonic() + timeout_s,
    )
    turns = _turns.setdefault(scheduler, asyncio.Semaphore(QUERIES_MAX))
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            await scheduler.answers.committed()
            await turns.acquire()
            columns, rows, truncated = await _start(running, turns)
    except TimeoutError as error:
        raise running.too_slow() from error
    finally:
        running.stop()
    return QueryResult(columns, rows, truncated)


def _start(running: Running, turns: asyncio.Semaphore) -> asyncio.Future[Found]:
    """Run it in a thread, which ends the turn when it is done, whoever still waits for it.

    A daemon: what SQLite is in the middle of must not keep a process from stopping.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Found] = loop.create_future()

    def tell(found: Found | None, error: BaseException | None) -> None:
        turns.release()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            assert found is not None
            future.set_result(found)

    def work() -> None:
        found, failure = None, None
        try:
            found = running.run()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, found, failure)

    threading.Thread(target=work, name="perdure-query", daemon=True).start()
    return future


def _check(sql: Any, timeout_s: Any, rows_max: Any) -> None:  # Any: what a caller gave.
    if not isinstance(sql, str) or "\0" in sql:
        raise InvalidInput(f"SQL is a str without zero characters, not {sql!r:.100}")
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, (int, float))
        or not 0 < timeout_s <= TIMEOUT_S_MAX
    ):
        raise InvalidInput(
            f"timeout_s must be more than 0 and at most {TIMEOUT_S_MAX:g}, not {timeout_s!r:.100}"
        )
    if type(rows_max) is not int or not 1 <= rows_max <= ROWS_MAX:
        raise InvalidInput(f"rows_max must be an int from 1 to {ROWS_MAX:,}, not {rows_max!r:.100}")
