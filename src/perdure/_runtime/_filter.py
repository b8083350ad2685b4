"""Which invocations are meant: the filter of listings."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from perdure._limits import check_key
from perdure._runtime._layout import Record
from perdure._runtime._status import Status
from perdure._runtime._times import EPOCH
from perdure.errors import InvalidInput
from perdure.service import resolve, service_name

_MICROSECOND = timedelta(microseconds=1)
_MS_END = 1 << 48  # of an id's milliseconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter, checked: None and an empty set stand for "any"."""

    service: str | None
    handler: str | None
    key: str | None
    statuses: frozenset[Status]
    age_ms: int | None
    before_ms: int
    after_ms: int

    def matches(self, record: Record) -> bool:
        """Whether what was asked is what is wanted."""
        return (
            (self.service is None or record.service == self.service)
            and (self.handler is None or record.handler == self.handler)
            and (self.key is None or record.key == self.key)
        )

    def span(self, now_ms: int) -> tuple[bytes, bytes]:
        """The ids in question: from the first one up to, without, the second."""
        before_ms = self.before_ms
        if self.age_ms is not None:
            before_ms = min(before_ms, now_ms - self.age_ms + 1)
        return _first_id(self.after_ms), _first_id(before_ms)

    def digest(self) -> bytes:
        """4 bytes that tell filters apart."""
        parts = (self.service, self.handler, self.key, sorted(self.statuses))
        ages = (self.age_ms, self.before_ms, self.after_ms)
        return hashlib.blake2b(repr((parts, ages)).encode(), digest_size=4).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationFilter:
    """Which invocations are meant: those for which all that is given is true.

    Times are those of the ids: when the invocation was accepted.

    Attributes:
      service: The class, or the service's name.
      handler: ``Class.method``, ``"Service.handler"``, or a handler's name in any service.
      key: Of the workflow or object.
      status: One, or several of which each will do.
      older_than: Accepted at least so long ago: a timedelta or seconds.
      created_before: Accepted before this time; it has a time zone.
      created_after: Accepted at this time or later; it has a time zone.

    Raises:
      InvalidInput: One of them can match nothing, or is of a wrong type.
    """

    service: type | str | None = None
    # Any: a handler is any callable.
    handler: Callable[..., Any] | str | None = None
    key: str | None = None
    status: Status | str | Iterable[Status | str] | None = None
    older_than: timedelta | float | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None
    _wanted: Wanted = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        service = None if self.service is None else service_name(self.service)
        handler = self.handler
        if isinstance(handler, str) and handler and "." not in handler:
            name: str | None = handler
        elif handler is None:
            name = None
        else:
            of, name = resolve(handler)
            if service not in (None, of):
                raise InvalidInput(f"filter: {of}.{name} is no handler of service {service!r}")
            service = of
        if self.key is not None:
            check_key(self.key, "filter: key")
        wanted = Wanted(
            service=service,
            handler=name,
            key=self.key,
            statuses=_statuses(self.status),
            age_ms=_age_ms(self.older_than),
            before_ms=_MS_END
            if self.created_before is None
            else _time_ms(self.created_before, "created_before"),
            after_ms=0
            if self.created_after is None
            else _time_ms(self.created_after, "created_after"),
        )
        object.__setattr__(self, "_wanted", wanted)

    def wanted_before(self, now_ms: int, statuses: Iterable[Status]) -> Wanted:
        """Of those accepted up to now; at one of *statuses*, unless the filter says otherwise."""
        return dataclasses.replace(
            self._wanted,
            statuses=self._wanted.statuses or frozenset(statuses),
            before_ms=min(self._wanted.before_ms, now_ms + 1),
        )

    @property
    def wanted(self) -> Wanted:
        """The filter, checked."""
        return self._wanted


def _statuses(given: Any) -> frozenset[Status]:  # Any: what a caller gave.
    if given is None:
        return frozenset()
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    statuses: set[Status] = set()
    for each in given:
        try:
            statuses.add(Status(each))
        except ValueError as error:
            raise InvalidInput(
                f"filter: {each!r:.100} is no status; there are {', '.join(Status)}"
            ) from error
    if not statuses:
        raise InvalidInput("filter: status is empty, which nothing matches; leave it out for any")
    return frozenset(statuses)


def _age_ms(given: Any) -> int | None:  # Any: what a caller gave.
    if given is None:
        return None
    age = given
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        try:
            age = timedelta(seconds=given)
        except OverflowError as error:
            raise InvalidInput(f"filter: older_than={given!r} is too long") from error
    if not isinstance(age, timedelta) or age < timedelta(0):
        raise InvalidInput(
            f"filter: older_than must be a timedelta or seconds, 0 or more, not {given!r:.100}"
        )
    return -(-(age // _MICROSECOND) // 1000)


def _time_ms(given: Any, name: str) -> int:  # Any: what a caller gave.
    """The first whole millisecond not before *given*."""
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise InvalidInput(
            f"filter: {name} must be a datetime with a time zone, such as datetime.now(UTC), not "
            f"{given!r:.100}"
        )
    return -(-((given - EPOCH) // _MICROSECOND) // 1000)


def _first_id(time_ms: int) -> bytes:
    """No id made at *time_ms* or later is less."""
    clipped = min(max(time_ms, 0), _MS_END)
    return clipped.to_bytes(7, "big")[1:] + bytes(10) if clipped < _MS_END else b"\xff" * 17


_ANY = InvocationFilter().wanted


def wanted_by(given: Any) -> Wanted:  # Any: what a caller gave.
    """What a filter wants; None: any invocation."""
    if given is None:
        return _ANY
    if not isinstance(given, InvocationFilter):
        raise InvalidInput(f"filter must be an InvocationFilter, not {given!r:.100}")
    return given.wanted
