"""The OpenAPI documents of the ingress: of one service, and of all with what belongs to none."""

from __future__ import annotations

from importlib.metadata import version
from inspect import cleandoc
from typing import Any, Final
from urllib.parse import quote

from perdure._binding import Services
from perdure._declarations import PromiseDeclaration
from perdure._limits import FAILURE_MESSAGE_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, KEY_BYTES_MAX
from perdure._schemas import Components, Schema
from perdure.http._openapi import (
    NOTHING,
    TEXT,
    Document,
    described_headers,
    in_header,
    in_path,
    in_query,
    json_answer,
    json_body,
    json_content,
    record,
)
from perdure.http._results import Target
from perdure.http._services import newest_handlers
from perdure.serde import Serde
from perdure.service import HandlerDefinition, HandlerKind, ServiceKind, Versions

_ERROR: Final[Schema] = {
    "type": "object",
    "description": "An error of the ingress, or the failure of an invocation.",
    "properties": {
        "code": {"type": "integer", "description": "The HTTP status.", "minimum": 400},
        "message": TEXT,
        "source": {"enum": ["ingress", "invocation"]},
        "metadata": {"type": "object", "additionalProperties": TEXT},
    },
    "required": ["code", "message", "source"],
}
_ERROR_HEADERS: Final = {
    "x-restate-error-source": "`ingress` or `invocation`.",
    "x-perdure-error": "The class of perdure's that the error is, where it is one.",
}
_ID: Final = {"x-restate-id": "Id of the invocation."}
_RESULT_HEADERS: Final = {
    **_ID,
    "idempotency-expires": "Until when the result is kept, where it was there before.",
}
_SENT: Final[Schema] = {
    "type": "object",
    "properties": {
        "invocationId": TEXT,
        "status": {"enum": ["Accepted", "PreviouslyAccepted"]},
        "executionTime": {"type": "string", "format": "date-time"},
    },
    "required": ["invocationId", "status"],
}
_LINKS: Final[Schema] = {
    verb: {
        "operationId": f"restate.{verb}",
        "parameters": {"invocation_id": "$response.body#/invocationId"},
    }
    for verb in ("attach", "output")
}

_INVALID: Final = {400: "The request does not fit: its path, a parameter, or the body."}
_UNKNOWN: Final = {404: "There is no such thing here, or it is not kept any more."}
_ENDED: Final = {409: "The invocation was cancelled or killed."}
_STARTED: Final = {409: "The workflow was started before; or its run was cancelled or killed."}
_DONE: Final = {409: "It was completed before, or has ended."}
_NOT_READY: Final = {470: "The invocation exists but has not completed yet."}
_OWN: Final = "The handler failed with a status of its own."
_OWN_OR_COMPLETED: Final = {**_INVALID, **_UNKNOWN, **_ENDED}

_KEY: Final = in_path(
    "key",
    f"At most {KEY_BYTES_MAX} bytes in UTF-8.",
    {"type": "string", "maxLength": KEY_BYTES_MAX},
)
_INVOCATION_ID: Final = in_path("invocation_id", "`inv_` and 26 characters.")
_PROMISE: Final = in_path("promise", "Name of the promise.")
_IDEMPOTENCY_KEY: Final = in_header(
    "idempotency-key",
    "Of several requests with one key the first is invoked; each has its result. "
    f"1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes.",
    {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX},
)
_DELAY: Final = in_query("delay", "Not before this has passed: `10s`, `2500ms`, `PT10S`.")
_CODE: Final = in_query(
    "code", "Code of the failure.", {"type": "integer", "minimum": 400, "maximum": 599}
)
_RESULTS: Final = {"attach": "Wait for the result", "output": "The result, if it is there"}
_INVOCATION: Final = "/restate/invocation"
_ANY_VALUE: Final = json_body({}, required=False)
_REASON: Final[Schema] = {
    "description": f"The reason; cut at {FAILURE_MESSAGE_BYTES_MAX:,} bytes.",
    "content": {"text/plain": {"schema": TEXT}},
}


def service_document(versions: Versions) -> dict[str, Any]:
    """The document of one service: its public handlers, and what completes its workflow."""
    document = _document()
    _add_service(document, versions)
    _add_results(document, "", f"{_INVOCATION}/{{invocation_id}}", [_INVOCATION_ID])
    definition = versions[0][0]
    return document.done(
        definition.name,
        str(definition.version),
        cleandoc(definition.description),
        definition.metadata,
    )


