"""Today's code against recorded journals, without any effect."""

from __future__ import annotations

import bdb
import contextvars
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from perdure._binding import register
from perdure._core._entries import Kind
from perdure._core._loop import Stage
from perdure._history import History, RecordedInvocation
from perdure._ids import parse_id
from perdure._runtime._check import CheckedInvocation, Verdict
from perdure._runtime._registry import Registry
from perdure._runtime._rehearsal import Rehearsal
from perdure.errors import NondeterminismError
from perdure.retry import DEFAULT_RETRY
from perdure.serde import Serde
from perdure.testing._telling import failure_told, result_told, sides_told

# Any, in this module: services are instances of whatever classes.

PROBLEMS_SHOWN = 20
"""Problems, and changed results, that the text of a report shows."""


@dataclass(frozen=True, slots=True)
class ReplayedInvocation(CheckedInvocation):
    """One invocation, as a replay found it.

    Attributes:
      result_change: Of one that is safe and had completed: how today's result differs from the
        recorded one; empty where it does not.
    """

    result_change: str = ""


@dataclass(slots=True)
class ReplayReport:
    """What a replay found; ``str(report)`` is for people.

    Attributes:
      invocations: All that the history has, in its order.
    """

    invocations: list[ReplayedInvocation] = field(default_factory=list)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many invocations have each verdict."""
        counts = dict.fromkeys(Verdict, 0)
        for each in self.invocations:
            counts[each.verdict] += 1
        return counts

    @property
    def ok(self) -> bool:
        """Whether none diverges and none fails, and something was covered.

        A result that changed is none of these: nothing that is under way goes wrong by it.
        """
        return not self.problems and not self._covers_nothing

    @property
    def problems(self) -> list[ReplayedInvocation]:
        """Those that diverge or fail."""
        bad = (Verdict.DIVERGES, Verdict.FAILS)
        return [each for each in self.invocations if each.verdict in bad]

    @property
    def _covers_nothing(self) -> bool:
        # Renamed services would let a check in CI succeed for ever.
        return bool(self.invocations) and all(
            each.verdict is Verdict.NOT_COVERED for each in self.invocations
        )

    def raise_for_divergence(self) -> None:
        """Raise ``AssertionError`` with the text of the report, unless it is :attr:`ok`."""
        if not self.ok:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        counts = ", ".join(f"{n:,} {verdict}" for verdict, n in self.counts.items() if n)
        total = len(self.invocations)
        lines = [f"{total:,} recorded invocations" + (f": {counts}" if counts else "")]
        if self._covers_nothing:
            lines.append("none of them is of the services given: are these the right ones?")
        reasons: dict[str, int] = {}
        for each in self.invocations:
            if each.verdict is Verdict.NOT_COVERED:
                reasons[each.reason] = reasons.get(each.reason, 0) + 1
        lines += [f"not covered, {n:,}: {reason}" for reason, n in reasons.items()]
        lines += _first(self.problems, str, "that diverge or fail")
        changed = [each for each in self.invocations if each.result_change]
        lines += _first(
            changed,
            lambda each: f"{each}, with another result\n{each.result_change}",
            "with another result",
        )
        return "\n".join(lines)


def _first(items: list[ReplayedInvocation], told: Any, what: str) -> list[str]:
    lines = [told(each) for each in items[:PROBLEMS_SHOWN]]
    further = len(items) - PROBLEMS_SHOWN
    return [*lines, f"and {further:,} further {what}"] if further > 0 else lines


def replay(history: History, services: Iterable[Any]) -> ReplayReport:
    """Run today's code over recorded journals, up to where each ends, for nothing.

    No step runs, nothing is written, called or sent, and there is no store: handlers' own code
    runs, as in every replay, and a debugger stops in it. It works inside a running event loop as
    well as outside of one. Of an invocation that had completed, the result is compared too.

    Args:
      history: Of ``engine.export``, ``perdure export`` or :meth:`History.load`.
      services: Instances, as an engine takes them, those that are called included.

    Raises:
      DefinitionError: A service can not be served, or two have one name and one version.
    """
    registry = Registry(register(services), DEFAULT_RETRY)
    context = contextvars.copy_context()
    return ReplayReport(
        [_judged(each, history.sources, registry, context) for each in history.invocations]
    )


def _judged(
    recorded: RecordedInvocation,
    sources: dict[str, str],
    registry: Registry,
    context: contextvars.Context,
) -> ReplayedInvocation:
    record = recorded.record()
    verdict, divergence, change = Verdict.NOT_COVERED, None, ""
    reason = registry.why_blocked(record)
    if not reason and not recorded.journal:
        reason = "it has no journal: nothing of it had been done"
    if not reason:
        verdict = Verdict.SAFE
        rehearsal = Rehearsal(
            parse_id(recorded.id),
            record,
            registry=registry,
            stage=Stage(),
            sites=recorded,
            context=context,
        )
        failure = _fed(recorded, rehearsal)
        if isinstance(failure, NondeterminismError):
            verdict, divergence = Verdict.DIVERGES, failure
            reason = sides_told(failure, recorded, sources)
        elif failure is not None:
            verdict, reason = Verdict.FAILS, failure_told(failure)
        else:
            result_serde = registry.handler(record).result_serde
            change = _result_change(recorded, rehearsal.returned, result_serde)
    return ReplayedInvocation(
        id=recorded.id,
        service=recorded.service,
        key=recorded.key,
        handler=recorded.handler,
        version=recorded.version,
        verdict=verdict,
        reason=reason,
        divergence=divergence,
        result_change=change,
    )


def _fed(recorded: RecordedInvocation, rehearsal: Rehearsal) -> BaseException | None:
    """Replay a whole journal; what that raised."""
    try:
        for activation in recorded.journal:
            failure = rehearsal.feed(activation)
            if isinstance(failure, bdb.BdbQuit):
                raise failure  # `q` in a debugger ends the replay, and not the handler alone
            if failure is not None:
                return failure
    finally:
        rehearsal.close()
    return None


def _result_change(
    recorded: RecordedInvocation, returned: tuple[bytes, bool] | None, serde: Serde[Any]
) -> str:
    """How the result differs from the recorded one; empty where it does not."""
    last = recorded.journal[-1][-1]
    if returned is None or last.kind != Kind.OUTPUT or last.payload is None:
        return ""
    payload, failed = last.payload, bool(last.flags)
    if returned == (payload, failed):
        return ""
    if not failed and not returned[1]:
        try:
            # As replay compares payloads: what today's type makes of the recorded value counts.
            if serde.encode(serde.decode(payload, "result"), "result") == returned[0]:
                return ""
        except Exception:  # it does not convert any more, which is what the report shows
            pass
    return result_told((payload, failed), returned)
