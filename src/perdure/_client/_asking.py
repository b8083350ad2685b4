"""What is asked of a server: its path, its body, and the type of what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from perdure._absent import ABSENT
from perdure._binding import bind_public, result_serde
from perdure._calling import no_idempotency_key
from perdure._declarations import PromiseDeclaration
from perdure._limits import check_headers, check_idempotency_key, check_key, check_name, seconds_of
from perdure._promises import Target, find_promise
from perdure._runtime._filter import InvocationFilter
from perdure._runtime._times import EPOCH
from perdure.errors import InvalidInput, TerminalError
from perdure.futures import failure_of
from perdure.serde import UNTYPED, Serde, serde_for
from perdure.service import HandlerKind, definition_of, reference_of, resolve, service_name

# Any, in this module: handlers take and return any storable values.

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"

_OURS: Final = frozenset(
    {
        *("authorization", "connection", "content-encoding", "content-length", "content-type"),
        *("cookie", "expect", "host", "idempotency-key", "keep-alive", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers that say something to the server, and are not for the handler."""

_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond that a ``datetime`` has."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries; no content type: nothing."""

    content: bytes = b""
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """An invocation asked for.

    Attributes:
      path: Of the handler at the ingress.
      kind: None: its class is not known here.
      serde: Of the result.
    """

    service: str
    handler: str
    key: str | None
    path: str
    body: Body
    kind: HandlerKind | None
    serde: Serde[Any]

    @property
    def is_run(self) -> bool:
        """Whether it is the ``run`` of a workflow, as far as that is known here."""
        return self.kind is HandlerKind.RUN


def path_of(*parts: str) -> str:
    """The path of these segments, each of any text."""
    return "".join(f"/{_segment(part)}" for part in parts)


def _segment(text: str) -> str:
    # "." and ".." alone would be steps of the path, and be gone before the request goes out.
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def ask_for(handler: Any, arg: Any, key: Any, returns: Any) -> Asked:
    """The invocation that a caller means, checked as far as its class is known here.

    Raises:
      InvalidInput: The handler, its argument or the key can not be right.
    """
    service, name = resolve(handler)
    reference = reference_of(handler)
    if reference is None:
        if key is not None:
            check_key(key, f"key of {service}.{name}")
        body = Body() if arg is ABSENT else body_of(serde_for(UNTYPED), arg, "argument")
        serde = serde_for(UNTYPED if returns is None else returns)
        return Asked(service, name, key, _path(service, key, name), body, None, serde)
    known = {service: ((reference.service, None),)}
    definition, bound_key, payload = bind_public(known, handler, arg, key)
    body = Body()
    if payload is not None:
        body = body_of(definition.argument_serde, arg, f"argument of {service}.{name}")
    return Asked(
        service,
        name,
        None if key is None else bound_key,
        _path(service, key, name),
        body,
        definition.kind,
        result_serde(definition, returns),
    )


def _path(service: str, key: str | None, handler: str) -> str:
    return path_of(service, handler) if key is None else path_of(service, key, handler)


def run_of(asked: Asked) -> Asked:
    """*asked*, if it can be the ``run`` of a workflow; of a name alone, the server knows.

    Raises:
      InvalidInput: It can not.
    """
    if asked.kind not in (HandlerKind.RUN, None) or asked.handler != "run":
        raise InvalidInput(
            f"submit starts or attaches to a workflow's run; {asked.service}.{asked.handler} is "
            "called with call"
        )
    if asked.key is None:
        raise InvalidInput(f"{asked.service}.run needs key=: a workflow is one per key")
    return asked


def body_of(serde: Serde[Any], value: Any, place: str) -> Body:
    """*value* as it goes over the wire: bytes as they are, all else as JSON."""
    if isinstance(value, bytes) and serde.annotation in (bytes, UNTYPED):
        return Body(value, OCTETS)
    return Body(serde.to_json(value, place), JSON)


def checked_body(serde: Serde[Any], value: Any, place: str) -> Body:
    """The same of a value that nobody has checked against its type yet.

    Raises:
      InvalidInput: It does not fit.
    """
    serde.encode(value, place)
    return body_of(serde, value, place)


