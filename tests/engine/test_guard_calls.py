"""The guard: which calls in a handler are forbidden, what their text names, and which are not."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import gc
import importlib
import inspect
import io
import linecache
import logging
import os
import pathlib
import random
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
import warnings
import zoneinfo
from collections.abc import Callable, Iterator
from time import monotonic as another_name
from typing import Any

import pytest
from engine_support import Place, run
from primitive_support import Primitive

from perdure import NondeterministicOperationError, WorkflowContext

CLOCK, RANDOM, UUID, SLEEP = "ctx.now()", "ctx.random", "ctx.uuid4()", "await ctx.sleep(…)"
STEP = "a step, await ctx.run('name', function, …)"

Call = Callable[[WorkflowContext], Any]
CONNECTED, PEER = socket.socketpair()


@dataclasses.dataclass
class Numbered:
    number: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)


@pytest.fixture(scope="module", autouse=True)
def _sockets() -> Iterator[None]:
    yield
    CONNECTED.close()
    PEER.close()


def guarded(place: Place, body: Any) -> Any:
    """The result of *body* under ``guard="raise"``."""

    async def main() -> Any:
        async with place.engine(Primitive(body), guard="raise") as engine:
            return await engine.submit(Primitive.run, key="k")

    return run(main())


FORBIDDEN: dict[str, tuple[Call, str]] = {
    "time.time()": (lambda ctx: time.time(), CLOCK),
    "time.time_ns()": (lambda ctx: time.time_ns(), CLOCK),
    "time.monotonic()": (lambda ctx: another_name(), CLOCK),
    "time.perf_counter()": (lambda ctx: time.perf_counter(), CLOCK),
    "time.process_time_ns()": (lambda ctx: time.process_time_ns(), CLOCK),
    "time.sleep()": (lambda ctx: time.sleep(0), SLEEP),
    "datetime.datetime.now()": (lambda ctx: dt.datetime.now(dt.UTC), CLOCK),
    "datetime.datetime.utcnow()": (lambda ctx: dt.datetime.utcnow(), CLOCK),  # noqa: DTZ003
    "datetime.datetime.today()": (lambda ctx: dt.datetime.today(), CLOCK),  # noqa: DTZ002
    "datetime.date.today()": (lambda ctx: dt.date.today(), CLOCK),  # noqa: DTZ011
    "random.random()": (lambda ctx: random.random(), RANDOM),
    "random.randint()": (lambda ctx: random.randint(1, 6), RANDOM),
    "random.gauss()": (lambda ctx: random.gauss(0, 1), RANDOM),
    "random.choice()": (lambda ctx: random.choice("ab"), RANDOM),
    "random.shuffle()": (lambda ctx: random.shuffle([1, 2]), RANDOM),
    "random.seed()": (lambda ctx: random.seed(7), RANDOM),
    "random.Random()": (lambda ctx: random.Random(), RANDOM),
    "secrets.token_hex()": (lambda ctx: secrets.token_hex(), RANDOM),
    "os.urandom()": (lambda ctx: os.urandom(1), RANDOM),
    "uuid.uuid1()": (lambda ctx: uuid.uuid1(), UUID),
    "uuid.uuid4()": (lambda ctx: uuid.uuid4(), UUID),
    "os.getpid()": (lambda ctx: os.getpid(), STEP),
    "os.getcwd()": (lambda ctx: os.getcwd(), STEP),
    "os.listdir()": (lambda ctx: os.listdir("."), STEP),
    "os.stat()": (lambda ctx: os.stat("."), STEP),
    "os.remove()": (lambda ctx: os.remove("nothing"), STEP),
    "open()": (lambda ctx: open("nothing"), STEP),  # noqa: SIM115
    "pathlib.Path.read_text()": (lambda ctx: pathlib.Path("nothing").read_text(), STEP),
    "tempfile.mkdtemp()": (lambda ctx: tempfile.mkdtemp(), STEP),
    "socket.socket()": (lambda ctx: socket.socket(), STEP),
    "socket.getaddrinfo()": (lambda ctx: socket.getaddrinfo("localhost", 1), STEP),
    "subprocess.run()": (lambda ctx: subprocess.run(["true"], check=False), STEP),
    "sqlite3.connect()": (lambda ctx: sqlite3.connect("nothing"), STEP),
    "threading.Thread.start()": (lambda ctx: threading.Thread(target=print).start(), STEP),
}

OTHER_WAYS: dict[str, tuple[Call, str]] = {
    "a file, opened by its class": (lambda ctx: io.FileIO("nothing"), "open()"),
    "a function that C code calls": (lambda ctx: list(map(open, ["nothing"])), "open()"),
    "a socket that was there": (lambda ctx: CONNECTED.send(b"x"), "socket.socket()"),
    "a generator": (lambda ctx: sum(random.random() for _ in "ab"), "random.random()"),
    "a default of a dataclass": (lambda ctx: Numbered(), "uuid.uuid4()"),
    "the key of a sort": (lambda ctx: sorted([2, 1], key=lambda _: time.time()), "time.time()"),
    "random.SystemRandom": (lambda ctx: random.SystemRandom().random(), "random.Random()"),
}


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow")
@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_forbidden_call_names_its_line_and_what_to_use(resident_place: Place, what: str) -> None:
    call, remedy = FORBIDDEN[what]

    async def body(ctx: WorkflowContext) -> None:
        call(ctx)

    with pytest.raises(NondeterministicOperationError) as caught:
        guarded(resident_place, body)
    place = f"{__file__}:{call.__code__.co_firstlineno} in <lambda>"
    assert str(caught.value) == (f"{what} can not be replayed, at {place}; in its place: {remedy}")


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_a_call_is_found_whichever_way_it_is_made(resident_place: Place, way: str) -> None:
    call, what = OTHER_WAYS[way]

    async def body(ctx: WorkflowContext) -> None:
        call(ctx)

    with pytest.raises(NondeterministicOperationError) as caught:
        guarded(resident_place, body)
    line = f"{__file__}:{call.__code__.co_firstlineno} in"
    assert str(caught.value).startswith(f"{what} can not be replayed, at {line}")


class Tidy:
    """Reads the clock when it goes."""

    def __init__(self, gone: list[float]) -> None:
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append(time.time())


class ClockFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{time.time()} {dt.datetime.now(dt.UTC)}"


def log(ctx: WorkflowContext) -> None:
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(ClockFormatter())
    logger = logging.Logger("of its own")  # noqa: LOG001 - it is in no registry
    logger.addHandler(handler)
    logger.warning("a word")
    ctx.log.warning("a word")


def warn() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("a word", stacklevel=1)
    assert caught


def import_anew() -> None:
    sys.modules.pop("this_is_imported_in_a_handler", None)
    importlib.import_module("this_is_imported_in_a_handler")


def collect() -> list[float]:
    gone: list[float] = []

    def heard(phase: str, info: dict[str, int]) -> None:
        gone.append(time.time())

    gc.callbacks.append(heard)
    try:
        gc.collect()
        Tidy(gone)
    finally:
        gc.callbacks.remove(heard)
    assert len(gone) == 3
    return []


def written_in(module: str, file: str) -> Callable[[], float]:
    """A function of *module* that reads the clock."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile("import time\n\ndef stamp():\n    return time.time()\n", file, "exec"), names)
    stamp: Callable[[], float] = names["stamp"]
    return stamp


