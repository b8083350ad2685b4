"""Any arguments of the command end in a documented exit code, and never in a traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perdure.cli._main import run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
CODES = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
# All but `serve`, which would serve, and `replay --pdb`, which would wait at a prompt.
COMMANDS = sorted(set(re.findall(r"^#+ `perdure ([a-z]+)", PAGE, re.MULTILINE)) - {"serve"})
OPTIONS = sorted(
    set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--pdb", "--reload", "--install-completion"}
)

# Nothing listens on port 1; what is asked of it is refused at once.
AWAY = ["--admin-url", "http://127.0.0.1:1", "--url", "http://127.0.0.1:1"]
WORDS = st.one_of(
    st.sampled_from(
        [
            *("--", "-", "", " ", "\x1b[31m", "é", "\udcff", "1" * 400, "-1", "0", "1e999"),
            *("{", "null", '"x"', "[" * 500, '{"a": 1}', "NaN", "@", "@missing", "a/b", "a/b/c"),
            *("inv_" + "0" * 26, "inv_x", ".", "..", "/", "/dev/null", "data", "missing/data"),
            *("a:b", "os:path", "json:dumps", "http://", "http://127.0.0.1:1", "1h", "x=y", "="),
        ]
    ),
    st.sampled_from(OPTIONS),
    # A program can not be given a zero byte, nor other surrogates than those of stray bytes.
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PERDURE_")]:
        monkeypatch.delenv(name)


def test_the_page_names_commands_options_and_codes() -> None:
    assert {"ps", "describe", "send", "replay", "doctor"} <= set(COMMANDS)
    assert {"--data", "--json"} <= set(OPTIONS)
    assert {0, 1, 2} <= CODES


@pytest.mark.parametrize("command", COMMANDS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(WORDS, max_size=6))
@example(words=["--data", "missing"])
@example(words=["--json", "--data", "/dev/null"])
def test_any_arguments_end_in_a_documented_code(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([command, *AWAY[: 2 * (len(words) % 3)], *words])
    shown = capsys.readouterr()
    assert code in CODES, (code, shown.err)
    assert "Traceback" not in shown.err
    if code != 0:
        assert shown.err.strip() or shown.out.strip()
