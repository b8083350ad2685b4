"""An engine with a workload that is written to a log, and the life after the loss of power.

The workload is that of the tests of killed processes, and accounts: objects that are called under
idempotency keys.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import mixed_workload
from crash_support import Note, note, particulars
from evidence import Evidence
from invariants import violations
from mixed_workload import SOON, Mixed, Plain, Short, mixed, plain, short
from store_program import publish_early

import perdure
from perdure import ObjectContext, ObjectSharedContext, handler
from perdure._restoring import restore

Durability = Literal["fsync", "os"]
Known = tuple[tuple[str, str], ...]
Found = tuple[set[str], list[Note]]

COPIES = {"backup": "backed up", "restored": "restored"}
"""What is made of the data besides, and what is said when it has been."""


class Account(perdure.VirtualObject):
    """Remembers in its state who has been here, and answers with the how manieth one was."""

    @handler
    async def enter(self, ctx: ObjectContext, name: str) -> int:
        names = await ctx.get("names", list[str], [])
        ctx.set("names", [*names, name])
        await ctx.run("enter", asyncio.sleep, 0, returns=None)
        return len(names) + 1

    @handler
    async def names(self, ctx: ObjectSharedContext) -> list[str]:
        return await ctx.get("names", list[str], [])


async def account(engine: perdure.Engine, key: str, names: list[str]) -> None:
    note("names", key=key, value=await engine.call(Account.names, key=key))
    for name in names:
        note("entering", key=key, name=name)
        number = await engine.call(Account.enter, name, key=key, idempotency_key=name)
        note("entered", key=key, name=name, number=number)
    note("names", key=key, value=await engine.call(Account.names, key=key))


async def carry_on(
    data: str, life: int, durability: Durability, *, mixed_keys: list[str], again: list[Any]
) -> None:
    """Begin what is not begun yet, and end what is."""
    engine = perdure.Engine(
        data,
        [Mixed(), Short(), Plain(), Account()],
        durability=durability,
        max_resident=life % 2 * 10_000,
        default_retry=SOON,
    )
    async with engine, asyncio.TaskGroup() as clients:
        for key in mixed_keys:
            clients.create_task(mixed(engine, key, life))
        clients.create_task(short(engine, "short", life))
        clients.create_task(account(engine, "account", ["anna", "bert", "cleo"]))
        for name, invocation_id in again:
            clients.create_task(mixed_workload.again(engine, name, invocation_id))
        if life == 1:
            clients.create_task(plain(engine, "plain"))
            clients.create_task(back_up(engine, Path(data).with_name("backup")))


async def back_up(engine: perdure.Engine, target: Path) -> None:
    await engine.backup(target)
    note("backed up")


def main(
    root: str,
    durability: Durability = "fsync",
    mixed: int = 0,
    *,
    life: int = 1,
    early: bool = False,
    die_at: int = 0,
) -> None:
    if early:
        publish_early(lambda *end: asyncio.get_running_loop().call_later(0.005, *end))
    if die_at:
        mixed_workload.die_at("sealed", die_at)
    data, keys = str(Path(root, "data")), [f"mixed {number}" for number in range(mixed)]
    asyncio.run(carry_on(data, life, durability, mixed_keys=keys, again=[]))
    if life == 1:
        copy_back(root)


def copy_back(root: str) -> None:
    restore(Path(root, "backup"), Path(root, "restored"))
    note("restored")


# -- afterwards -----------------------------------------------------------------------------------


class Accounts:
    """Judges what was said of the accounts, in the order in which it was."""

    def __init__(self) -> None:
        self._entered: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._entering: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, notes: list[Note]) -> Iterator[str]:
        for said in notes:
            if said["what"] == "entering":
                self._entering[said["key"]].add(said["name"])
            elif said["what"] == "entered":
                entered = self._entered[said["key"]]
                if entered.setdefault(said["name"], said["number"]) != said["number"]:
                    yield f"{said['name']} was told {entered[said['name']]} before: {said}"
            elif said["what"] == "names":
                yield from self._names(said)

    def _names(self, said: Note) -> Iterator[str]:
        key, names = said["key"], said["value"]
        if len(set(names)) != len(names):
            yield f"somebody has entered twice: {said}"
        if not set(names) <= self._entering[key]:
            yield f"somebody has entered who never came: {said}"
        for name, number in self._entered[key].items():
            if names[number - 1 : number] != [name]:
                yield f"{name} has entered as number {number}: {said}"


class Judge:
    """Has an engine carry on with what the power has left, and judges both lives together."""

    def __init__(self, mixed: int = 0, **_: Any) -> None:
        self._keys = [f"mixed {number}" for number in range(mixed)]
        self._notes: list[Note] = []
        patch("mixed_workload.note", self._note).start()
        patch("engine_program.note", self._note).start()

    def _note(self, what: str, **fields: Any) -> None:
        self._notes.append({"what": what, **fields})

    def look(self, root: Path, known: Known) -> tuple[Found, list[str]]:
        """Which copies are there, and what the second life says; and what is wrong in any case."""
        problems: list[str] = []
        copies = {name for name in COPIES if (root / name / "data.mdb").exists()}
        for name in sorted(copies):
            problems += violations(root / name)
        data = root / "data"
        if (data / "data.mdb").exists():
            problems += violations(data)
        again = [(key, found) for key, found in known if key.startswith("sent ")]
        self._notes = []
        mixed_workload._met.clear()  # as in a new process
        asyncio.run(carry_on(str(data), 2, "fsync", mixed_keys=self._keys, again=again))
        return (copies, self._notes), problems + violations(data)

    def compare(self, found: Found, notes: list[Note]) -> Iterator[str]:
        copies, after = found
        evidence, accounts = Evidence(), Accounts()
        for life, said in ((1, notes), (2, after)):
            evidence.add(life, said)
            yield from accounts.add(said)
        yield from evidence.problems
        told = {note["id"] for note in after if note["what"] == "result"}
        for key, invocation_id in evidence.accepted.items():
            if invocation_id not in told:
                yield f"{key} was accepted and has no result"
        heard = {note["what"] for note in notes}
        for name, what in COPIES.items():
            if what in heard and name not in copies:
                yield f"it was said that the {name} is made, and it is not there"


logging.getLogger("perdure").setLevel(logging.ERROR)
if __name__ == "__main__":
    main(**particulars())