def ingress_document(services: Services) -> dict[str, Any]:
    """The document of everything that the ingress answers.

    Other spellings of a path are left out: those under ``restate/call``, ``restate/send``,
    ``restate/a``, ``restate/attach/…`` and ``restate/output/…``.
    """
    document = _document()
    for versions in services.values():
        _add_service(document, versions)
    _add_server(document)
    _add_all_results(document)
    _add_completions(document)
    return document.done("perdure ingress", version("perdure"), "")


def _document() -> Document:
    return Document(_ERROR, _ERROR_HEADERS)


# -- services -----------------------------------------------------------------------------------


def _add_service(document: Document, versions: Versions) -> None:
    for handler in newest_handlers(versions):
        if not handler.private:
            _add_handler(document, handler)
    if versions[0][0].kind is ServiceKind.WORKFLOW:
        _add_workflow(document, versions)


def _add_handler(document: Document, handler: HandlerDefinition) -> None:
    keyed = handler.kind is not HandlerKind.SERVICE
    is_run = handler.kind is HandlerKind.RUN
    path = "/{}{}/{}".format(handler.service, "/{key}" * keyed, handler.name)
    title = f"{handler.service}.{handler.name}"
    shared: Schema = {
        "tag": handler.service,
        "summary": handler.description.partition("\n")[0] or title,
        "description": cleandoc(handler.description),
        "metadata": handler.metadata,
    }
    parameters = [
        *([_KEY] if keyed else []),
        *([] if is_run else [_IDEMPOTENCY_KEY]),
    ]
    body = _argument(document.components, handler)
    result = {200: _result(document.components, handler.result_serde, "The result.")}
    errors = {**_INVALID, **_UNKNOWN, **(_STARTED if is_run else _ENDED)}
    # A GET has no body: it fits where the argument may be left out.
    for method in ("post",) if body and body["required"] else ("post", "get"):
        given = body if method == "post" else None
        suffix = "" if method == "post" else ".get"
        document.add(
            *(method, path, title + suffix),
            **shared,
            parameters=parameters,
            body=given,
            answers=result,
            errors=errors,
            others=_OWN,
        )
        document.add(
            *(method, f"{path}/send", f"{title}.send{suffix}"),
            **shared,
            parameters=[*parameters, _DELAY],
            body=given,
            answers={202: {**json_answer("Accepted, and durable.", _SENT, _ID), "links": _LINKS}},
            errors=_INVALID,
        )


def _argument(components: Components, handler: HandlerDefinition) -> Schema | None:
    """The body of a request; None: it has none."""
    if not handler.takes_argument:
        return None
    return _value(components, handler.argument_serde, required=not handler.argument_has_default)


def _value(components: Components, serde: Serde[Any], *, required: bool) -> Schema:
    """The body that is a value of the type of *serde*."""
    annotation = serde.annotation
    if annotation is bytes:
        return {"required": False, "content": {"application/octet-stream": {}}}
    is_none = annotation is None or annotation is type(None)
    schema = components.of(annotation, output=False)
    return json_body(schema, required=required and not is_none)


def _result(components: Components, serde: Serde[Any], text: str) -> Schema:
    annotation = serde.annotation
    headers = described_headers(_RESULT_HEADERS)
    if annotation is None or annotation is type(None):
        return {"description": text, "headers": headers}
    if annotation is bytes:
        content: Schema = {"application/octet-stream": {}}
    else:
        content = json_content(components.of(annotation, output=True))
    return {"description": text, "headers": headers, "content": content}


def _add_workflow(document: Document, versions: Versions) -> None:
    """Submitting, results and promises of a workflow."""
    run = versions[0][0].handlers["run"]
    name = run.service
    answers = {200: _result(document.components, run.result_serde, "The result of `run`.")}
    if not run.private:
        document.add(
            *("post", f"/perdure/submit/{name}/{{key}}/run", f"perdure.submit.{name}"),
            summary="Start it, or wait for what was started",
            tag=name,
            parameters=[_KEY],
            body=_argument(document.components, run),
            answers=answers,
            errors=_OWN_OR_COMPLETED,
            others=_OWN,
        )
    for verb, text in _RESULTS.items():
        document.add(
            *("get", f"/restate/workflow/{name}/{{key}}/{verb}", f"restate.{verb}.{name}"),
            summary=text,
            tag=name,
            parameters=[_KEY],
            answers=answers,
            errors={**_OWN_OR_COMPLETED, **(_NOT_READY if verb == "output" else {})},
            others=_OWN,
        )
    path = f"/perdure/promises/{name}/{{key}}/"
    for each in versions[0][0].declarations.values():
        if isinstance(each, PromiseDeclaration):
            _add_resolve(
                document,
                f"{path}{quote(each.name, safe='')}/resolve",
                f"perdure.resolve.{name}.{each.name}",
                _value(document.components, each.serde, required=True),
                tag=name,
                parameters=[_KEY],
            )
    _add_resolve(
        document,
        f"{path}{{promise}}/resolve",
        f"perdure.resolve.{name}",
        json_body({}),
        tag=name,
        parameters=[_KEY, _PROMISE],
    )
    document.add(
        *("post", f"{path}{{promise}}/reject", f"perdure.reject.{name}"),
        summary="Let a promise fail",
        tag=name,
        parameters=[_KEY, _PROMISE, _CODE],
        body=_REASON,
        answers={200: NOTHING},
        errors={**_INVALID, **_UNKNOWN, **_DONE},
    )


