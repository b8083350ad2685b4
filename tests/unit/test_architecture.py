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
    "_schemas": {"_annotations", "serde"},
    "_flat": set(),
    "_cbor": {"_flat", "_limits"},
    "serde": {"_annotations", "_cbor", "_flat", "_limits"},
    "_core": set(),
    "_store": {"_journal"},
    "futures": VALUES | {"_core"},
    "_step_traits": VALUES,
    "_absent": set(),
    "_declarations": VALUES | {"_place"},
    "_calling": VALUES | {"_absent", "_bound", "_core", "_declarations", "futures"},
    "_base_context": VALUES | {"_bound", "_calling", "_core", "_step_traits", "futures"},
    "context": VALUES | {"_base_context", "_core", "_declarations", "futures"},
    "saga": VALUES | {"_base_context", "futures"},
    "_signatures": VALUES | {"_place", "context"},
    "_definitions": VALUES | {"_declarations", "_place", "_signatures"},
    "_declare": VALUES | {"_declarations", "_definitions", "_place", "_signatures"},
    "service": VALUES | {"_declare", "_definitions", "_place", "_signatures"},
    "_bound": {"serde"},
    "_binding": VALUES | DECLARING | {"_absent", "_bound"},
    "_runtime": VALUES | DECLARING | {"_binding", "_bound", "_core", "_store", "_journal"},
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
    "_doctor": {"_core", "_ids", "_runtime", "_store", "serde"},
    "_restoring": {"_doctor", "_store"},
    "_viewing": VERBS | {"_backing_up", "_reading", "_store"},
    "engine": VALUES
    | DECLARING
    | {"_backing_up", "_binding", "_completing", "_inspecting", "_invoking", "_operating"}
    | {"_options", "_runtime", "_store"},
    "http": VERBS | {"_bodies", "_schemas", "_sql", "engine"},
    "_bodies": VALUES | {"_absent", "service"},
    "restate": VALUES
    | DECLARING
    | {
        "_binding",
        "_bodies",
        "_bound",
        "_calling",
        "_cbor",
        "_core",
        "_place",
        "_runtime",
        "_schemas",
    },
    "_loading": {"service"},
    "_client": VALUES
    | {"_history", "_sql"}
    | DECLARING
    | {"_absent", "_binding", "_calling", "_declarations", "_handles", "_promises", "_runtime"}
    | {"_verbs"},
    "client": {"_client"},
    "cli": {"__init__", "_absent", "_doctor", "_loading", "_restoring", "_viewing", "client"}
    | {"_ids", "engine", "http", "restate", "service", "testing"},
    "__main__": {"cli"},
    "testing": VERBS | {"_core", "_doctor", "_history", "_journal", "_loading", "_store", "engine"},
    "__init__": VALUES
    | DECLARING
    | {"_declarations", "_handles", "_runtime", "_sql", "client", "engine", "saga"},
}
# The codec is pure: bytes in, entries out. Of the extension, it is all that leaves the store.
CODEC = {"decode_entries", "encode_entries"}
CODEC_USERS = {
    "_runtime/_layout.py",
    *("testing/_sim_audit.py", "testing/_sim_environment.py", "testing/_sim_queries.py"),
    *("testing/_crash_everywhere.py", "testing/_trial.py"),
}

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
LINE_LENGTH_MAX = 100
# Sizes over the limit, with the reason. An entry may only shrink, and goes when it is not needed.
LONG_MODULES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
SLACK = 25
"""Lines by which an entry above may be out of date before it has to be lowered."""


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    """The folder or module directly below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of each import, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports name the whole path"
            assert node.module is not None
            for alias in node.names:
                yield node.lineno, node.module, alias.name


def rooms_imported(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, room, name) of each import of perdure's own."""
    for line, module, name in imports_of(path):
        top, _, rest = module.partition(".")
        if top != "perdure":
            continue
        if rest:
            yield line, rest.partition(".")[0], name
        else:  # `from perdure import engine`, or a public name by way of the package itself
            is_room = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
            yield line, name if is_room else "__init__", name


def calls_of_import_functions(path: Path) -> list[int]:
    names = {"__import__", "import_module", "exec", "eval"}
    return [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in names)
            or (isinstance(node.func, ast.Attribute) and node.func.attr in names)
        )
    ]


CORE = [path for path in MODULES if room_of(path) == "_core"]


