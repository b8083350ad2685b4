"""OpenAPI 3.1 documents: what those of the ingress and of the admin app have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from perdure._schemas import Components, Schema

TEXT: Final[Schema] = {"type": "string"}
NOTHING: Final[Schema] = {"description": "Done."}
_METADATA: Final = "x-perdure-metadata"

# Answered before the app sees the request.
_REFUSALS: Final = {
    401: "A token is needed, and there is none or it is not valid.",
    403: "Without tokens, a request from another machine or from a page of another site.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    431: "The headers are too large.",
}
_RETRIED: Final = {
    429: "Too much at a time: nothing was accepted, try again.",
    503: "The engine is closed or its disk has failed; or the server stops.",
}
_FAILED: Final = {500: "A defect, or a failure without a status of its own."}


class Document:
    """A document as it grows.

    Args:
      error: Schema of the body of an error.
      error_headers: Of an error, with what they are.
      known: As of :class:`Components`.
    """

    def __init__(
        self,
        error: Schema,
        error_headers: Mapping[str, str],
        known: Mapping[type, Schema] | None = None,
    ) -> None:
        self.components = Components(schemas={"Error": error}, known=known)
        self._error_headers = error_headers
        self._responses: dict[str, Any] = {}
        self._paths: dict[str, dict[str, Any]] = {}
        self._names: set[str] = set()

    def add(
        self,
        method: str,
        path: str,
        name: str,
        *,
        summary: str,
        description: str = "",
        tag: str | None = None,
        metadata: Mapping[str, str] | None = None,
        parameters: Iterable[Schema] = (),
        body: Schema | None = None,
        answers: Mapping[int, Schema],
        errors: Mapping[int, str],
        others: str | None = None,
    ) -> None:
        """Add an operation.

        Args:
          metadata: Of the handler that it invokes.
          errors: What each status of an error means here.
          others: What a status that is not named means; None: there are none.
        """
        refused = {status: text for status, text in _REFUSALS.items() if status != 413 or body}
        responses = {str(status): answer for status, answer in answers.items()}
        for status, text in sorted({**refused, **_RETRIED, **_FAILED, **errors}.items()):
            responses[str(status)] = self._error(status, text)
        if others is not None:
            responses["default"] = self._error("default", others)
        operation: dict[str, Any] = {"operationId": self._unique(name), "summary": summary}
        if description and description != summary:
            operation["description"] = description
        if tag is not None:
            operation["tags"] = [tag]
        if metadata:
            operation[_METADATA] = metadata
        given = list(parameters)
        if given:
            operation["parameters"] = given
        if body is not None:
            operation["requestBody"] = body
        self._paths.setdefault(path, {})[method] = {**operation, "responses": responses}

    def done(
        self, title: str, version: str, description: str, metadata: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The document, whole."""
        info: dict[str, Any] = {"title": title, "version": version}
        if description:
            info["description"] = description
        if metadata:
            info[_METADATA] = metadata
        return {
            "openapi": "3.1.0",
            "info": info,
            "paths": self._paths,
            # With a token or, where the server has none, without.
            "security": [{"token": []}, {}],
            "components": {
                "schemas": self.components.schemas,
                "responses": self._responses,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _unique(self, name: str) -> str:
        """*name*, or the same with a number: with dots in them, two names may read as one."""
        numbered = (f"{name}.{number}" for number in itertools.count(2))
        free = next(each for each in itertools.chain([name], numbered) if each not in self._names)
        self._names.add(free)
        return free

    def _error(self, status: int | str, text: str) -> Schema:
        """A reference to the response that it is, which all operations share that mean the same."""
        number, name = 1, f"Error{str(status).capitalize()}"
        response = self._response(status, text)
        while self._responses.setdefault(name, response) != response:
            number += 1
            name = f"Error{str(status).capitalize()}-{number}"
        return {"$ref": f"#/components/responses/{name}"}

    def _response(self, status: int | str, text: str) -> Schema:
        if status == 413:
            return {"description": text, "content": {"text/plain": {"schema": TEXT}}}
        headers = dict(self._error_headers)
        if status in _RETRIED:
            headers["retry-after"] = "Seconds."
        return {
            "description": text,
            "headers": described_headers(headers),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }


def served_at(root_path: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """*document* of an app that is mounted at *root_path*."""
    return {**document, "servers": [{"url": root_path or "/"}]}


def described_headers(headers: Mapping[str, str]) -> Schema:
    return {name: {"description": text, "schema": TEXT} for name, text in headers.items()}


def in_path(name: str, text: str = "", schema: Schema = TEXT) -> Schema:
    return _parameter("path", name, text, schema, required=True)


def in_query(name: str, text: str = "", schema: Schema = TEXT) -> Schema:
    return _parameter("query", name, text, schema, required=False)


def in_header(name: str, text: str = "", schema: Schema = TEXT) -> Schema:
    return _parameter("header", name, text, schema, required=False)


def _parameter(place: str, name: str, text: str, schema: Schema, *, required: bool) -> Schema:
    described = {"description": text} if text else {}
    return {"name": name, "in": place, "required": required, **described, "schema": schema}


def json_body(schema: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": json_content(schema)}


def json_content(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def json_answer(text: str, schema: Schema, headers: Mapping[str, str] | None = None) -> Schema:
    answer: Schema = {"description": text, "content": json_content(schema)}
    return {**answer, "headers": described_headers(headers)} if headers else answer


def record(**properties: Schema) -> Schema:
    """The schema of an object that has all of *properties*."""
    return {"type": "object", "properties": properties, "required": list(properties)}
