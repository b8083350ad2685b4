"""The determinism guard: what handler code calls that no replay could repeat.

Theory of operation. While a handler runs, live or in a replay, a profile function sees each call of
a function written in C, whatever name it was imported by, and the audit hook of the process sees
files, sockets and processes being opened. A call that is forbidden is a hit, unless the frames
between it and the handler show that it is none of the handler's doing: logging reads the clock, an
import reads files.

A hit is logged, once for each line of code. Under ``raise`` the call raises in its place, and
nothing the handler does after it reaches a journal: the activation stands only if it ends the
invocation with that very error. Else the attempt fails. So a journal has no trace of the guard, and
an engine can open it under any other mode.
"""

from __future__ import annotations

import functools
import gc
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from socket import socket
from types import FrameType, TracebackType
from typing import Any, Literal

from perdure._core._entries import Entry, Flag, Kind
from perdure._core._frames import describe_frame
from perdure._core._machine import Activation, Machine
from perdure._ids import format_id
from perdure._runtime._forbidden import (
    FORBIDDEN,
    OF_A_SOCKET,
    REMEDY_FOR,
    STEP,
    UNSEEDED,
    Forbidden,
    audited,
)
from perdure._runtime._instance import Instance
from perdure.errors import NondeterministicOperationError
from perdure.serde import encode_failure

logger = logging.getLogger("perdure")

_NOT_THE_HANDLER = frozenset(
    {
        *("logging", "warnings", "traceback", "linecache", "structlog", "loguru"),
        *("opentelemetry", "sentry_sdk"),
        *("importlib", "encodings", "zoneinfo", "weakref"),
        *("pdb", "bdb", "pydevd", "_pydevd_bundle", "debugpy", "_pytest"),
    }
)
"""Packages that do what they do for people, or once in a process: no handler depends on it."""

_STDLIB = sys.stdlib_module_names


