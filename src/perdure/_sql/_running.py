"""A query on its way: in a thread of its own, ended by its time, by who asked, or by the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.errors import InvalidInput, PerdureError, StoreClosed, StoreError, TerminalError

if TYPE_CHECKING:
    import apsw

    from perdure._store import CommittedSnapshot, Store

MEMORY_BYTES_MAX = 256 << 20
"""Of SQLite, for one query: sorting, grouping and what it has read."""

RESULT_BYTES_MAX = 64 << 20
"""Of the values of a result; it is cut after the row that goes beyond."""

_INSTRUCTIONS_PER_LOOK = 1_000
_SNAPSHOTS_MAX = 5

Found = tuple[list[str], list[tuple[Any, ...]], bool]  # Any: SQLite's five types of values


class Running:
    """One query. :meth:`run` is for a thread of its own, :meth:`stop` for any other.

    Args:
      deadline: By ``time.monotonic``; *timeout_s* is for the text of the error.
    """

    def __init__(
        self, store: Store, sql: str, rows_max: int, *, timeout_s: float, deadline: float
    ) -> None:
        self._store = store
        self._sql = sql
        self._rows_max = rows_max
        self._timeout_s = timeout_s
        self._deadline = deadline
        self._lock = threading.Lock()  # of the two that follow
        self._stopped = False
        self._snapshot: CommittedSnapshot | None = None
        self._why: PerdureError | None = None  # it was interrupted, where SQLite does not say
        self._memory_before = 0

    def too_slow(self) -> TerminalError:
        """What a query over its time is told."""
        return TerminalError(
            f"the query took longer than {self._timeout_s:g} s and was ended; give an id, a "
            "service and a key, a status or a range of times, or more time",
            408,
        )

    def stop(self) -> None:
        """Nobody waits for it any more: let its snapshot go now, and its thread soon."""
        with self._lock:
            self._stopped = True
            if self._snapshot is not None:
                self._snapshot.close()

    def run(self) -> Found:
        """Ask SQLite.

        Raises:
          InvalidInput: It is no query, or not one that only reads.
          TerminalError: It took too long, or too much memory.
          StoreClosed, StoreCorrupt: As for every read.
          ImportError: There is no apsw.
        """
        for _ in range(_SNAPSHOTS_MAX):
            snapshot = self._store.snapshot()
            with self._lock:
                self._snapshot = snapshot
                if self._stopped:
                    snapshot.close()
            try:
                return self._ask(snapshot)
            except StoreClosed:
                raise
            except StoreError:
                # The file was mapped anew, and the snapshot ended: nothing of it has been shown.
                if not snapshot.ended:
                    raise
            finally:
                snapshot.close()
        raise TerminalError("the file grew faster than the query could read it; ask again", 503)

    def _ask(self, snapshot: CommittedSnapshot) -> Found:
        try:
            import apsw
        except ImportError as error:
            raise ImportError("SQL needs apsw: pip install perdure[server]") from error
        from perdure._sql._tables import Reads
        from perdure._sql._virtual import TABLES, connect

        self._why = None
        self._memory_before = apsw.memory_used()
        connection = connect(Reads(snapshot, self._check))
        connection.set_progress_handler(
            lambda: self._is_over(snapshot, apsw.memory_used), _INSTRUCTIONS_PER_LOOK
        )
        try:
            return self._collect(connection)
        except apsw.InterruptError as error:
            raise self._why or self.too_slow() from error
        except apsw.NoMemError as error:
            raise _too_big() from error
        except apsw.AuthError as error:
            raise InvalidInput("SQL: a query only reads: SELECT, and no PRAGMA") from error
        except (apsw.Error, UnicodeError) as error:
            names = ", ".join(table.name for table in TABLES)
            hint = f"; there are the tables {names}" if "no such" in str(error) else ""
            raise InvalidInput(f"SQL: {error}{hint}") from error
        finally:
            connection.close(True)

    def _collect(self, connection: apsw.Connection) -> Found:
        columns: list[str] = []
        end = 0  # of what was begun

        def begin(cursor: apsw.Cursor, statement: str, _bindings: object) -> bool:
            nonlocal end
            end = self._sql.index(statement, end) + len(statement)
            described = cursor.get_description()
            if described and columns:
                raise InvalidInput("SQL: a query is one statement; there is a second one")
            columns.extend(_distinct([str(column[0]) for column in described]))
            return True  # a comment has no columns; what else has none is not authorized

        connection.exec_trace = begin
        rows: list[tuple[Any, ...]] = []
        size = 0
        truncated = False
        for row in connection.execute(self._sql):
            if len(rows) == self._rows_max or size > RESULT_BYTES_MAX:
                truncated = True
                break
            size += sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)
            rows.append(row)
        if truncated:  # what comes behind the statement was not looked at
            connection.execute(self._sql[end:])
        if not columns:
            raise InvalidInput("SQL: there is no statement")
        return columns, rows, truncated

    def _check(self) -> None:
        """Raise what ends the query, if it has to end."""
        if self._stopped or time.monotonic() > self._deadline:
            raise self.too_slow()

    def _is_over(self, snapshot: CommittedSnapshot, memory_used: Callable[[], int]) -> bool:
        """Whether SQLite has to end it; it asks now and then."""
        if memory_used() - self._memory_before > MEMORY_BYTES_MAX:
            self._why = _too_big()
        elif self._stopped or time.monotonic() > self._deadline:
            self._why = self.too_slow()
        elif snapshot.ended:
            self._why = StoreError("the snapshot has ended")  # another one tells why
        return self._why is not None


def _distinct(names: list[str]) -> list[str]:
    """The *names*, a later one of the same followed by a number."""
    seen: set[str] = set()
    for position, name in enumerate(names):
        number, distinct = 0, name
        while distinct in seen:
            number += 1
            distinct = f"{name}:{number}"
        seen.add(distinct)
        names[position] = distinct
    return names


def _too_big() -> TerminalError:
    return TerminalError(
        f"the query needs more than {MEMORY_BYTES_MAX >> 20} MiB: narrow it, sort and group less",
        413,
    )
