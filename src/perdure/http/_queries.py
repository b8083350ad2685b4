"""SQL over HTTP: the statement, and the forms of its answer."""

from __future__ import annotations

import csv
import io

import msgspec

from perdure._sql import QueryResult


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a query."""

    query: str
    timeout_s: float = 10.0
    rows_max: int = 10_000


def as_json(result: QueryResult) -> bytes:
    """Restate's form, rows as objects; blobs are in base64. The names of columns differ."""
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return msgspec.json.encode(
        {"rows": rows, "columns": result.columns, "truncated": result.truncated}
    )


def as_csv(result: QueryResult) -> bytes:
    """A line of names and one for each row; blobs are in hexadecimal digits, NULL is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(result.columns)
    for row in result.rows:
        writer.writerow([value.hex() if isinstance(value, bytes) else value for value in row])
    return text.getvalue().encode("utf-8", "backslashreplace")
