"""SQL over HTTP: ``POST /query``, answered in JSON, or in CSV where that is what is accepted."""

from __future__ import annotations

import base64
import csv
import io
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from perdure._sql import QueryResult
from perdure.http import _json


class Query(msgspec.Struct):
    """The body of a request; all but *query* is perdure's own."""

    query: str
    timeout_s: float = 10.0
    rows_max: int = 10_000


def answer_of(result: QueryResult, request: Request) -> Response:
    """*result* as *request* accepts it."""
    if "text/csv" in request.headers.get("accept", ""):
        return Response(_csv(result), media_type="text/csv; charset=utf-8")
    # Rows as Restate has them. Of columns that have one name, the last one stays.
    told = {
        "columns": result.columns,
        "rows": [dict(zip(result.columns, row, strict=True)) for row in result.rows],
        "truncated": result.truncated,
    }
    return Response(_json.encode(told), media_type="application/json")


def _csv(result: QueryResult) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(result.columns)
    writer.writerows([_cell(value) for value in row] for row in result.rows)
    return text.getvalue()


def _cell(value: Any) -> Any:  # Any: SQLite's five types of values
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