async def wait_for_all(ctx: WorkflowContext) -> None:
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    await asyncio.wait_for(ctx.sleep(0), 60)


ALLOWED: dict[str, Call] = {
    "the context's time": lambda ctx: ctx.now(),
    "the context's random numbers": lambda ctx: [ctx.random.random(), ctx.random.randint(1, 6)],
    "the context's UUIDs": lambda ctx: ctx.uuid4(),
    "a generator with a seed": lambda ctx: random.Random(7).sample(range(9), 3),
    "names made of names": lambda ctx: uuid.uuid5(uuid.NAMESPACE_DNS, "example.org"),
    "arithmetic with times": lambda ctx: dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(1),
    "a time parsed": lambda ctx: dt.datetime.strptime("2020", "%Y").replace(tzinfo=dt.UTC),
    "a time zone": lambda ctx: ctx.now().astimezone(zoneinfo.ZoneInfo.no_cache("Europe/Berlin")),
    "the environment": lambda ctx: os.environ.get("HOME"),
    "a path joined": lambda ctx: str(pathlib.Path("a") / os.fspath("b")),
    "addresses converted": lambda ctx: socket.inet_ntoa(socket.inet_aton("127.0.0.1")),
    "output for people": lambda ctx: print("a word"),
    "a log": log,
    "a warning": lambda ctx: warn(),
    "a line of source": lambda ctx: linecache.updatecache(__file__),
    "what perdure does": lambda ctx: written_in("perdure.somewhere", "/lib/perdure/s.py")(),
    "a traceback": lambda ctx: traceback.format_stack(),
    "an import": lambda ctx: import_anew(),
    "what the garbage collector runs": lambda ctx: collect(),
    "asyncio's own": wait_for_all,
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_a_replay_repeats_or_nobody_depends_on_is_left_alone(
    resident_place: Place, what: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "this_is_imported_in_a_handler.py"
    module.write_text("import random, time\nSTARTED = time.time(), random.random()\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def body(ctx: WorkflowContext) -> str:
        made = ALLOWED[what](ctx)
        if asyncio.iscoroutine(made):
            await made
        return "left alone"

    assert guarded(resident_place, body) == "left alone"


def helper() -> float:
    return time.time()  # the line of the helper


def text_of_hit(place: Place, body: Any) -> str:
    with pytest.raises(NondeterministicOperationError) as caught:
        guarded(place, body)
    return str(caught.value)


def line_of(function: Any, text: str) -> int:
    """The line of *function* that ends in the comment *text*."""
    lines, first = inspect.getsourcelines(function)
    (index,) = [index for index, line in enumerate(lines) if line.endswith(f"  # {text}\n")]
    return first + index


def test_the_line_is_the_innermost_of_the_program(resident_place: Place) -> None:
    async def body(ctx: WorkflowContext) -> None:
        helper()

    line = line_of(helper, "the line of the helper")
    assert f"at {__file__}:{line} in helper;" in text_of_hit(resident_place, body)


def test_a_library_is_named_and_the_line_that_calls_it(resident_place: Place) -> None:
    stamp = written_in("somebody.stamps", "/lib/site-packages/somebody/stamps.py")

    async def body(ctx: WorkflowContext) -> None:
        stamp()  # the line of the call

    line = line_of(body, "the line of the call")
    assert text_of_hit(resident_place, body).startswith(
        f"somebody.stamps.stamp() calls time.time(), which can not be replayed, at "
        f"{__file__}:{line} in "
    )


def test_a_call_in_a_task_of_the_handler_is_found(resident_place: Place) -> None:
    async def child() -> None:
        await asyncio.sleep(0.001)
        helper()

    async def body(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    assert "in helper;" in text_of_hit(resident_place, body)