@pytest.mark.parametrize("path", CORE, ids=short)
def test_the_core_takes_from_asyncio_only_what_the_design_allows(path: Path) -> None:
    excess = [
        f"{short(path)}:{line}: {module}.{name}"
        for line, module, name in imports_of(path)
        if module.partition(".")[0] == "asyncio"
        and (module != "asyncio" or name not in CORE_MAY_TAKE_FROM_ASYNCIO)
    ]
    assert excess == []


@pytest.mark.parametrize("path", CORE, ids=short)
def test_the_core_imports_nothing_that_does_io_or_reads_the_world(path: Path) -> None:
    forbidden = [
        f"{short(path)}:{line}: {module}"
        for line, module, _ in imports_of(path)
        if module.partition(".")[0] in CORE_MUST_NOT_IMPORT
    ]
    assert forbidden == []
    assert calls_of_import_functions(path) == []


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_arrows_between_the_rooms_point_inward(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is new: say above what it may import"
    allowed = MAY_IMPORT[room] | {room, "errors"}
    against = [
        f"{short(path)}:{line}: {room} imports {other}"
        for line, other, _ in rooms_imported(path)
        if other not in allowed
    ]
    assert against == []


def test_every_room_in_the_table_exists() -> None:
    assert set(MAY_IMPORT) - {room_of(path) for path in MODULES} == set()


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_only_the_store_touches_lmdb_and_only_the_codec_leaves_it(path: Path) -> None:
    assert [
        line for line, module, _ in imports_of(path) if module.partition(".")[0] == "lmdb"
    ] == []
    if room_of(path) == "_store":
        return
    taken = {name for _, other, name in rooms_imported(path) if other == "_journal"}
    assert taken <= (CODEC if short(path) in CODEC_USERS else set())


def test_the_extension_imports_of_perdure_only_the_errors() -> None:
    imported = set()
    for path in sorted((ROOT / "ext" / "perdure").glob("*.p*")):
        for line in path.read_text("utf-8").splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("perdure"):
                imported.add(words[1])
    assert imported == {"perdure.errors"}


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_nothing_pickles(path: Path) -> None:
    pickling = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    assert [line for line, module, _ in imports_of(path) if module in pickling] == []


# ---- sizes --------------------------------------------------------------------------------------


def source_files() -> list[Path]:
    folders = ("src", "ext", "tests", "benchmarks", "examples", ".ci")
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h"}
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path.is_file()
    )


def product_files() -> list[Path]:
    return [path for path in source_files() if path.relative_to(ROOT).parts[0] in ("src", "ext")]


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert child.end_lineno is not None
                yield f"{prefix}{child.name}", child.end_lineno - child.lineno + 1
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree_of(path), "")


def ratchet(sizes: dict[str, int], limit: int, excesses: dict[str, int]) -> list[str]:
    """Complaints about *sizes* that nothing grants, and about *excesses* that have become stale."""
    complaints = []
    for name, size in sizes.items():
        granted = excesses.get(name, limit)
        if size > granted:
            complaints.append(f"{name} has {size} lines; at most {granted} are allowed: split it")
    for name, granted in excesses.items():
        size = sizes.get(name, 0)
        if size <= limit:
            complaints.append(f"{name} has {size} lines: it needs no exception any more")
        elif granted - size > SLACK:
            complaints.append(f"{name} has shrunk to {size} lines: lower its exception to that")
    return complaints


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in product_files()
    }
    assert ratchet(sizes, MODULE_LINES_MAX, LONG_MODULES) == []


def test_no_function_is_longer_than_70_lines() -> None:
    sizes = {f"{short(path)}:{name}": size for path in MODULES for name, size in functions_of(path)}
    assert ratchet(sizes, FUNCTION_LINES_MAX, LONG_FUNCTIONS) == []


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_longer_than_100_characters(path: Path) -> None:
    long_lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if len(line) > LINE_LENGTH_MAX
    ]
    assert long_lines == []


def test_a_module_that_outgrows_its_exception_is_reported() -> None:
    grown = ratchet({"a.py": 450}, 400, {"a.py": 440})
    assert grown == ["a.py has 450 lines; at most 440 are allowed: split it"]


def test_an_exception_that_is_not_needed_any_more_is_reported() -> None:
    stale = ratchet({"a.py": 400, "b.py": 500}, 400, {"a.py": 440, "b.py": 600})
    assert stale == [
        "a.py has 400 lines: it needs no exception any more",
        "b.py has shrunk to 500 lines: lower its exception to that",
    ]
