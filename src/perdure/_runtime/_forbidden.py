"""What no replay could repeat, and what a handler has in its place."""

from __future__ import annotations

import _socket
import _thread
import datetime as dt
import io
import os
import random
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, ModuleType
from typing import Any, NamedTuple

CLOCK = "ctx.now()"
RANDOM = "ctx.random"
SLEEP = "await ctx.sleep(…)"
STEP = "a step, await ctx.run('name', function, …)"
UUID = "ctx.uuid4()"

REMEDY_FOR = {"uuid": UUID, "random": RANDOM, "secrets": RANDOM}
"""For the functions of a module, whatever those call in their turn; for those of others: a step."""


class Forbidden(NamedTuple):
    """What a call is known by, and what to use in its place."""

    name: str
    remedy: str


class CodeOf(NamedTuple):
    """A function in Python that is forbidden, known by its code."""

    code: CodeType
    forbidden: Forbidden


UNSEEDED = CodeOf(
    random.Random.__init__.__code__,  # its `x` is the seed
    Forbidden("random.Random", RANDOM),
)

_PURE = frozenset(
    {
        *("fspath", "strerror", "major", "minor", "makedev", "waitstatus_to_exitcode"),
        *("register_at_fork", "sched_yield"),
        *("ntohs", "ntohl", "htons", "htonl", "inet_aton", "inet_ntoa", "inet_ntop", "inet_pton"),
        *("getdefaulttimeout", "CMSG_LEN", "CMSG_SPACE"),
    }
)
"""Functions of `os` and `socket` that compute, and ask nobody."""

_CLOCKS = (
    *("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime"),
    *("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns"),
    "clock_gettime_ns",
)


def _builtins_of(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        computes = name in _PURE or name.startswith(("_", "W"))  # os.WIFEXITED and its like
        if isinstance(value, BuiltinFunctionType) and not computes:
            yield name


def _functions() -> Iterator[tuple[Any, Forbidden]]:
    """Functions that are written in C, bound methods among them."""

    def named(module: Any, title: str, names: Iterable[str], remedy: str) -> Iterator[Any]:
        for name in names:
            if hasattr(module, name):
                yield getattr(module, name), Forbidden(f"{title}.{name}", remedy)

    system = sys.modules[os.stat.__module__]  # posix or nt
    yield from named(system, "os", _builtins_of(system), STEP)
    yield from named(_socket, "socket", _builtins_of(_socket), STEP)
    yield from named(os, "os", ("urandom", "getrandom"), RANDOM)
    yield from named(time, "time", _CLOCKS, CLOCK)
    yield from named(time, "time", ("sleep",), SLEEP)
    yield from named(dt.datetime, "datetime.datetime", ("now", "utcnow", "today"), CLOCK)
    yield from named(dt.date, "datetime.date", ("today",), CLOCK)
    shared = vars(random)["_inst"]  # the generator behind the functions of the module
    yield from named(shared, "random", ("random", "getrandbits"), RANDOM)
    yield from named(super(random.Random, shared), "random", ("seed", "setstate"), RANDOM)
    yield from named(uuid, "uuid", ("_generate_time_safe", "_UuidCreate"), UUID)  # of uuid1
    yield from named(_thread, "_thread", ("start_new_thread", "start_joinable_thread"), STEP)
    yield io.open, Forbidden("open", STEP)


FORBIDDEN: dict[Any, Forbidden] = dict(_functions())
"""By the function itself, which is found whatever name it was imported by."""

OF_A_SOCKET = Forbidden("socket.socket", STEP)
"""A method of a socket that there was before."""

_EVENTS = {
    "open": "open",
    "subprocess.Popen": "subprocess.Popen",
    "sqlite3.connect": "sqlite3.connect",
    "builtins.input": "input",
    "socket.__new__": "socket.socket",
}


def audited(event: str, arguments: tuple[Any, ...]) -> Forbidden | None:
    """What the audit event *event* tells of, if that is forbidden."""
    name = _EVENTS.get(event)
    if name is None and event.startswith(("os.", "socket.")):
        name = event
    if name is None or (name == "open" and _is_of_time_zones(arguments[0])):
        return None
    return Forbidden(name, STEP)


def _is_of_time_zones(path: object) -> bool:
    # ZoneInfo("Europe/Berlin") opens its file from C: no frame tells that it did.
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and isinstance(path, str) and path.startswith(zoneinfo.TZPATH)