class Guard:
    """The guard of one engine, around each activation of its handlers.

    Args:
      mode: ``warn``: a hit is logged, once for each line. ``raise``: it also raises.
    """

    def __init__(self, mode: Literal["warn", "raise"]) -> None:
        self._raises = mode == "raise"
        self._profile = self._on_event  # bound once, to be known again
        self._seen: set[tuple[str, int]] = set()
        self._told_of_profiler = False
        # Text of the activation's first hit; not the error, which leads to frames that lead to it.
        self._hit: str | None = None
        self._news: list[str] = []
        _install_audit_hook()

    def machine_of(self, instance: Instance) -> Callable[..., Machine]:
        """What makes the machine of *instance*, as ``Machine`` does."""
        return functools.partial(GuardedMachine, self, instance.id)

    def __enter__(self) -> None:
        self._hit = None
        _on_stage.guard = self
        if sys.getprofile() is None:
            sys.setprofile(self._profile)
        elif not self._told_of_profiler:
            self._told_of_profiler = True
            self._news.append(
                "another profiler is active: meanwhile the guard sees files, sockets and "
                "processes, and neither clocks nor random numbers"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _on_stage.guard = None
        if sys.getprofile() is self._profile:  # Python unsets a profile function that has raised
            sys.setprofile(None)
        if error is not None:
            hit, self._hit = self._hit, None
            if hit is not None and isinstance(error, Exception) and str(error) != hit:
                # What failed after the hit may have failed because of it.
                raise NondeterministicOperationError(hit)

    def settle(self, entries: Sequence[Entry]) -> None:
        """Let the activation of *entries* stand, if it has no hit or ends with it.

        Raises:
          NondeterministicOperationError: The handler went on after its hit.
        """
        hit, self._hit = self._hit, None
        if hit is None:
            return
        last = entries[-1]
        ended = last.kind == Kind.OUTPUT and last.flags & Flag.FAILED
        if not ended or last.payload != encode_failure(NondeterministicOperationError(hit)):
            raise NondeterministicOperationError(hit)

    def take_news(self) -> list[str]:
        """What is to be logged."""
        news, self._news = self._news, []
        return news

    # -- while a handler runs -----------------------------------------------------------------

    def _on_event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            forbidden = FORBIDDEN.get(arg)
            if forbidden is not None:
                self.judge(frame, forbidden)
            elif type(arg.__self__) is socket:
                self.judge(frame, OF_A_SOCKET)
        elif event == "call" and frame.f_code is UNSEEDED.code and frame.f_locals["x"] is None:
            self.judge(frame, UNSEEDED.forbidden)

    def judge(self, frame: FrameType, forbidden: Forbidden) -> None:
        """Log *forbidden*, and raise where that is the mode, if it is the handler that calls it."""
        found = _handlers_line(frame)
        if found is None:
            return
        line, inner = found
        text = _text(line, inner, forbidden)
        place = line.f_code.co_filename, line.f_lineno
        if place not in self._seen:
            self._seen.add(place)
            self._news.append(text)
        if self._raises:
            self._hit = self._hit or text
            raise NondeterministicOperationError(text)


class GuardedMachine(Machine):
    """A machine whose handler is watched, live and in replay alike."""

    def __init__(self, guard: Guard, invocation_id: bytes, *main: Any, **parts: Any) -> None:
        super().__init__(*main, **parts)
        self._guard = guard
        self._id = invocation_id
        self._shared_stage = parts["stage"]

    def activate(self, notification: Entry, now_ms: int) -> Activation:
        try:
            with self._guard:
                activation = super().activate(notification, now_ms)
        finally:
            self._log()
        self._guard.settle(activation.entries)
        return activation

    def replay(self, entries: Sequence[Entry]) -> None:
        try:
            with self._guard:
                super().replay(entries)
        finally:
            self._log()
        self._guard.settle(entries)

    def _log(self) -> None:
        news = self._guard.take_news()
        if news:
            self._shared_stage.leave()  # what logs may ask for the host's loop
        for text in news:
            logger.warning("%s: %s", format_id(self._id), text)


def _handlers_line(frame: FrameType) -> tuple[FrameType, FrameType | None] | None:
    """The handler's frame that a call in *frame* is to be put down to, and the one it has called.

    Of several the innermost that is neither of the standard library nor installed; failing that,
    the innermost that is not of the standard library. None: it is not the handler's doing.
    """
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    own: tuple[FrameType, FrameType | None] | None = None
    installed: tuple[FrameType, FrameType | None] | None = None
    inner: FrameType | None = None
    each: FrameType | None = frame
    while each is not None:
        package, code = _package(each), each.f_code
        # The garbage collector runs what it runs in the midst of any call.
        if package in _NOT_THE_HANDLER or code.co_name == "__del__" or code in collecting:
            return None
        if each.f_globals.get("__name__") == __name__:
            break
        file = code.co_filename
        is_generated = file.startswith("<")  # the methods of a dataclass; frozen modules
        if package not in _STDLIB:
            if package == "perdure" and installed is None:
                return None
            installed = installed or (each, inner)
            if package != "perdure" and own is None and not (is_generated or _is_installed(file)):
                own = each, inner
        if package in _STDLIB or not is_generated:
            inner = each
        each = each.f_back
    return own or installed


def _package(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _is_installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


def _text(line: FrameType, inner: FrameType | None, forbidden: Forbidden) -> str:
    what, remedy = f"{forbidden.name}()", forbidden.remedy
    if inner is not None:
        package = _package(inner)
        remedy = REMEDY_FOR.get(package, STEP)
        called = _name(inner)
        what = f"{called}()" if package in _STDLIB else f"{called}() calls {what}, which"
    return f"{what} can not be replayed, at {describe_frame(line)}; in its place: {remedy}"


def _name(frame: FrameType) -> str:
    module: str = frame.f_globals.get("__name__", "")
    name = frame.f_code.co_qualname.removesuffix(".__init__")
    if module == "random" and name != "Random":
        name = frame.f_code.co_name  # a function of the module is a method of its generator
    # Python 3.13 keeps pathlib.Path in pathlib._local: people know the public name.
    top, *rest = module.split(".")
    return ".".join([top, *(part for part in rest if not part.startswith("_")), name])


class _OnStage(threading.local):
    """Whose handler runs on this thread."""

    guard: Guard | None = None


_on_stage = _OnStage()


@functools.cache
def _install_audit_hook() -> None:
    """Python has no way to remove one, so there is one, and only where an engine has a guard."""
    on_stage = _on_stage  # the hook outlives the module's own names when the program ends

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        guard = on_stage.guard
        if guard is not None:
            forbidden = audited(event, arguments)
            if forbidden is not None:
                guard.judge(sys._getframe(1), forbidden)

    sys.addaudithook(hook)
