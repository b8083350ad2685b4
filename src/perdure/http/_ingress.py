"""The ingress: invoking handlers over HTTP, on the paths of Restate's, with its answers.

Theory of operation. A request is routed by the segments of its path, as handlers' names are not
known when the app is made. What is invoked is begun through the same admission as ``engine.call``;
the answer waits, like all answers, for the commit of what it rests on. A client that goes away
ends its wait and nothing else.
"""

from __future__ import annotations

from typing import Any

from perdure._admission import Ask, begin_call, begin_send
from perdure._binding import bind_to, newest
from perdure._bodies import argument_of
from perdure._ids import format_id
from perdure._runtime._scheduler import Scheduler
from perdure.engine import Engine
from perdure.errors import DefinitionError, InvalidInput, TerminalError
from perdure.http._completions import Completions
from perdure.http._durations import parse_duration
from perdure.http._lifespan import lifespan
from perdure.http._openapi import served_at
from perdure.http._openapi_ingress import ingress_document
from perdure.http._paths import (
    RESERVED,
    Target,
    explicit_target,
    no_such_path,
    segments_of,
    target_of,
)
from perdure.http._replies import (
    Overloaded,
    Reply,
    failure,
    id_header,
    json_body,
    nanoseconds,
    problem,
    reply,
    unexpected,
)
from perdure.http._requests import ClientGone, Receive, Request, Scope, Send, send_reply
from perdure.http._results import Results
from perdure.service import HandlerDefinition, HandlerKind, ServiceKind


