"""Commands on a data directory that no engine has open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_support import NOWHERE, Ask, asking, serving

import perdure


@dataclass
class Left:
    """What a server has left behind: a workflow that waits, and one that has completed."""

    folder: Path
    waiting: str
    completed: str

    @property
    def data(self) -> str:
        return str(self.folder / "data")


@pytest.fixture
def alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    return asking(NOWHERE, capsys, monkeypatch)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("left")

    async def fill(url: str) -> tuple[str, str]:
        async with perdure.connect(url) as client:
            waiting = await client.send("Order.run", "a book", key="waits")
            completed = await client.send("Order.run", "a pen", key="done")
            await client.resolve("Order.place", "the door", key="done")
            await completed.result()
            return waiting.id, completed.id

    with serving(folder) as server:
        ids = asyncio.run(fill(server.url))
        assert server.stop().code == 0
    return Left(folder, *ids)


def test_what_reads_reads_a_directory(alone: Ask, left: Left) -> None:
    data = ("--data", left.data)
    listed = alone.json("ps", *data)["items"]
    assert {each["id"]: each["status"] for each in listed} == {
        left.waiting: "suspended",
        left.completed: "completed",
    }
    assert alone.json("describe", left.waiting, *data)["waiting_on"][0]["name"] == "place"
    assert "promise 'place'" in alone("describe", left.waiting, *data).out
    assert alone.json("state", "get", "Order/waits", *data) == {"item": "a book"}
    assert alone.json("promise", "ls", "Order/done", *data)["promises"][0]["value"] == "the door"


def test_sql_reads_a_directory(alone: Ask, left: Left) -> None:
    query = "SELECT target_service_key, status FROM sys_invocation ORDER BY 1"
    assert alone.json("sql", query, "--data", left.data)["rows"] == [
        {"target_service_key": "done", "status": "completed"},
        {"target_service_key": "waits", "status": "suspended"},
    ]
    shown = alone("sql", query, "--data", left.data).out.splitlines()
    assert [line.split() for line in shown] == [
        ["target_service_key", "status"],
        ["done", "completed"],
        ["waits", "suspended"],
    ]
    none = alone("sql", "SELECT id FROM sys_invocation WHERE 0", "--data", left.data)
    assert (none.code, none.out) == (0, "id\n")
    assert alone("sql", "DELETE FROM sys_invocation", "--data", left.data).code == 2


def test_a_result_is_read_from_a_directory_where_there_is_one(alone: Ask, left: Left) -> None:
    assert alone.json("attach", left.completed, "--data", left.data) == "a pen to the door"
    assert alone("attach", left.waiting, "--data", left.data).code == 1


@pytest.mark.parametrize("deep", [(), ("--deep",)])
def test_doctor_finds_a_sound_directory_sound(
    alone: Ask, left: Left, deep: tuple[str, ...]
) -> None:
    found = alone.json("doctor", "--data", left.data, *deep)
    assert (found["ok"], found["deep"], found["findings"]) == (True, bool(deep), [])
    told = alone("doctor", "--data", left.data, *deep).out
    assert ["verdict", "ok"] in [line.split() for line in told.splitlines()]
    assert ("--deep does that" in told) is not bool(deep)


def test_doctor_finds_a_damaged_directory_not_sound(alone: Ask, left: Left, tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes((left.folder / "data" / "data.mdb").read_bytes()[:-4096])
    done = alone("doctor", "--data", str(tmp_path), "--json")
    assert (done.code, done.json["ok"], done.err) == (1, False, "")
    assert "not ok" in alone("doctor", "--data", str(tmp_path)).out


def test_a_backup_is_made_of_a_directory_and_restored(
    alone: Ask, left: Left, tmp_path: Path
) -> None:
    backup, restored = str(tmp_path / "backup"), str(tmp_path / "restored")
    made = alone.json("backup", backup, "--data", left.data)
    assert made["path"] == backup
    assert made["bytes"] == (tmp_path / "backup" / "data.mdb").stat().st_size
    assert alone("restore", backup, restored).out == f"an engine can open {restored}\n"
    assert len(alone.json("ps", "--data", restored)["items"]) == 2


def test_a_backup_overwrites_nothing(alone: Ask, left: Left, tmp_path: Path) -> None:
    done = alone("backup", str(tmp_path), "--data", left.data, "--json")
    assert (done.code, done.error["kind"]) == (3, "StoreError")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_backup_is_not_restored(alone: Ask, tmp_path: Path) -> None:
    done = alone("restore", str(tmp_path), str(tmp_path / "new"))
    assert (done.code, "is no backup" in done.err) == (3, True)


def test_a_directory_that_is_none_is_exit_code_3_and_is_not_made(
    alone: Ask, tmp_path: Path
) -> None:
    done = alone("ps", "--data", str(tmp_path / "nothing"))
    assert (done.code, done.out) == (3, "")
    assert not (tmp_path / "nothing").exists()


def test_a_directory_that_a_server_has_is_read_from_the_server(alone: Ask, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        done = alone("ps", "--data", str(server.data))
        assert (done.code, f"in use by process {server.process.pid}" in done.err) == (3, True)
        assert alone("ps", "--admin-url", server.admin_url).code == 0
        copied = tmp_path / "copy"
        assert alone("backup", str(copied), "--admin-url", server.admin_url).code == 0
        assert alone("doctor", "--data", str(copied), "--deep").code == 0
