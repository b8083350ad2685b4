"""The witness that the torture trusts: each line that breaks a promise is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from outside import Line, Lines, Outside
from witness import Witness


def ran(step: str, identity: str = "a", **fields: Any) -> Line:
    line = {
        "what": "ran",
        "pid": 1,
        "t": 0.0,
        "wall": 100.0,
        "id": identity,
        "step": step,
        "token": f"{identity}-{step}",
        "saw": ["now"],
        "settled": [],
        "once": "",
    }
    return {**line, "exclusive": "", **fields}


FINE = {
    "a step that runs again before its answer is durable": [ran("x"), ran("x")],
    "the next step": [ran("x"), ran("y", saw=["later", "1"], settled=["x"])],
    "one after the other in a key": [
        ran("x", "a", exclusive="k"),
        ran("y", "a", exclusive="k"),
        ran("x", "b", exclusive="k"),
    ],
    "one number again with the same payload": [
        ran("x", number=1, payload="p"),
        ran("x", number=1, payload="p"),
    ],
    "one invocation of a key": [ran("x", once="o"), ran("y", once="o")],
    "a kill after the last step": [ran("x"), {"what": "killed", "id": "a"}],
}

BROKEN = {
    "ran again although": [ran("x"), ran("y", settled=["x"]), ran("x")],
    "had been killed": [{"what": "killed", "id": "a"}, ran("x")],
    "had been told": [ran("x", saw=["now"]), ran("x", saw=["later"])],
    "had the token": [ran("x"), ran("x", token="other")],
    "has this token": [ran("x", token="t"), ran("y", token="t")],
    "another invocation": [ran("x", "a", once="o"), ran("x", "b", once="o")],
    "before its delay was over": [ran("x", not_before=100.1)],
    "one key at once: b": [
        ran("x", "a", exclusive="k"),
        ran("x", "b", exclusive="k"),
        ran("y", "a", exclusive="k"),
    ],
    "of one key at once": [{"what": "crowded", "place": "k", "ids": ["a", "b"]}],
    "p was published": [ran("x", number=1, payload="p"), ran("y", number=1, payload="q")],
}


@pytest.mark.parametrize("lines", FINE.values(), ids=FINE)
def test_what_may_happen_is_no_problem(lines: list[Line]) -> None:
    witness = Witness()
    witness.hear(lines)
    assert witness.problems == []


@pytest.mark.parametrize(("problem", "lines"), BROKEN.items(), ids=BROKEN)
def test_what_breaks_a_promise_is_found(problem: str, lines: list[Line]) -> None:
    witness = Witness()
    witness.hear(lines)
    (found,) = witness.problems
    assert problem in found


def test_a_line_cut_off_by_a_kill_is_left_out_and_hides_none_after_it(tmp_path: Path) -> None:
    path = tmp_path / "outside.jsonl"
    outside, lines = Outside(path), Lines(path)
    outside.note("first")
    with path.open("ab") as torn:
        torn.write(b'\n{"what": "torn", "pi')
    outside.note("second")
    assert [line["what"] for line in lines.further()] == ["first", "second"]
    outside.note("third")
    outside.close()
    assert [line["what"] for line in lines.further()] == ["third"]
