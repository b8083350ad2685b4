"""Finding the services that ``MODULE:SERVICES`` means, on a command line or in a test."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from perdure.errors import PerdureError
from perdure.service import Service, VirtualObject, Workflow

# Any, in this module: a module may hold anything.

_KINDS: Final = (Service, VirtualObject, Workflow)
_DEFAULT_NAME: Final = "services"
_FRAMES_SHOWN: Final = 3
_OTHERS: Final = (
    "<frozen ",
    str(Path(__file__).resolve().parent) + os.sep,
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib")),
)
"""How the names of files begin that are not the user's."""


class LoadingError(PerdureError):
    """There are no services at a target, or code of the user's has failed.

    Attributes:
      hint: What to do about it, or an empty text.
      raised: The class of what the user's code raised; empty: the target can not be meant.
    """

    def __init__(self, message: str, hint: str = "", raised: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.raised = raised


def load_services(target: str) -> list[Any]:
    """The services at *target*: ``package.module:name``, or a module that has ``services``.

    The name may stand for a list of services, for one, or for a function without arguments that
    returns either. The current directory is where modules are looked for first.

    Raises:
      LoadingError: There are none, or code of the user's has failed.
    """
    name, _, attribute = target.partition(":")
    if name.endswith(".py") or "/" in name or not name:
        hint = ""
        if name:
            path = Path(os.path.relpath(name.removesuffix(".py")))
            dotted = ".".join(path.parts)
            hint = f"write {dotted}:{attribute or _DEFAULT_NAME}"
            if path.parts[:1] == ("..",):
                path = path.resolve()
                hint = f"go to {path.parent} and write {path.name}:{attribute or _DEFAULT_NAME}"
        raise LoadingError(f"{name!r} is no module: a module has dots, and no slashes", hint)
    module = _import(name)
    value = _attribute(module, attribute) if attribute else _default(module)
    return _services_in(value, f"{name}:{attribute or _DEFAULT_NAME}")


def _import(name: str) -> ModuleType:
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(f"the module {name} can not be imported", error) from error
        raise LoadingError(
            f"there is no module {error.name!r}; modules are looked for in {here} first",
            _did_you_mean(name, here),
        ) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"the module {name} can not be imported", error) from error


def _did_you_mean(name: str, here: str) -> str:
    folder = Path(here, *name.split(".")[:-1])
    if not folder.is_dir():
        return ""
    package = name.rpartition(".")[0]
    found = [each.stem for each in folder.glob("*.py")]
    close = difflib.get_close_matches(name.rpartition(".")[2], found)
    return f"did you mean {'.'.join(filter(None, (package, close[0])))}?" if close else ""


def _attribute(module: ModuleType, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            choices = _choices(module)
            close = difflib.get_close_matches(path, choices) or choices
            raise LoadingError(
                f"the module {module.__name__} has no {path!r}", _which(module, close)
            ) from error
    return value


def _default(module: ModuleType) -> Any:
    value = getattr(module, _DEFAULT_NAME, None)
    if value is None:
        raise LoadingError(
            f"the module {module.__name__} has no list called {_DEFAULT_NAME!r}",
            _which(module, _choices(module)),
        )
    return value


def _choices(module: ModuleType) -> list[str]:
    """The names in *module* that can stand for services."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and _may_be_services(value, module)
    ]


def _may_be_services(value: Any, module: ModuleType) -> bool:
    if isinstance(value, _KINDS):
        return True
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(each, _KINDS) for each in value)
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    needed = (each.default is each.empty for each in inspect.signature(value).parameters.values())
    return not any(needed) and not inspect.iscoroutinefunction(value)


def _which(module: ModuleType, names: list[str]) -> str:
    if not names:
        return f"give it a list: {_DEFAULT_NAME} = [MyWorkflow()]"
    return "it has " + ", ".join(f"{module.__name__}:{each}" for each in names)


def _services_in(value: Any, place: str) -> list[Any]:
    if callable(value) and not isinstance(value, (type, *_KINDS)):
        try:
            value = value()
        except (Exception, SystemExit) as error:
            raise _failed(f"{place}() failed", error) from error
    if isinstance(value, _KINDS):
        return [value]
    if inspect.iscoroutine(value):
        value.close()
        raise LoadingError(f"{place} is async: services are made before a loop runs")
    if isinstance(value, type) or not isinstance(value, Iterable) or isinstance(value, (str, dict)):
        raise LoadingError(
            f"{place} is {_shown(value)}, and no list of services",
            "a list has instances: services = [MyWorkflow()]",
        )
    services = list(value)
    for each in services:
        if not isinstance(each, _KINDS):
            hint = f"make an instance: {each.__name__}()" if isinstance(each, type) else ""
            raise LoadingError(f"{place} has {_shown(each)} in it, which is no service", hint)
    if not services:
        raise LoadingError(f"{place} is empty: there is nothing to serve")
    return services


def _shown(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"a `{type(value).__name__}`"


def _failed(what: str, error: BaseException) -> LoadingError:
    """What the user's code raised, with the last lines of it that led there."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith(_OTHERS)]
    # A syntax error has its place itself, and no frame of theirs.
    shown = theirs if isinstance(error, SyntaxError) else theirs or frames
    told = [
        *traceback.format_list(shown[-_FRAMES_SHOWN:]),
        *traceback.format_exception_only(error),
    ]
    text = "".join(told).rstrip()
    return LoadingError(f"{what}:\n{text}", raised=type(error).__name__)
