"""Which services `perdure serve MODULE:SERVICES` means, and what it says where it is not clear."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure._loading import LoadingError, load_services
from perdure.cli._failures import Exit, Failure, failure_of

HEAD = "import perdure\nclass Greeter(perdure.Service): pass\n"

Write = Callable[[str], str]
_numbers = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module into the current directory, and says its name, which no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(code: str) -> str:
        name = f"served_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(HEAD + code, "utf-8")
        return name

    return make


def names(services: list[object]) -> list[str]:
    return [type(each).__name__ for each in services]


@dataclass
class Refusal:
    """How a command tells that a target has no services."""

    failure: Failure

    def __str__(self) -> str:
        return self.failure.message


def refusal(target: str) -> Refusal:
    with pytest.raises(LoadingError) as caught:
        load_services(target)
    failure = failure_of(caught.value)
    assert failure is not None
    return Refusal(failure)


@pytest.mark.parametrize(
    ("code", "attribute"),
    [
        ("services = [Greeter()]", ""),
        ("services = (Greeter(),)", ":services"),
        ("def services(): return [Greeter()]", ""),
        ("def make(): return [Greeter()]", ":make"),
        ("def make(): return Greeter()", ":make"),
        ("one = Greeter()", ":one"),
        ("class Shop: parts = [Greeter()]", ":Shop.parts"),
        ("def make():\n    yield Greeter()", ":make"),
    ],
)
def test_services_are_a_list_one_of_them_or_what_a_function_returns(
    write: Write, code: str, attribute: str
) -> None:
    assert names(load_services(write(code) + attribute)) == ["Greeter"]


def test_a_module_in_a_folder_of_the_current_directory_is_found(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "shop_of_tests").mkdir()
    (tmp_path / "shop_of_tests" / "orders.py").write_text(HEAD + "services = [Greeter()]")
    write("")
    assert names(load_services("shop_of_tests.orders")) == ["Greeter"]


def test_a_mistyped_name_is_answered_with_what_the_module_has(write: Write) -> None:
    module = write("services = [Greeter()]\nOTHER = 3\n")
    error = refusal(f"{module}:servces")
    assert error.failure.exit_code == Exit.USAGE
    assert str(error) == f"the module {module} has no 'servces'"
    assert error.failure.hint == f"it has {module}:services"


def test_a_module_without_services_names_its_choices(write: Write) -> None:
    module = write(
        "one = [Greeter()]\ndef make(): ...\ndef needs(x): ...\nasync def later(): ...\n"
    )
    error = refusal(module)
    assert str(error) == f"the module {module} has no list called 'services'"
    assert error.failure.hint == f"it has {module}:one, {module}:make"


def test_a_module_with_nothing_to_serve_says_how_to_offer_it(write: Write) -> None:
    assert refusal(write("")).failure.hint == "give it a list: services = [MyWorkflow()]"


def test_a_module_that_is_not_there_is_named_with_one_that_is(write: Write) -> None:
    module = write("services = [Greeter()]")
    error = refusal(f"{module}x")
    assert error.failure.exit_code == Exit.USAGE
    assert f"there is no module '{module}x'" in str(error)
    assert error.failure.hint == f"did you mean {module}?"


@pytest.mark.parametrize("form", ["./{}.py", "{}.py", "./{}"])
def test_a_path_is_answered_with_the_module_it_is(write: Write, form: str) -> None:
    module = write("services = [Greeter()]")
    assert refusal(form.format(module)).failure.hint == f"write {module}:services"


def test_a_path_from_the_root_is_answered_with_the_module_seen_from_here(write: Write) -> None:
    module = write("services = [Greeter()]")
    inside = refusal(f"{Path.cwd()}/{module}.py")
    assert inside.failure.hint == f"write {module}:services"
    outside = refusal(f"/somewhere/else/{module}.py:those")
    assert outside.failure.hint == f"go to /somewhere/else and write {module}:those"


def test_what_the_module_raises_is_shown_with_the_lines_of_it_alone(write: Write) -> None:
    module = write("import json\nservices = json.loads('{')\n")
    error = refusal(module)
    lines = str(error).splitlines()
    assert error.failure.exit_code == Exit.FAILED
    assert lines[0] == f"the module {module} can not be imported:"
    assert [line for line in lines if line.startswith("  File")] == [
        f'  File "{Path.cwd() / module}.py", line 4, in <module>'
    ]
    assert lines[-1].startswith("json.decoder.JSONDecodeError: ")


def test_a_syntax_error_is_shown_with_its_place(write: Write) -> None:
    module = write("def f(:\n")
    told = str(refusal(module))
    assert f'{module}.py", line 3' in told
    assert "importlib" not in told


def test_a_module_that_lacks_another_one_shows_its_own_line(write: Write) -> None:
    module = write("import nothing_of_that_name\n")
    error = refusal(module)
    assert error.failure.exit_code == Exit.FAILED
    assert f'{module}.py", line 3' in str(error)
    assert str(error).endswith("No module named 'nothing_of_that_name'")


def test_a_module_that_exits_is_no_end_of_the_command(write: Write) -> None:
    assert str(refusal(write("raise SystemExit('no settings')"))).endswith("no settings")


def test_a_function_that_fails_is_shown_like_its_module(write: Write) -> None:
    module = write("def make():\n    raise RuntimeError('boom')\n")
    error = refusal(f"{module}:make")
    assert str(error).startswith(f"{module}:make() failed:\n")
    assert str(error).endswith("RuntimeError: boom")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("services = [Greeter]", "has the class Greeter in it, which is no service"),
        ("services = Greeter", "is the class Greeter, and no list of services"),
        ("services = 'Greeter'", "is a `str`, and no list of services"),
        ("services = []", "is empty: there is nothing to serve"),
        ("services = [3]", "has a `int` in it, which is no service"),
        ("async def services(): ...", "is async: services are made before a loop runs"),
    ],
)
def test_what_is_no_list_of_services_is_told(write: Write, code: str, said: str) -> None:
    assert said in str(refusal(write(code)))
