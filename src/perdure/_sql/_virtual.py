"""The tables as SQLite sees them: modules of virtual tables, on a connection that only reads.

apsw is imported here alone, so this module is imported by those who are about to run a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import apsw

from perdure._sql._invocations import SYS_INVOCATION
from perdure._sql._journals import SYS_JOURNAL
from perdure._sql._keyed import STATE, SYS_INBOX, SYS_PROMISE, SYS_TIMER
from perdure._sql._tables import (
    Column,
    Given,
    Lookup,
    Reads,
    SqlValue,
    Table,
    first_ms_of_second,
)
from perdure.errors import StoreCorrupt

# Any: each table has rows of its own.
TABLES: tuple[Table[Any], ...] = (
    *(SYS_INVOCATION, SYS_JOURNAL, SYS_PROMISE, SYS_INBOX, SYS_TIMER, STATE),
)

_ROWS_UNKNOWN = 10_000_000
_ROWS_OF_TIMES = 100_000
_UNREADABLE = (ValueError, OverflowError, IndexError)
"""What decoders raise of rows that perdure never writes, beside :class:`StoreCorrupt`."""
_FROM = frozenset({apsw.SQLITE_INDEX_CONSTRAINT_GE, apsw.SQLITE_INDEX_CONSTRAINT_GT})
_UNTIL = frozenset({apsw.SQLITE_INDEX_CONSTRAINT_LE, apsw.SQLITE_INDEX_CONSTRAINT_LT})
_ALLOWED = frozenset(
    {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
)
_LIMITS = {
    # Nothing interrupts a function: of two values twice as long, instr takes four times as long.
    apsw.SQLITE_LIMIT_LENGTH: 1 << 20,
    apsw.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    apsw.SQLITE_LIMIT_COLUMN: 200,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 100,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    apsw.SQLITE_LIMIT_VDBE_OP: 100_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 100,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}


def connect(reads: Reads) -> apsw.Connection:
    """A connection on which one may select from :data:`TABLES`, read from *reads*."""
    connection = apsw.Connection(":memory:")
    connection.pragma("temp_store", "memory")  # a sort must not write files
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    for limit, most in _LIMITS.items():
        connection.limit(limit, most)
    for table in TABLES:
        connection.create_module(
            table.name,
            # Any: the protocol has methods that a table without CREATE and shadow does not need.
            cast(Any, _Module(table, reads)),
            use_bestindex_object=True,
            eponymous_only=True,
            read_only=True,
        )
    connection.authorizer = _authorize
    return connection


def _authorize(action: int, *_: str | None) -> int:
    return apsw.SQLITE_OK if action in _ALLOWED else apsw.SQLITE_DENY


class _Module:
    """What SQLite asks for the table; the methods have the names that apsw calls."""

    def __init__(self, table: Table[Any], reads: Reads) -> None:
        self._table = table
        self._reads = reads

    def Connect(  # noqa: N802
        self, _connection: apsw.Connection, _module: str, _database: str, _table: str, *_: Any
    ) -> tuple[str, _VirtualTable]:
        return self._table.declaration, _VirtualTable(self._table, self._reads)


class _VirtualTable:
    def __init__(self, table: Table[Any], reads: Reads) -> None:
        self._table = table
        self._reads = reads

    def BestIndexObject(self, info: apsw.IndexInfo) -> bool:  # noqa: N802
        plan = _Plan(self._table, info)
        plan.choose()
        return True

    def Open(self) -> _Cursor:  # noqa: N802
        return _Cursor(self._table, self._reads)

    def Disconnect(self) -> None:  # noqa: N802
        pass


class _Plan:
    """Which of the constraints of a query the table makes use of, told to SQLite.

    The words of the index' text are what the arguments of ``Filter`` are: ``id=``, ``from``,
    ``until``.
    """

    def __init__(self, table: Table[Any], info: apsw.IndexInfo) -> None:
        self._table = table
        self._info = info
        self._words: list[str] = []

    def choose(self) -> None:
        rows = self._look_up()
        if rows is None:
            rows = self._narrow_times()
        info = self._info
        info.idxStr = " ".join(self._words)
        info.idxNum = len(self._words)
        info.estimatedRows = rows
        info.estimatedCost = float(rows)
        if info.nOrderBy == 1 and not info.get_aOrderBy_desc(0):
            info.orderByConsumed = self._name(info.get_aOrderBy_iColumn(0)) in self._table.ascending

    def _name(self, column: int) -> str:
        return str(self._table.columns[column].name) if column >= 0 else "rowid"

    def _usable(self) -> Iterator[tuple[int, str, int]]:
        """Index, column and operator of the constraints that compare as bytes do."""
        info = self._info
        for index in range(info.nConstraint):
            column = info.get_aConstraint_iColumn(index)
            if (
                info.get_aConstraint_usable(index)
                and 0 <= column < len(self._table.columns)
                and info.get_aConstraint_collation(index) == "BINARY"
            ):
                yield index, self._name(column), info.get_aConstraint_op(index)

    def _use(self, index: int, word: str) -> None:
        self._words.append(word)
        self._info.set_aConstraintUsage_argvIndex(index, len(self._words))

    def _look_up(self) -> int | None:
        given = {
            column: index
            for index, column, operator in self._usable()
            if operator == apsw.SQLITE_INDEX_CONSTRAINT_EQ
        }
        lookups: tuple[Lookup, ...] = self._table.lookups
        for lookup in lookups:
            if given.keys() >= set(lookup.columns):
                for column in lookup.columns:
                    self._use(given[column], f"{column}=")
                return lookup.rows
        return None

    def _narrow_times(self) -> int:
        if self._table.time is not None:
            for index, column, operator in self._usable():
                if column == self._table.time and operator in _FROM | _UNTIL:
                    self._use(index, "from" if operator in _FROM else "until")
        return _ROWS_OF_TIMES if self._words else _ROWS_UNKNOWN


class _Cursor:
    def __init__(self, table: Table[Any], reads: Reads) -> None:
        self._table = table
        self._columns: tuple[Column[Any], ...] = table.columns
        self._reads = reads
        self._rows: Iterator[Any] = iter(())
        self._row: Any = None
        self._number = 0

    def Filter(  # noqa: N802
        self, _number: int, words: str | None, arguments: tuple[SqlValue, ...] | None
    ) -> None:
        given = given_by(words, arguments or ())
        self._rows = iter(()) if given is None else self._table.find(self._reads, given)
        self._number = 0
        self.Next()

    def Next(self) -> None:  # noqa: N802
        self._reads.breathe()
        try:
            self._row = next(self._rows, None)
        except _UNREADABLE as error:
            raise self._stranger(error) from error
        self._number += 1

    def Eof(self) -> bool:  # noqa: N802
        return self._row is None

    def Column(self, number: int) -> SqlValue:  # noqa: N802
        if number < 0:
            return self._number
        try:
            return self._columns[number].read(self._row)
        except _UNREADABLE as error:
            raise self._stranger(error) from error

    def _stranger(self, error: Exception) -> StoreCorrupt:
        return StoreCorrupt(f"{self._table.name}: a row is none of perdure's: {error}")

    def Rowid(self) -> int:  # noqa: N802
        return self._number

    def Close(self) -> None:  # noqa: N802
        self._rows = iter(())


def given_by(words: str | None, arguments: tuple[SqlValue, ...]) -> Given | None:
    """What the arguments of a plan say; None: no row can fit."""
    equal: dict[str, str] = {}
    given = Given()
    from_ms, until_ms = given.from_ms, given.until_ms
    for word, argument in zip((words or "").split(), arguments, strict=True):
        if argument is None:
            return None  # nothing equals, or is before or after, NULL
        if word.endswith("="):
            if isinstance(argument, (str, int)):
                equal[word[:-1]] = str(argument)
            continue  # a number or a blob may equal a text in SQLite's eyes: it looks itself
        first_ms = first_ms_of_second(argument)
        if first_ms is None:
            continue
        if word == "from":
            from_ms = max(from_ms, first_ms)
        else:
            until_ms = min(until_ms, first_ms + 1000)
    return Given(equal, from_ms, until_ms)
