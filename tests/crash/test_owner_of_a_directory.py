"""One process owns a data directory, until it ends in whatever way."""

from __future__ import annotations

from pathlib import Path

from crash_support import Child


def owner(path: Path) -> Child:
    return Child("small_programs.py", run="owner", path=str(path))


def test_a_second_process_is_told_which_one_has_the_directory(tmp_path: Path) -> None:
    first = owner(tmp_path / "data")
    first.read_until("open")
    [refusal] = owner(tmp_path / "data").end_well()
    assert refusal["what"] == "refused"
    assert f"process {first.pid}:" in refusal["why"]
    first.kill()


def test_a_directory_is_free_once_its_owner_is_killed(tmp_path: Path) -> None:
    for _ in range(2):
        child = owner(tmp_path / "data")
        child.read_until("open")
        child.kill()
