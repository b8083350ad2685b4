"""The admin app: what operators do and see, on the paths of Restate's admin and some more."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from perdure._binding import registered_service, registered_versions
from perdure._bodies import check_json
from perdure._ids import parse_id
from perdure._runtime._filter import InvocationFilter
from perdure._runtime._layout import Record
from perdure._runtime._listing import summary_of
from perdure.engine import Engine
from perdure.errors import InvalidInput, NotFound, StoreError, TerminalError
from perdure.http import _json
from perdure.http._download import download_backup
from perdure.http._filters import check_names, filter_of, number_of
from perdure.http._lifespan import lifespan
from perdure.http._openapi import served_at
from perdure.http._openapi_admin import admin_document
from perdure.http._openapi_ingress import service_document
from perdure.http._queries import Query, as_csv, as_json
from perdure.http._replies import RETRY_AFTER_S, logger, status_of
from perdure.http._requests import Receive, Scope, Send
from perdure.http._services import Service, described_service
from perdure.service import ServiceKind

Endpoint = Callable[[Request], Awaitable[Response]]

VERBS: Final = ("cancel", "kill", "pause", "resume", "purge", "restart-as-new")
"""What can be done to one invocation, or to all that a filter means."""


class Admin:
    """ASGI app of one engine.

    Attributes:
      routes: All that it answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._services = engine._services
        # Made when they are first asked for.
        self._shown: dict[str, Service] = {}
        self._documents: dict[str, dict[str, Any]] = {}
        self.routes = [
            _Route("/health", GET=self._health),
            _Route("/version", GET=self._version),
            _Route("/openapi", GET=self._openapi),
            _Route("/services", GET=self._list_services),
            _Route("/services/{service}", GET=self._service),
            _Route("/services/{service}/openapi", GET=self._service_openapi),
            _Route("/services/{service}/handlers", GET=self._handlers),
            _Route("/services/{service}/handlers/{handler}", GET=self._handler),
            _Route("/services/{service}/state", POST=self._replace_state),
            _Route("/state/{service}/{key:path}", GET=self._state, PUT=self._set_state),
            _Route("/workflows/{workflow}/{key:path}", GET=self._workflow),
            _Route("/invocations", GET=self._invocations),
            *(_Route(f"/invocations/{verb}", PATCH=self._to_all(verb)) for verb in VERBS),
            _Route("/invocations/{id}", GET=self._describe, DELETE=self._delete),
            _Route("/invocations/{id}/history", GET=self._history),
            _Route("/invocations/{id}/{verb}", PATCH=self._act),
            _Route("/query", POST=self._query),
            _Route("/check", POST=self._check),
            _Route("/backup", GET=self._backup),
        ]
        self._router = Router(self.routes, redirect_slashes=False, default=_no_route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(self._engine, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})
        else:
            await self._router(scope, receive, send)

    # -- the server -------------------------------------------------------------------------

    async def _health(self, request: Request) -> Response:
        self._engine._open_scheduler()
        return _answer({})

    async def _version(self, request: Request) -> Response:
        return _answer(
            {
                "server": "perdure",
                "version": version("perdure"),
                "min_admin_api_version": 2,
                "max_admin_api_version": 4,
                "ingress_endpoint": None,
                "features": {},
            }
        )

    async def _openapi(self, request: Request) -> Response:
        return _answer(served_at(request.scope["root_path"], admin_document()))

    async def _query(self, request: Request) -> Response:
        asked: Query = await _body(request, Query)
        result = await self._engine.query(
            asked.query, timeout_s=asked.timeout_s, rows_max=asked.rows_max
        )
        if "text/csv" in request.headers.get("accept", ""):
            return Response(as_csv(result), media_type="text/csv")
        return Response(as_json(result), media_type="application/json")

    async def _check(self, request: Request) -> Response:
        return _answer(await self._engine.check())

    async def _backup(self, request: Request) -> Response:
        return await download_backup(self._engine)

    # -- services ---------------------------------------------------------------------------

    async def _list_services(self, request: Request) -> Response:
        return _answer({"services": [self._described(name) for name in self._services]})

    async def _service(self, request: Request) -> Response:
        return _answer(self._described(request.path_params["service"]))

    async def _service_openapi(self, request: Request) -> Response:
        name = request.path_params["service"]
        if name not in self._documents:
            self._documents[name] = service_document(registered_versions(self._services, name))
        return _answer(self._documents[name])

    async def _handlers(self, request: Request) -> Response:
        return _answer({"handlers": self._described(request.path_params["service"]).handlers})

    async def _handler(self, request: Request) -> Response:
        service, name = request.path_params["service"], request.path_params["handler"]
        for each in self._described(service).handlers:
            if each.name == name:
                return _answer(each)
        raise NotFound(f"service {service!r} has no handler {name!r}")

    def _described(self, name: str) -> Service:
        """A service; its types are looked into once.

        Raises:
          NotFound: There is none of that name.
        """
        if name not in self._shown:
            self._shown[name] = described_service(registered_versions(self._services, name))
        return self._shown[name]

    # -- keys -------------------------------------------------------------------------------

    async def _replace_state(self, request: Request) -> Response:
        """Restate's form: values are the bytes of their JSON, in a list of numbers."""
        given = await _body(request, _NewState)
        if given.version is not None or given.scope is not None:
            raise InvalidInput("version and scope are not supported: leave them out")
        try:
            state = {name: msgspec.json.decode(bytes(raw)) for name, raw in given.new_state.items()}
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"new_state: a value is no JSON: {error}") from error
        service = request.path_params["service"]
        if registered_service(self._services, service).kind is ServiceKind.SERVICE:
            raise InvalidInput("Cannot modify state for service type Service")
        await self._engine.set_state(service, given.object_key, state)
        return _answer({}, 202)

    async def _state(self, request: Request) -> Response:
        service, key = request.path_params["service"], request.path_params["key"]
        return _answer({"state": await self._engine.state(service, key)})

    async def _set_state(self, request: Request) -> Response:
        service, key = request.path_params["service"], request.path_params["key"]
        await self._engine.set_state(service, key, await _body(request, dict[str, Any]))
        return _answer({})

    async def _workflow(self, request: Request) -> Response:
        name, key = request.path_params["workflow"], request.path_params["key"]
        promises = await self._engine.promises(name, key)
        state = await self._engine.state(name, key)
        scheduler = self._engine._open_scheduler()
        run = scheduler.find_run(name, key)
        summary = None if run is None else summary_of(scheduler, run)
        await scheduler.answers.committed()
        return _answer(
            {"name": name, "key": key, "run": summary, "promises": promises, "state": state}
        )

    # -- invocations ------------------------------------------------------------------------

    async def _invocations(self, request: Request) -> Response:
        check_names(request.query_params, "limit", "cursor")
        return _answer(
            await self._engine.invocations(
                filter_of(request.query_params),
                limit=number_of(request.query_params, "limit", 100),
                cursor=request.query_params.get("cursor"),
            )
        )

    async def _describe(self, request: Request) -> Response:
        description = await self._engine.describe(
            request.path_params["id"],
            journal_from=number_of(request.query_params, "journal_from", 0),
            journal_limit=number_of(request.query_params, "journal_limit", 1_000),
        )
        fields = {
            each.name: getattr(description, each.name) for each in dataclasses.fields(description)
        }
        return _answer({**fields, "timeline": description.timeline()})

    async def _history(self, request: Request) -> Response:
        history = await self._engine.export(request.path_params["id"])
        # Of a long journal the text takes a second, which no other request has to wait.
        text = await asyncio.to_thread(history.dumps)
        return Response(text, media_type="application/json")

    async def _delete(self, request: Request) -> Response:
        """Restate's older form of three of the verbs."""
        mode = request.query_params.get("mode", "cancel").lower()
        if mode not in ("cancel", "kill", "purge"):
            raise InvalidInput(f"mode: expected cancel, kill or purge, got {mode[:60]!r}")
        return await self._do(mode, request.path_params["id"], request)

    async def _act(self, request: Request) -> Response:
        return await self._do(request.path_params["verb"], request.path_params["id"], request)

    async def _do(self, verb: str, invocation_id: str, request: Request) -> Response:
        engine = self._engine
        parse_id(invocation_id)
        match verb:
            case "cancel":
                if not await engine.cancel(invocation_id):
                    return _moot(f"The invocation '{invocation_id}' was already completed.")
                return _answer({}, 202)
            case "kill":
                if not await engine.kill(invocation_id):
                    return _moot(f"The invocation '{invocation_id}' was already completed.")
            case "pause":
                if not await engine.pause(invocation_id):
                    return _moot(f"The invocation '{invocation_id}' is not running.")
                return _answer({}, 202)
            case "resume":
                if not await engine.resume(invocation_id):
                    return _moot(f"The invocation '{invocation_id}' is not paused.")
            case "purge":
                await engine.purge(invocation_id)
            case "restart-as-new":
                return await self._restart(invocation_id, request)
            case _:
                raise _no_verb(verb)
        return _answer({})

    async def _restart(self, invocation_id: str, request: Request) -> Response:
        scheduler = self._engine._open_scheduler()
        record = scheduler.answers.record(parse_id(invocation_id))
        if record is not None and self._is_run(record):
            await scheduler.answers.committed()
            raise TerminalError(
                "Restarting workflows is not supported: purge the invocation, and start the key "
                "again",
                422,
            )
        begun = await self._engine.restart(
            invocation_id, from_entry=number_of(request.query_params, "from", 0)
        )
        return _answer({"new_invocation_id": begun.id})

    def _is_run(self, record: Record) -> bool:
        versions = self._services.get(record.service)
        return (
            versions is not None
            and versions[0][0].kind is ServiceKind.WORKFLOW
            and record.handler == "run"
        )

    def _to_all(self, verb: str) -> Endpoint:
        """The endpoint that does *verb* to all that a filter means."""
        act = getattr(self._engine, "restart" if verb == "restart-as-new" else verb)

        async def endpoint(request: Request) -> Response:
            check_names(request.query_params, "all")
            which = filter_of(request.query_params)
            everything = request.query_params.get("all")
            if everything not in (None, "true"):
                raise InvalidInput(f"all: expected true, got {everything[:60]!r}")
            if which is None and everything is None:
                raise InvalidInput(f"{verb} what? Give a filter, or all=true")
            return _answer({"count": await act(which or InvocationFilter())})

        return endpoint


