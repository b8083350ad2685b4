"""The rules of ARCHITECTURE.md that can be read off the source: who imports whom, and sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "perdure"
MODULES = sorted(PACKAGE.rglob("*.py"))

CORE_MAY_TAKE_FROM_ASYNCIO = {
    "AbstractEventLoop",
    "Handle",
    "TimerHandle",
    "Task",
    "Future",
    "CancelledError",
    "InvalidStateError",
    # Getters and setters of the running loop and of the current task.
    "_get_running_loop",
    "_set_running_loop",
    "_enter_task",
    "_leave_task",
    "current_task",
    "get_running_loop",
}
CORE_MUST_NOT_IMPORT = {
    *("lmdb", "os", "random", "socket", "threading", "time"),
    # The same doors by other names.
    *("_thread", "concurrent", "io", "multiprocessing", "pathlib", "secrets", "select"),
    *("selectors", "signal", "subprocess", "tempfile", "uuid"),
}

# What each room may import of perdure, itself and `errors` apart. Arrows point inward only.
VALUES = {"_limits", "_cbor", "_flat", "_annotations", "serde", "retry", "_ids"}
DECLARING = {"context", "futures", "service"}
VERBS = (
    VALUES
    | DECLARING
    | {"_absent", "_admission", "_binding", "_calling", "_core", "_declarations", "_handles"}
    | {"_opened", "_promises", "_results", "_runtime", "_verbs"}
)
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "_place": set(),
    "_ids": set(),
    "_limits": set(),
    "_annotations": set(),
    "retry": set(),
    "_flat": set(),
    "_cbor": {"_flat", "_limits"},
    "serde": {"_annotations", "_cbor", "_flat", "_limits"},
    "_core": set(),
    "_store": {"_journal"},
    "futures": VALUES | {"_core"},
    "_step_traits": VALUES,
    "_absent": set(),
    "_declarations": VALUES | {"_place"},
    "_calling": VALUES | {"_absent", "_core", "_declarations", "futures"},
    "_base_context": VALUES | {"_calling", "_core", "_step_traits", "futures"},
    "context": VALUES | {"_base_context", "_declarations", "futures"},
    "saga": VALUES | {"_base_context", "futures"},
    "_signatures": VALUES | {"_place", "context"},
    "_definitions": VALUES | {"_declarations", "_place", "_signatures"},
    "_declare": VALUES | {"_declarations", "_definitions", "_place", "_signatures"},
    "service": VALUES | {"_declare", "_definitions", "_place", "_signatures"},
    "_binding": VALUES | DECLARING | {"_absent"},
    "_runtime": VALUES | DECLARING | {"_binding", "_calling", "_core", "_store", "_journal"},
    "_results": VALUES | DECLARING | {"_handles", "_runtime"},
    "_verbs": VALUES | {"_absent", "_declarations", "_handles", "_runtime"},
    "_promises": VALUES | DECLARING | {"_binding", "_declarations", "_runtime"},
    "_handles": set(),
    "_admission": VALUES | DECLARING | {"_calling", "_core", "_handles", "_runtime"},
    "_options": set(),
    "_sql": VALUES | {"_core", "_runtime", "_store"},
    "_opened": {"_binding", "_results", "_runtime"},
    **dict.fromkeys(("_invoking", "_completing", "_operating"), VERBS),
    "_history": VALUES | {"_core", "_runtime"},
    "_reading": VERBS | {"_history", "_sql"},
    "_inspecting": VERBS | {"_reading"},
    "_backing_up": {"_binding", "_opened", "_store"},
    "_doctor": {"_core", "_ids", "_runtime", "_store"},
    "_restoring": {"_doctor", "_store"},
    "_viewing": VERBS | {"_backing_up", "_reading", "_store"},
    "engine": VALUES
    | DECLARING
    | {"_backing_up", "_binding", "_completing", "_inspecting", "_invoking", "_operating"}
    | {"_options", "_runtime", "_store"},
    "http": VERBS | {"_sql", "engine"},
    "_loading": {"service"},
    "_client": VALUES
    | {"_history", "_sql"}
    | DECLARING
    | {"_absent", "_binding", "_calling", "_declarations", "_handles", "_promises", "_runtime"}
    | {"_verbs"},
    "client": {"_client"},
    "cli": {"__init__", "_absent", "_doctor", "_loading", "_restoring", "_viewing", "client"}
    | {"_ids", "engine", "http", "service", "testing"},
    "__main__": {"cli"},
    "testing": VERBS | {"_core", "_doctor", "_journal", "_store", "engine"},
