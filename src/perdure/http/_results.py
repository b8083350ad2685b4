"""Results of invocations as answers of the ingress: waited for, looked up, found by a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from perdure._binding import Services, registered_versions
from perdure._bodies import body_of
from perdure._ids import InvocationId, format_id, parse_id
from perdure._runtime._layout import Output, Record, idempotency_target, run_target
from perdure._runtime._scheduler import Scheduler
from perdure.errors import InvalidInput, NotFound
from perdure.http._replies import (
    Reply,
    Source,
    expiry_header,
    failure,
    id_header,
    json_body,
    problem,
    reply,
)
from perdure.http._requests import Request
from perdure.serde import UNTYPED, Serde, decode_failure, serde_for
from perdure.service import ServiceKind

Verb = Literal["attach", "output", "lookup"]

NOT_FOUND: Final = "invocation not found"
NOT_READY: Final = "the invocation exists but has not completed yet"


class WorkflowTarget(msgspec.Struct, tag="workflow", tag_field="target"):
    workflow_name: str = msgspec.field(name="workflowName")
    workflow_key: str = msgspec.field(name="workflowKey")
    scope: str | None = None


class IdempotentTarget(msgspec.Struct, tag="idempotentInvocation", tag_field="target"):
    service: str
    handler: str
    idempotency_key: str = msgspec.field(name="idempotencyKey")
    key: str | None = None
    scope: str | None = None


class InvocationTarget(msgspec.Struct, tag="invocation", tag_field="target"):
    invocation_id: str = msgspec.field(name="invocationId")


Target = WorkflowTarget | IdempotentTarget | InvocationTarget
_TARGETS: Final[Serde[Any]] = serde_for(Target)


class Results:
    """Answers with results; *scheduler* gives the one of the open engine."""

    def __init__(self, services: Services, scheduler: Callable[[], Scheduler]) -> None:
        self._services = services
        self._scheduler = scheduler

    # -- which invocation -------------------------------------------------------------------

    def by_id(self, text: str) -> InvocationId:
        """Raises:
        InvalidInput: It is no id.
        """
        try:
            return parse_id(text)
        except InvalidInput as error:
            raise InvalidInput(f"bad invocation id '{text[:80]}': {error}") from error

    def by_workflow(self, name: str, key: str) -> InvocationId | None:
        """The ``run`` of a workflow's key.

        Raises:
          NotFound: There is no such workflow here.
        """
        definition = registered_versions(self._services, name)[0][0]
        if definition.kind is not ServiceKind.WORKFLOW:
            raise InvalidInput(f"{name} is no workflow")
        return self._find(run_target(name, key))

    def by_idempotency_key(
        self, service: str, key: str | None, handler: str, idempotency_key: str
    ) -> InvocationId | None:
        """Raises:
        InvalidInput: The service has no keys, or has keys and this is none.
        NotFound: There is no such service here.
        """
        keyed = registered_versions(self._services, service)[0][0].kind is not ServiceKind.SERVICE
        if keyed is (key is None):
            raise InvalidInput(f"bad path: {service} has {'keys' if keyed else 'no keys'}")
        return self._find(idempotency_target(service, key or "", handler, idempotency_key))

    async def by_body(self, request: Request) -> InvocationId | None:
        """What the body of a request names.

        Raises:
          InvalidInput: It names nothing.
        """
        body = await request.body()
        target = _TARGETS.from_json(body, "target")
        if getattr(target, "scope", None) is not None:
            raise InvalidInput("there are no scopes here: leave scope out")
        if isinstance(target, InvocationTarget):
            return self.by_id(target.invocation_id)
        if isinstance(target, WorkflowTarget):
            return self.by_workflow(target.workflow_name, target.workflow_key)
        return self.by_idempotency_key(
            target.service, target.key, target.handler, target.idempotency_key
        )

    def _find(self, target: bytes) -> InvocationId | None:
        found = self._scheduler().find(target)
        return None if found is None else InvocationId(found)

    # -- answers ----------------------------------------------------------------------------

    async def answer(self, request: Request, verb: Verb, found: InvocationId | None) -> Reply:
        """The answer to ``attach``, ``output`` or ``lookup`` of the invocation *found*."""
        scheduler = self._scheduler()
        if found is None or not self._is_known(found):
            await scheduler.answers.committed()
            return _not_found(verb)
        if verb == "attach":
            return await self.attached(request, found, "invocation")
        output = _output(scheduler, found)
        await scheduler.answers.committed()
        if verb == "lookup":
            return reply(200, json_body({"invocationId": format_id(found)}))
        if output is None:
            return problem(470, NOT_READY, "ingress", kind="NotReady")
        return self.completed(found, output, self.serde_of(found))

    async def attached(
        self, request: Request, invocation_id: InvocationId, source: Source
    ) -> Reply:
        """The result of an invocation that stands, once there is one."""
        scheduler = self._scheduler()
        serde = self.serde_of(invocation_id)
        output = _output(scheduler, invocation_id)
        if output is not None:
            await scheduler.answers.committed()
            return self.completed(invocation_id, output, serde)
        request.check_room()
        output = await request.unless_gone(scheduler.answers.result(invocation_id))
        return self.answered(invocation_id, output, serde)

    def completed(self, invocation_id: InvocationId, output: Output, serde: Serde[Any]) -> Reply:
        """The answer from a result that was there already: it says how long it stays."""
        record = self._scheduler().answers.record(invocation_id)
        if record is None or not record.output_ms:
            return self.answered(invocation_id, output, serde)
        expiry = expiry_header(output.completed_ms, record.output_ms)
        return self.answered(invocation_id, output, serde, expiry)

    def answered(
        self,
        invocation_id: InvocationId,
        output: Output,
        serde: Serde[Any],
        *headers: tuple[bytes, bytes],
    ) -> Reply:
        """The answer that *output* is."""
        identity = id_header(format_id(invocation_id))
        if output.failed:
            return failure(decode_failure(output.payload), "invocation", identity, *headers)
        try:
            body = body_of(serde.decode(output.payload, "result"), serde)
        except InvalidInput as error:  # kept by other code, or without a form in JSON
            return problem(500, error.message, "ingress", identity, *headers)
        return reply(200, body, identity, *headers)

    # -- what is known ----------------------------------------------------------------------

    def record_of(self, invocation_id: InvocationId) -> Record | None:
        """What was asked, of one in memory too whose rows are not written."""
        scheduler = self._scheduler()
        resident = scheduler.residents.by_id.get(invocation_id)
        return scheduler.answers.record(invocation_id) if resident is None else resident.record

    def serde_of(self, invocation_id: InvocationId) -> Serde[Any]:
        """Of its result: as its handler declares it, without types where that is not here."""
        record = self.record_of(invocation_id)
        registry = self._scheduler().registry
        if record is None or not registry.is_registered(record):
            return serde_for(UNTYPED)
        return registry.handler(record).result_serde

    def _is_known(self, invocation_id: InvocationId) -> bool:
        scheduler = self._scheduler()
        try:
            scheduler.output(invocation_id)
        except NotFound:
            return False
        return True


def _output(scheduler: Scheduler, invocation_id: InvocationId) -> Output | None:
    try:
        return scheduler.output(invocation_id)
    except NotFound as error:
        raise NotFound(NOT_FOUND) from error


def _not_found(verb: Verb) -> Reply:
    if verb == "attach":
        return problem(404, "not found", "invocation", kind="NotFound")
    return problem(404, NOT_FOUND, "ingress", kind="NotFound")
