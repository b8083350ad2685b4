"""One attempt of one invocation: the machine of ``_core``, driven by Restate.

Theory of operation. The handler runs on its deterministic loop until it is idle. The commands it
has issued become calls of restate-sdk, in their order, and each outstanding operation has a future
of the SDK's. All of these are waited for at once, always: so they become ready one by one, in the
order of Restate's journal, which is the order in a replay too. One is delivered, and the handler
runs on. Restate's journal is the only one; in each attempt the machine begins anew, live.
"""

from __future__ import annotations

import contextvars
import hashlib
import logging
from types import FrameType
from typing import Any, Final

import restate
from restate.exceptions import RetryableError as SdkRetryableError
from restate.logging import RestateLoggingFilter

from perdure._bodies import JSON, argument_of, body_of
from perdure._bound import Binder, Bound
from perdure._core._entries import Entry
from perdure._core._machine import START, Activation, Machine
from perdure._core._outgoing import Outgoing
from perdure._core._view import LATER, Unanswered
from perdure._runtime._handlers import run_handler, show_payload
from perdure.errors import RetryableError, TerminalError
from perdure.restate._bridge import Bridge
from perdure.restate._contexts import CONTEXTS, RestateRequest
from perdure.restate._steps import BridgeRunner
from perdure.restate._values import to_sdk, wire_bytes
from perdure.serde import describe_failure, encode_failure
from perdure.service import HandlerDefinition, HandlerKind

logger = logging.getLogger("perdure")

# The SDK's own way of telling whether it replays: would this be logged?
_sdk_log_filter: Final[logging.Filter] = RestateLoggingFilter()
_SOME_RECORD: Final = logging.makeLogRecord({})


class _Reads:
    """What a handler reads of its key: Restate has it."""

    def state(self, name: str) -> Unanswered:
        return LATER

    def state_names(self) -> Unanswered:
        return LATER

    def promise(self, name: str) -> Unanswered:
        return LATER

    def existing(self, outgoing: Outgoing, /) -> None:
        """Restate itself finds what stands in the place of a new invocation."""

    def awakeable_waits(self, name: str) -> bool:
        return True  # Restate does not say, and drops what comes too late


class _NoSites:
    """Call sites are not in Restate's journal."""

    def of(self, frame: FrameType) -> int:
        return 0

    def text(self, site: int) -> str:
        return ""


class _Machine(Machine):
    """A machine that is replayed by whoever drives it."""

    is_replayed = False

    @property
    def replaying(self) -> bool:
        return self.is_replayed


class Invocation:
    """One attempt of one invocation.

    Attributes:
      id: As Restate gave it.
      tells_time: The handler has asked for the time: from then on each delivery has its own.
    """

    def __init__(
        self,
        context: restate.Context,
        definition: HandlerDefinition,
        service: Any,
        binder: Binder,
        runner: BridgeRunner,
    ) -> None:
        request = context.request()
        self.id = request.id
        self.tells_time = False
        self._definition = definition
        self._service = service
        self._binder = binder
        self._context = context
        self._request = RestateRequest(request.headers, request.idempotency_key)
        self._machine = _Machine(
            self._begin,
            reads=_Reads(),
            sites=_NoSites(),
            context=contextvars.copy_context(),
            report=self._report,
            show=show_payload,
        )
        self._argument: bytes | None = None
        self._bridge = Bridge(context, self._machine, self.id, runner)

    def make_awakeable(self, index: int) -> str:
        """The id of the awakeable that the command at *index* has made."""
        return self._bridge.make_awakeable(index)

    async def run(self, body: bytes) -> bytes:
        """Run the handler to its end: its result as Restate hands it on.

        Raises:
          restate.TerminalError: The handler has failed for good.
          BaseException: The attempt has failed, or is suspended.
        """
        try:
            self._argument = self._encoded(body)
            payload, failed = await self._run()
            if not failed:
                return self._result(payload)
            raise to_sdk(payload)
        except TerminalError as failure:
            raise to_sdk(encode_failure(failure)) from failure
        except RetryableError as failure:
            text = describe_failure(failure)
            raise SdkRetryableError(text, retry_after=failure.retry_after) from failure
        finally:
            for complaint in self._machine.close():
                logger.warning("%s could not be closed cleanly: %s", self.id, complaint)

    async def _run(self) -> tuple[bytes, bool]:
        machine, bridge = self._machine, self._bridge
        activation = self._activate(START, await bridge.time_ms())
        while True:
            await bridge.issue(activation)
            if machine.asked is not None:
                activation = machine.answer(await bridge.answer(machine.asked))
            elif activation.completed:
                output = activation.entries[-1]
                assert output.payload is not None
                return output.payload, bool(output.flags)
            else:
                notification = await bridge.notification()
                now_ms = await bridge.time_ms() if self.tells_time else machine.time_ms
                activation = self._activate(notification, now_ms)

    def _activate(self, notification: Entry, now_ms: int) -> Activation:
        self._machine.is_replayed = not _sdk_log_filter.filter(_SOME_RECORD)
        return self._machine.activate(notification, now_ms)

    def _begin(self, machine: Machine) -> Any:
        definition = self._definition
        key = "" if definition.kind is HandlerKind.SERVICE else self._key()
        held = (definition.service, key) if definition.kind is HandlerKind.EXCLUSIVE else None
        context = CONTEXTS[definition.kind](
            machine, _raw_id(self.id), key, self._request, self._bind, held
        )
        context._service = type(self._service)
        context._invocation = self
        return run_handler(definition, self._service, context, self._argument, machine)

    def _bind(self, handler: Any, arg: Any, key: str | None) -> Bound:
        bound = self._binder(handler, arg, key)
        wire_bytes(bound.payload, f"argument of {bound.service}.{bound.handler}")  # may refuse it
        return bound

    def _key(self) -> str:
        assert isinstance(self._context, restate.ObjectContext)
        return self._context.key()

    def _encoded(self, body: bytes) -> bytes | None:
        """The argument as an embedded journal would have it; None: it is left out."""
        definition = self._definition
        place = f"argument of {definition.service}.{definition.name}"
        if not definition.takes_argument:
            return None
        if not body and definition.argument_has_default:
            return None
        value = argument_of(definition, body, JSON)
        return definition.argument_serde.encode(value, place)

    def _result(self, payload: bytes) -> bytes:
        serde = self._definition.result_serde
        place = f"result of {self._definition.service}.{self._definition.name}"
        return body_of(serde.decode(payload, place), serde).content

    def _report(self, problem: dict[str, Any]) -> None:
        logger.error("%s: %s", self.id, problem.get("message"), exc_info=problem.get("exception"))


def _raw_id(invocation_id: str) -> bytes:
    """16 bytes that stand for an id of Restate's, where those of what it begins are made."""
    return hashlib.blake2b(invocation_id.encode(), digest_size=16).digest()