class _NewState(msgspec.Struct):
    object_key: str
    new_state: dict[str, list[int]]
    version: str | None = None
    scope: str | None = None


class _Route(Route):
    """A path with its endpoints by method; it answers the other methods too.

    Attributes:
      allowed: The methods it has.
    """

    def __init__(self, path: str, **endpoints: Endpoint) -> None:
        super().__init__(path, self._answer)
        self.methods = None
        self.allowed: list[str] = sorted({*endpoints, *(["HEAD"] if "GET" in endpoints else [])})
        self._endpoints = endpoints

    async def _answer(self, request: Request) -> Response:
        endpoint = self._endpoints.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is not None:
            return await _guarded(endpoint, request)
        refusal = _problem(405, "method not allowed")
        refusal.headers["allow"] = ", ".join(self.allowed)
        return refusal


async def _guarded(endpoint: Endpoint, request: Request) -> Response:
    """The answer of *endpoint*; one, whatever it raises."""
    try:
        return await endpoint(request)
    except TerminalError as error:
        kind = type(error)
        return _problem(
            status_of(error),
            error.message,
            None if kind is TerminalError else kind.__name__,
        )
    except StoreError as error:
        logger.warning("refused: %s", error)
        answer = _problem(503, "the engine is closed or has failed", type(error).__name__)
        answer.headers["retry-after"] = str(RETRY_AFTER_S)
        return answer
    except ClientDisconnect:
        return Response(status_code=400)  # to nobody
    except Exception as error:
        logger.error("a request failed", exc_info=error)
        return _problem(500, "internal error")


def _answer(value: Any, status: int = 200) -> Response:
    return Response(_json.encode(value), status, media_type="application/json")


def _problem(status: int, message: str, kind: str | None = None) -> Response:
    answer = _answer({"message": message, "restate_code": None, "code": status}, status)
    if kind is not None:
        answer.headers["x-perdure-error"] = kind
    return answer


def _moot(message: str) -> Response:
    """The answer where there is nothing to do any more."""
    return _problem(409, message, "AlreadyCompleted")


def _no_verb(verb: str) -> NotFound:
    return NotFound(f"there is no {verb[:60]!r}; there are {', '.join(VERBS)}")


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"][:200]
    await _problem(404, f"there is no {path!r} here")(scope, receive, send)


async def _body(request: Request, kind: Any) -> Any:  # Any: whatever msgspec knows
    """The body of a request, JSON of *kind*.

    Raises:
      InvalidInput: It is not.
    """
    content_type = request.headers.get("content-type")
    check_json(None if content_type is None else content_type.encode("latin-1"))
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"body: {error}") from error