def _add_resolve(
    document: Document,
    path: str,
    name: str,
    body: Schema,
    *,
    tag: str | None = None,
    parameters: list[Schema],
) -> None:
    document.add(
        *("post", path, name),
        summary="Give a promise its value",
        tag=tag,
        parameters=parameters,
        body=body,
        answers={200: NOTHING},
        errors={**_INVALID, **_UNKNOWN, **_DONE},
    )


# -- what belongs to no service -----------------------------------------------------------------


def _add_server(document: Document) -> None:
    names = {"type": "array", "items": TEXT}
    document.add(
        *("get", "/restate/health", "restate.health"),
        summary="Whether the engine is open, and its services",
        answers={200: json_answer("It is open.", record(server=TEXT, services=names))},
        errors={},
    )
    document.add(
        *("get", "/perdure/openapi", "perdure.openapi"),
        summary="This document",
        answers={200: json_answer("OpenAPI 3.1.", {"type": "object"})},
        errors={},
    )


def _add_all_results(document: Document) -> None:
    """Results, by all that can name an invocation."""
    service, handler = in_path("service"), in_path("handler")
    key = in_path("idempotency_key", "Of the request that invoked it.")
    of = f"{_INVOCATION}/{{service}}"
    keyed = f"{of}/{{key}}/{{handler}}/{{idempotency_key}}"
    _add_results(document, "", f"{_INVOCATION}/{{invocation_id}}", [_INVOCATION_ID])
    _add_results(
        document, ".idempotent", f"{of}/{{handler}}/{{idempotency_key}}", [service, handler, key]
    )
    _add_results(document, ".idempotent.keyed", keyed, [service, _KEY, handler, key])
    target = json_body(document.components.of(Target, output=False))
    _add_results(document, ".target", "/restate", [], target)
    document.add(
        *("post", "/restate/lookup", "restate.lookup"),
        summary="Id of the invocation that is meant",
        body=target,
        answers={200: json_answer("It exists.", record(invocationId=TEXT))},
        errors={**_INVALID, **_UNKNOWN},
    )


def _add_results(
    document: Document,
    suffix: str,
    path: str,
    parameters: list[Schema],
    body: Schema | None = None,
) -> None:
    """``attach`` and ``output`` of what *path* names, or *body*."""
    answer = {
        "description": "The result, as the handler's own answer is.",
        "headers": described_headers(_RESULT_HEADERS),
        "content": {"*/*": {}},
    }
    for verb, text in _RESULTS.items():
        document.add(
            *("get" if body is None else "post", f"{path}/{verb}", f"restate.{verb}{suffix}"),
            summary=text,
            parameters=parameters,
            body=body,
            answers={200: answer},
            errors={**_OWN_OR_COMPLETED, **(_NOT_READY if verb == "output" else {})},
            others=_OWN,
        )


def _add_completions(document: Document) -> None:
    awakeable = in_path("awakeable_id", "As the handler was given it.")
    for verb, text, body in (
        ("resolve", "Give an awakeable its value", _ANY_VALUE),
        ("reject", "Let an awakeable fail", _REASON),
    ):
        document.add(
            *("post", f"/restate/awakeables/{{awakeable_id}}/{verb}", f"restate.awakeable.{verb}"),
            summary=text,
            parameters=[awakeable] if verb == "resolve" else [awakeable, _CODE],
            body=body,
            answers={202: {"description": "Done, now or before."}},
            errors={**_INVALID, **_UNKNOWN},
        )
    document.add(
        *("post", "/perdure/signals/{invocation_id}/{name}", "perdure.signal"),
        summary="Give an invocation a message",
        parameters=[_INVOCATION_ID, in_path("name", "Of the signal.")],
        body=_ANY_VALUE,
        answers={200: NOTHING},
        errors={**_INVALID, **_UNKNOWN, **_DONE},
    )
