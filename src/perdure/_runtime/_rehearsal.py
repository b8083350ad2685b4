"""The replay of a journal on a machine of its own, with every effect refused.

Theory of operation. Replay has no effects: commands are compared with the recorded ones, answers
come from the journal, and nothing is told to anybody. So a journal can be replayed beside the
instance that may be in memory, and where there is no store at all. Whoever drives it stops where
the journal ends, and closes the coroutine there.
"""

from __future__ import annotations

import contextvars
import logging
import pprint
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from perdure._core._entries import Entry
from perdure._core._frames import describe_frame
from perdure._core._loop import Stage
from perdure._core._machine import Machine
from perdure._core._outgoing import Outgoing
from perdure._core._replay import WENT_IDLE
from perdure._runtime._handlers import begin
from perdure._runtime._instance import LOADING, Instance
from perdure._runtime._layout import Record
from perdure._runtime._registry import Registry
from perdure._runtime._shown import SiteTexts
from perdure.errors import InternalError, NondeterminismError
from perdure.serde import UNTYPED, decode_failure, serde_for

if TYPE_CHECKING:
    from perdure._runtime._guard import Guard

logger = logging.getLogger("perdure")

_WIDTH = 88
"""Of a value, before it is broken into lines."""


class Rehearsal:
    """One replay, fed an activation at a time.

    Args:
      record: What was asked, of a handler that *registry* has.
      stage: Left by whoever drives this, before anything runs that asks for the host's loop.
      sites: Call sites of the journal.
      guard: Of the engine that would run it, if that has one.

    Attributes:
      returned: What the handler has returned, payload and whether it failed; None until then.
    """

    def __init__(
        self,
        invocation_id: bytes,
        record: Record,
        *,
        registry: Registry,
        stage: Stage,
        sites: SiteTexts,
        context: contextvars.Context,
        guard: Guard | None = None,
    ) -> None:
        definition, service = registry.handler_and_instance(record)
        self._instance = Instance(invocation_id, record, definition, service, LOADING)
        self._registry = registry
        self._stage = stage
        make = Machine if guard is None else guard.machine_of(self._instance)
        self._machine = self._instance.machine = make(
            self._run,
            reads=_NoReads(),
            sites=_LastSite(sites),
            context=context.copy(),
            report=self._report,
            show=show_value,
            stage=stage,
        )
        self.returned: tuple[bytes, bool] | None = None

    async def _run(self, machine: Machine) -> tuple[bytes, bool]:
        self.returned = await begin(self._instance, self._registry.bind, machine)
        return self.returned

    def feed(self, entries: Sequence[Entry]) -> BaseException | None:
        """Replay an activation; what that raised, be it a divergence, or None.

        Raises:
          KeyboardInterrupt, SystemExit: As the handler does: they are about the program.
        """
        try:
            self._machine.replay(entries)
        except (KeyboardInterrupt, SystemExit):
            raise
        except NondeterminismError as divergence:
            self._explain(divergence)
            return divergence
        except BaseException as failure:
            return failure
        return None

    def _explain(self, divergence: NondeterminismError) -> None:
        divergence.invocation_id = self._instance.text_id
        if self.returned is not None:
            divergence.actual += f" ({show_output(*self.returned)})"
        elif divergence.actual == WENT_IDLE:
            divergence.actual_site = self._machine.waiting_line()
        # They lead to the handler's frames.
        divergence.__traceback__ = divergence.__context__ = None

    def close(self) -> None:
        """Close the coroutine where it waits, and leave the stage."""
        self._stage.leave()  # what logs may ask for the host's loop
        for complaint in self._machine.close():
            logger.warning(
                "%s, only replayed, could not be closed cleanly: %s",
                self._instance.text_id,
                complaint,
            )

    def _report(self, problem: dict[str, Any]) -> None:
        logger.error(
            "%s, only replayed: %s",
            self._instance.text_id,
            problem.get("message"),
            exc_info=problem.get("exception"),
        )


class _LastSite:
    """Call sites of a replay: those recorded as they are, of the code the last asked for.

    A report shows the command in whose place the code did something else, and that is the last
    one. So no site of the code gets a number, which would be written.
    """

    _LAST = -1

    def __init__(self, recorded: SiteTexts) -> None:
        self._recorded = recorded
        self._frame_text = ""

    def of(self, frame: FrameType) -> int:
        self._frame_text = describe_frame(frame)
        return self._LAST

    def text(self, site: int) -> str:
        return self._frame_text if site == self._LAST else self._recorded.text(site)


class _NoReads:
    """The key of a replay: its answers are in the journal."""

    def state(self, name: str) -> NoReturn:
        raise InternalError("a replay has read what its journal answers")

    def state_names(self) -> NoReturn:
        self.state("")

    def promise(self, name: str) -> NoReturn:
        self.state("")

    def existing(self, outgoing: Outgoing, /) -> NoReturn:
        self.state("")

    def awakeable_waits(self, name: str) -> NoReturn:
        self.state("")


def show_output(payload: bytes, failed: bool) -> str:
    """What a handler has returned, for people."""
    if failed:
        failure = decode_failure(payload)
        return f"failed: {failure} (code {failure.code})"
    return f"of {show_value(payload)}"


def show_value(payload: bytes) -> str:
    """A payload for people, laid out so that its parts can be compared line by line."""
    try:
        value = serde_for(UNTYPED).decode(payload, "payload")
        return pprint.pformat(value, width=_WIDTH, sort_dicts=False)
    except Exception:  # what it is not: a value of builtins
        return payload.hex()
