"""The OpenAPI document of the admin app: every route of it."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Any, Final

from perdure._limits import KEY_BYTES_MAX
from perdure._runtime._check import CheckReport
from perdure._runtime._describe import ENTRIES_SHOWN_MAX, Description
from perdure._runtime._keyed import PromiseInfo
from perdure._runtime._listing import PAGE_ITEMS_MAX, InvocationPage, InvocationSummary
from perdure._runtime._status import Status
from perdure._schemas import Schema
from perdure.errors import NondeterminismError, TerminalError
from perdure.http._openapi import (
    TEXT,
    Document,
    in_path,
    in_query,
    json_answer,
    json_body,
    record,
)
from perdure.http._queries import Query
from perdure.http._services import Handler, Service

_ERROR: Final[Schema] = {
    "type": "object",
    "properties": {
        "message": TEXT,
        "restate_code": {"type": "null"},
        "code": {"type": "integer", "description": "The HTTP status.", "minimum": 400},
    },
    "required": ["message", "restate_code", "code"],
}
_ERROR_HEADERS: Final = {
    "x-perdure-error": "The class of perdure's that the error is, where it is one."
}
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_STATE: Final[Schema] = {"type": "object", "description": "Values by name."}
_KNOWN: Final[dict[type, Schema]] = {
    TerminalError: record(
        kind=TEXT,
        message=TEXT,
        code={"type": "integer"},
        metadata={"type": "object", "additionalProperties": TEXT},
    ),
    NondeterminismError: record(
        invocation_id=TEXT,
        index={"type": "integer"},
        expected=TEXT,
        actual=TEXT,
        expected_site=TEXT,
        actual_site=TEXT,
        diff=TEXT,
    ),
}

_INVALID: Final = {400: "The request does not fit: its path, a parameter, or the body."}
_UNKNOWN: Final = {404: "There is no such thing here, or it is not kept any more."}
_MOOT: Final = {409: "What is there does not allow it, or has it behind it."}

_ID: Final = in_path("id", "`inv_` and 26 characters.")
_SERVICE: Final = in_path("service", "Its name.")
_KEY: Final = in_path(
    "key",
    f"At most {KEY_BYTES_MAX} bytes in UTF-8.",
    {"type": "string", "maxLength": KEY_BYTES_MAX},
)
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_FILTER: Final = [
    in_query("service", "Name of a service."),
    in_query("handler", "Name of a handler."),
    in_query("key", "A key."),
    in_query(
        "status",
        "Any of these.",
        {"type": "array", "items": {"enum": [each.value for each in Status]}},
    ),
    in_query("older_than", "Accepted longer ago than this: `10s`, `1h 30m`, `PT10S`."),
    in_query("created_before", schema=_TIME),
    in_query("created_after", schema=_TIME),
]
_EMPTY: Final = json_answer("Done.", _ANY_OBJECT)
_FROM: Final = in_query("from", "Journal entry to begin again at; 0: from the start.", _NUMBER)

# What each verb is answered, to one invocation, and what it does.
_VERBS: Final[dict[str, tuple[int, str]]] = {
    "cancel": (202, "Cancel it: its handler is told, and may clean up"),
    "kill": (200, "End it where it is"),
    "pause": (202, "Let it not go on"),
    "resume": (200, "Let one that is paused go on"),
    "purge": (200, "Forget one that has completed"),
    "restart-as-new": (200, "Begin again what has completed, as a new invocation"),
}


@functools.cache
def admin_document() -> dict[str, Any]:
    """The document of the admin app; nobody changes it."""
    document = Document(_ERROR, _ERROR_HEADERS, _KNOWN)
    _add_server(document)
    _add_services(document)
    _add_keys(document)
    _add_invocations(document)
    _add_verbs(document)
    return document.done("perdure admin", version("perdure"), "")


def _add_server(document: Document) -> None:
    components = document.components
    document.add(
        *("get", "/health", "health"),
        summary="Whether the engine is open",
        answers={200: json_answer("It is open.", _ANY_OBJECT)},
        errors={},
    )
    shown = record(
        server=TEXT,
        version=TEXT,
        min_admin_api_version=_NUMBER,
        max_admin_api_version=_NUMBER,
        ingress_endpoint={"type": ["string", "null"]},
        features=_ANY_OBJECT,
    )
    document.add(
        *("get", "/version", "version"),
        summary="Which server this is",
        answers={200: json_answer("Its version.", shown)},
        errors={},
    )
    document.add(
        *("get", "/openapi", "openapi"),
        summary="This document",
        answers={200: json_answer("OpenAPI 3.1.", _ANY_OBJECT)},
        errors={},
    )
    document.add(
        *("post", "/check", "check"),
        summary="Replay the journals of all that is unfinished against the code, for nothing",
        answers={200: json_answer("What was found.", components.of(CheckReport, output=True))},
        errors={},
    )
    row = {"type": "object", "description": "Values by column."}
    rows = record(rows=_list(row), columns=_list(TEXT), truncated={"type": "boolean"})
    answer = json_answer("The rows.", rows)
    answer["content"]["text/csv"] = {"schema": TEXT}
    document.add(
        *("post", "/query", "query"),
        summary="Rows of the tables of a store, asked for in SQL",
        body=json_body(components.of(Query, output=False)),
        answers={200: answer},
        errors=_INVALID,
    )
    copy: Schema = {"description": "data.mdb.", "content": {"application/octet-stream": {}}}
    document.add(
        *("get", "/backup", "backup"),
        summary="A copy of the data directory as it is at one moment",
        answers={200: copy},
        errors={},
    )


def _add_services(document: Document) -> None:
    service = document.components.of(Service, output=True)
    handler = document.components.of(Handler, output=True)
    handlers = record(handlers=_list(handler))
    for path, name, summary, shown in (
        ("/services", "services", "All services", record(services=_list(service))),
        ("/services/{service}", "service", "A service", service),
        ("/services/{service}/openapi", "service.openapi", "Its OpenAPI document", _ANY_OBJECT),
        (
            "/services/{service}/handlers",
            "handlers",
            "Its handlers",
            handlers,
        ),
        ("/services/{service}/handlers/{handler}", "handler", "A handler", handler),
    ):
        document.add(
            *("get", path, name),
            summary=summary,
            parameters=[in_path(each) for each in ("service", "handler") if f"{{{each}}}" in path],
            answers={200: json_answer("As it is served.", shown)},
            errors=_UNKNOWN if "{" in path else {},
        )
    byte = {"type": "integer", "minimum": 0, "maximum": 255}
    new_state = {
        "type": "object",
        "description": "The bytes of the JSON of each value, by name.",
        "additionalProperties": _list(byte),
    }
    document.add(
        *("post", "/services/{service}/state", "service.state"),
        summary="Replace the state of a key, in Restate's form",
        parameters=[_SERVICE],
        body=json_body(record(object_key=TEXT, new_state=new_state)),
        answers={202: _EMPTY},
        errors={**_INVALID, **_UNKNOWN, **_MOOT},
    )


def _add_keys(document: Document) -> None:
    place = "/state/{service}/{key}"
    document.add(
        *("get", place, "state"),
        summary="The state of a key",
        parameters=[_SERVICE, _KEY],
        answers={200: json_answer("Empty where nothing is set.", record(state=_STATE))},
        errors={**_INVALID, **_UNKNOWN},
    )
    document.add(
        *("put", place, "state.set"),
        summary="Replace the state of a key",
        parameters=[_SERVICE, _KEY],
        body=json_body(_STATE),
        answers={200: _EMPTY},
        errors={**_INVALID, **_UNKNOWN, **_MOOT},
    )
    run = document.components.of(InvocationSummary | None, output=True)
    promises = document.components.of(list[PromiseInfo], output=True)
    document.add(
        *("get", "/workflows/{workflow}/{key}", "workflow"),
        summary="A workflow's key: its run, its promises, its state",
        parameters=[in_path("workflow", "Its name."), _KEY],
        answers={
            200: json_answer(
                "Also where it was never started.",
                record(name=TEXT, key=TEXT, run=run, promises=promises, state=_STATE),
            )
        },
        errors={**_INVALID, **_UNKNOWN},
    )


def _add_invocations(document: Document) -> None:
    components = document.components
    limit: Schema = {"type": "integer", "minimum": 1, "maximum": PAGE_ITEMS_MAX}
    page = json_answer("The page.", components.of(InvocationPage, output=True))
    of_each = ["invocation", "invocation.history", *(f"invocation.{verb}" for verb in _VERBS)]
    links = {
        name: {"operationId": name, "parameters": {"id": "$response.body#/items/0/id"}}
        for name in of_each
    }
    document.add(
        *("get", "/invocations", "invocations"),
        summary="A page of the invocations that a filter means, those accepted first in front",
        parameters=[
            *_FILTER,
            in_query("limit", "The most that the page has; 100 if left out.", limit),
            in_query("cursor", "That of the page before, with the same filter."),
        ],
        answers={200: {**page, "links": links}},
        errors=_INVALID,
    )
    described = components.of(Description, output=True)
    start = {**_NUMBER, "maximum": (1 << 32) - 1}
    shown = {**_NUMBER, "maximum": ENTRIES_SHOWN_MAX}
    document.add(
        *("get", "/invocations/{id}", "invocation"),
        summary="An invocation with what it waits for, and its journal",
        parameters=[
            _ID,
            in_query("journal_from", "Index of the first entry to show.", start),
            in_query("journal_limit", "1,000 if left out.", shown),
        ],
        answers={
            200: json_answer("As it is.", {"allOf": [described, record(timeline=TEXT)]}),
        },
        errors={**_INVALID, **_UNKNOWN},
    )
    history = record(
        format={"const": "perdure-history"},
        version=_NUMBER,
        sources={"type": "object", "additionalProperties": TEXT},
        invocations=_list(_ANY_OBJECT),
    )
    document.add(
        *("get", "/invocations/{id}/history", "invocation.history"),
        summary="An invocation with its journal, to be replayed elsewhere",
        parameters=[_ID],
        answers={200: json_answer("docs/reference/history-format.md describes it.", history)},
        errors={**_INVALID, **_UNKNOWN},
    )
    modes = {"enum": ["cancel", "kill", "purge"], "default": "cancel"}
    document.add(
        *("delete", "/invocations/{id}", "invocation.delete"),
        summary="Cancel, kill or purge it: Restate's older form",
        parameters=[_ID, in_query("mode", schema=modes)],
        answers={200: _EMPTY, 202: _EMPTY},
        errors={**_INVALID, **_UNKNOWN, **_MOOT},
    )


def _add_verbs(document: Document) -> None:
    for verb, (status, summary) in _VERBS.items():
        restart = verb == "restart-as-new"
        begun = json_answer("It was accepted.", record(new_invocation_id=TEXT))
        is_workflow = {422: "It is the run of a workflow: purge it, and start its key again."}
        document.add(
            *("patch", f"/invocations/{{id}}/{verb}", f"invocation.{verb}"),
            summary=summary,
            parameters=[_ID, _FROM] if restart else [_ID],
            answers={status: begun if restart else _EMPTY},
            errors={**_INVALID, **_UNKNOWN, **_MOOT, **(is_workflow if restart else {})},
        )
        document.add(
            *("patch", f"/invocations/{verb}", f"invocations.{verb}"),
            summary="The same to all that a filter means",
            parameters=[
                *_FILTER,
                in_query("all", "Instead of a filter: all there are.", {"enum": ["true"]}),
            ],
            answers={200: json_answer("How many it was done to.", record(count=_NUMBER))},
            errors=_INVALID,
        )


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}