def headers_of(
    headers: Mapping[str, str] | None, idempotency_key: str | None, asked: Asked
) -> dict[str, bytes]:
    """The headers of a request, as bytes: what they are decoded by is the server's.

    Raises:
      InvalidInput: One can not be a header, or is not for the handler; a ``run`` was given an
        idempotency key.
    """
    checked: dict[str, bytes] = {}
    for given, value in check_headers(headers).items():
        name = given.lower()
        if name in _OURS:
            raise InvalidInput(f"headers[{name!r}] is for the server, and reaches no handler")
        if not name.isascii() or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name):
            raise InvalidInput(f"{name!r} in headers can not be the name of an HTTP header")
        checked[name] = _header(value, f"headers[{given!r}]", "latin-1")
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
        if asked.is_run:
            raise no_idempotency_key(asked.service)
        checked["idempotency-key"] = _header(idempotency_key, "idempotency key", "utf-8")
    return checked


def _header(value: str, place: str, encoding: str) -> bytes:
    """The bytes of a header.

    Raises:
      InvalidInput: There are none.
    """
    try:
        encoded = value.encode(encoding)
    except UnicodeEncodeError:
        encoded = b""
    if (value and not encoded) or encoded.strip() != encoded or not value.isprintable():
        raise InvalidInput(
            f"{place}: {value!r:.100} can not go over HTTP: a header is printable {encoding} "
            "without spaces at its ends"
        )
    return encoded


def delay_of(delay: timedelta | float | None, asked: Asked) -> dict[str, str]:
    """The query of a send that begins later."""
    if delay is None:
        return {}
    seconds = seconds_of(delay, f"delay of a send to {asked.service}")
    return {"delay": f"{math.ceil(round(seconds * 1_000_000) / 1000)}ms"}


def promise_of(promise: Any, key: Any) -> Target:
    """The promise that a caller means, by a declaration or by the text ``"Workflow.promise"``.

    Of a text, what follows the last dot is the promise, and its type is not known here.

    Raises:
      InvalidInput: It can name no promise, or no key.
    """
    if isinstance(promise, PromiseDeclaration) and promise.service and promise.owner:
        known = {promise.service: ((definition_of(promise.owner), None),)}
        return find_promise(known, promise, key)
    if not isinstance(promise, str):
        return find_promise({}, promise, key)  # says what it should be
    service, _, name = promise.rpartition(".")
    if not (service and name):
        raise InvalidInput(f'{promise!r} names no promise; write "Workflow.promise"')
    check_name(name, "promise name")
    if key is None:
        raise InvalidInput(f"promise {promise} needs key=: a workflow is one per key")
    check_key(key, f"key of promise {promise}")
    return Target(service, key, name, serde_for(UNTYPED))


def reason_of(reason: str | TerminalError, code: int) -> tuple[Body, dict[str, str]]:
    """Body and query of a rejection.

    Raises:
      InvalidInput: It can be none, or has metadata, for which a server has no place.
    """
    failure = failure_of(reason, code)
    if failure.metadata:
        raise InvalidInput("the metadata of a rejection does not go over HTTP; leave it out")
    if not 400 <= failure.code <= 599:
        raise InvalidInput(f"the code of a rejection is from 400 to 599, not {failure.code!r}")
    query = {} if failure.code == TerminalError.default_code else {"code": str(failure.code)}
    return Body(failure.message.encode("utf-8", "backslashreplace"), TEXT), query


def keyed(service: Any, key: Any) -> str:
    """The name of a service, with a key that it can have.

    Raises:
      InvalidInput: The service or the key can be none.
    """
    name = service_name(service)
    check_key(key, f"key of {name}")
    return name


def text_id(invocation_id: Any) -> str:
    """An id as it stands in paths; those of a Restate server look otherwise than perdure's."""
    if isinstance(invocation_id, str) and invocation_id.replace("_", "").isalnum():
        return invocation_id
    raise InvalidInput(f"{invocation_id!r:.100} is not an invocation id; they begin with inv_")


def query_of(filter: InvocationFilter | None) -> list[tuple[str, str]]:
    """The query that stands for a filter; empty: all are meant."""
    if filter is None:
        return []
    if not isinstance(filter, InvocationFilter):
        raise InvalidInput(f"filter must be an InvocationFilter, not {filter!r:.100}")
    wanted = filter.wanted
    query = [
        (name, value)
        for name, value in (
            ("service", wanted.service),
            ("handler", wanted.handler),
            ("key", wanted.key),
        )
        if value is not None
    ]
    query += [("status", status.value) for status in sorted(wanted.statuses)]
    if wanted.age_ms is not None:
        query.append(("older_than", f"{wanted.age_ms}ms"))
    if filter.created_before is not None:
        query.append(("created_before", _time(wanted.before_ms)))
    if filter.created_after is not None:
        query.append(("created_after", _time(wanted.after_ms)))
    return query


def _time(time_ms: int) -> str:
    at = EPOCH + timedelta(milliseconds=min(time_ms, _MS_MAX))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