class Ingress:
    """ASGI app of one engine."""

    def __init__(self, engine: Engine) -> None:
        for name in RESERVED:
            if name in engine._services:
                raise DefinitionError(
                    f"service {name!r}: paths of the ingress begin so; give it another name="
                )
        self._engine = engine
        self._services = engine._services
        self._results = Results(engine._services, engine._open_scheduler)
        self._completions = Completions(engine)
        self._document: dict[str, Any] | None = None  # made when it is first asked for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(self._engine, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003})
        else:
            try:
                answer = await self._answer(Request.of(scope, receive))
            except ClientGone:
                return
            await send_reply(send, answer)

    async def _answer(self, request: Request) -> Reply:
        try:
            segments = segments_of(request.scope)
            if segments[0] == "restate":
                return await self._restate(request, segments)
            if segments[0] == "perdure":
                return await self._extra(request, segments)
            return await self._invoke(request, target_of(segments))
        except TerminalError as error:
            return failure(error, "ingress")
        except ClientGone:
            raise
        except Exception as error:
            return unexpected(error)

    # -- routes -----------------------------------------------------------------------------

    async def _restate(self, request: Request, segments: list[str]) -> Reply:
        match segments[1:]:
            case ["call", *rest]:
                return await self._invoke(request, explicit_target(rest, one_way=False))
            case ["send", *rest]:
                return await self._invoke(request, explicit_target(rest, one_way=True))
            case ["scope", *_]:
                raise InvalidInput("there are no scopes here: leave the scope out of the path")
            case ["health"]:
                return _allowed(request, "GET") or self._health()
            case ["awakeables" | "a", awakeable_id, "resolve" | "reject" as verb]:
                return _allowed(request, "POST") or await self._completions.awakeable(
                    request, awakeable_id, verb
                )
            case ["attach" | "output" | "lookup" as verb]:
                return _allowed(request, "POST") or await self._results.answer(
                    request, verb, await self._results.by_body(request)
                )
        return await self._results_by_path(request, segments)

    async def _results_by_path(self, request: Request, segments: list[str]) -> Reply:
        results = self._results
        refused = _allowed(request, "GET")
        match segments[1:]:
            case ["attach" | "output" as verb, invocation_id] | [
                "invocation",
                invocation_id,
                "attach" | "output" as verb,
            ]:
                return refused or await results.answer(request, verb, results.by_id(invocation_id))
            case ["workflow", name, key, "attach" | "output" as verb]:
                self._check_service(name)
                return refused or await results.answer(
                    request, verb, results.by_workflow(name, key)
                )
            case ["invocation", service, handler, idempotency_key, "attach" | "output" as verb]:
                self._check_service(service)
                if refused is not None:
                    return refused
                found = results.by_idempotency_key(service, None, handler, idempotency_key)
                return await results.answer(request, verb, found)
            case [
                "invocation",
                service,
                key,
                handler,
                idempotency_key,
                "attach" | "output" as verb,
            ]:
                self._check_service(service)
                if refused is not None:
                    return refused
                found = results.by_idempotency_key(service, key, handler, idempotency_key)
                return await results.answer(request, verb, found)
        raise no_such_path(segments)

    async def _extra(self, request: Request, segments: list[str]) -> Reply:
        """What Restate's ingress does not have."""
        match segments[1:]:
            case ["openapi"]:
                return _allowed(request, "GET") or self._openapi(request)
            case ["submit", workflow, key, "run"]:
                target = Target(workflow, key, "run", False)
                return _allowed(request, "POST") or await self._invoke(
                    request, target, attaching=True
                )
            case ["promises", workflow, key, name, "resolve" | "reject" as verb]:
                self._check_service(workflow)
                return _allowed(request, "POST") or await self._completions.promise(
                    request, workflow, key, name, verb
                )
            case ["signals", invocation_id, name]:
                return _allowed(request, "POST") or await self._completions.signal(
                    request, invocation_id, name
                )
        raise no_such_path(segments)

    def _health(self) -> Reply:
        self._engine._open_scheduler()
        return reply(200, json_body({"server": "perdure", "services": sorted(self._services)}))

    def _openapi(self, request: Request) -> Reply:
        if self._document is None:
            self._document = ingress_document(self._services)
        return reply(200, json_body(served_at(request.scope.get("root_path", ""), self._document)))

    # -- invoking ---------------------------------------------------------------------------

    async def _invoke(self, request: Request, target: Target, *, attaching: bool = False) -> Reply:
        """Call or send; *attaching*: to what was started already, where it was."""
        definition = self._handler(target)
        refused = _allowed(request, "POST", "GET")
        if refused is not None:
            return refused
        query = request.query()
        delay = None
        if "delay" in query:
            if not target.one_way:
                raise InvalidInput(
                    "cannot use the delay query parameter with calls. The delay is supported only "
                    "with sends"
                )
            delay = parse_duration(query["delay"], "bad delay query parameter")
        body = await request.body()
        argument = argument_of(definition, body, request.content_type)
        kind = self._services[target.service][0][0].kind
        key, payload = bind_to(definition, kind, argument, target.key)
        ask = Ask.checked(
            definition, key, payload, request.handed_on(), self._key_of(request, definition), delay
        )
        scheduler = self._engine._open_scheduler()
        if scheduler.store.congested():
            raise Overloaded("the disk is behind: nothing was accepted, try again")
        if target.one_way:
            return await self._send(scheduler, ask)
        return await self._call(request, scheduler, ask, attaching)

    async def _call(
        self, request: Request, scheduler: Scheduler, ask: Ask, attaching: bool
    ) -> Reply:
        request.check_room()
        called = begin_call(scheduler, ask)
        if called.output is not None:
            output = await request.unless_gone(called.output)
            return self._results.answered(called.id, output, ask.definition.result_serde)
        if ask.definition.kind is HandlerKind.RUN and not attaching:
            await scheduler.answers.committed()
            return problem(
                409,
                "the workflow method was already invoked",
                "invocation",
                id_header(format_id(called.id)),
                kind="Conflict",
            )
        return await self._results.attached(request, called.id, "ingress")

    async def _send(self, scheduler: Scheduler, ask: Ask) -> Reply:
        sent = begin_send(scheduler, ask)
        if sent.durable is not None:
            await sent.durable
        else:
            await scheduler.answers.committed()
        identity = format_id(sent.id)
        content: dict[str, Any] = {"invocationId": identity, "status": sent.accepted.value}
        record = self._results.record_of(sent.id)
        due_ms = 0 if record is None else record.due_ms
        if due_ms:
            content["executionTime"] = nanoseconds(due_ms)
        return reply(202, json_body(content), id_header(identity))

    def _key_of(self, request: Request, definition: HandlerDefinition) -> str | None:
        raw = request.headers.get(b"idempotency-key")
        if raw is None:
            return None
        if definition.kind is HandlerKind.RUN:
            raise InvalidInput(
                "cannot use the idempotency key with workflow handlers. The handler invocation "
                "will already be idempotent by the workflow key itself."
            )
        try:
            return raw.decode()
        except UnicodeDecodeError:  # a browser's client sends one byte a character
            return raw.decode("latin-1")

    # -- what there is ----------------------------------------------------------------------

    def _handler(self, target: Target) -> HandlerDefinition:
        """The handler that a path means, if it may be called from outside."""
        self._check_service(target.service)
        versions = self._services[target.service]
        keyed = versions[0][0].kind is not ServiceKind.SERVICE
        if keyed is (target.key is None):
            keys, shape = (
                ("keys", "/:object-name/:object-key/:handler")
                if keyed
                else ("no keys", "/:service-name/:handler")
            )
            raise InvalidInput(f"bad path: {target.service} has {keys}, expected {shape}")
        definition = newest(versions, target.handler)
        if definition is None:
            raise _not_found(
                f"the service '{target.service}' exists, but the handler '{target.handler}' was "
                "not found, check that the handler exists in the latest registered service version."
            )
        if definition.private:
            raise InvalidInput("the invoked service is not public")
        return definition

    def _check_service(self, name: str) -> None:
        if name not in self._services:
            raise _not_found(
                f"service '{name}' not found, make sure to register the service before calling it."
            )


def _not_found(text: str) -> TerminalError:
    return TerminalError(text, 404)


def _allowed(request: Request, *methods: str) -> Reply | None:
    """The refusal of a method that is none of these."""
    if request.scope["method"] in methods:
        return None
    return problem(405, "method not allowed", "ingress", (b"allow", ", ".join(methods).encode()))
