"""A view: a data directory read without its engine and without its services.

The rows are shown as they stand. An engine tells ``blocked`` where an invocation's service is not
registered with it; a view has no services, and tells where the invocation is: ready, suspended,
scheduled and so on. Nothing runs, so nothing is ``running``, and due timers have not fired.
"""

from __future__ import annotations

import asyncio
import functools
import os
from types import TracebackType
from typing import Any

from perdure._backing_up import BackingUp
from perdure._ids import parse_id
from perdure._limits import check_key
from perdure._reading import Reading
from perdure._results import decode_output
from perdure._runtime._clock import WallClock
from perdure._runtime._host import Host
from perdure._runtime._keyed import PromiseInfo, read_promises, read_state
from perdure._runtime._layout import Record
from perdure._runtime._registry import Registry
from perdure._runtime._scheduler import Scheduler
from perdure._store import Db, ReadOnlyStore, Store
from perdure.errors import StoreClosed
from perdure.retry import DEFAULT_RETRY
from perdure.serde import UNTYPED, serde_for
from perdure.service import service_name


class View(Reading, BackingUp):
    """The data directory *path*, read only: ``async with View("./data") as view``.

    It writes nothing, makes nothing, runs no handler and fires no timer. While it is open no engine
    can open the directory, so it shows one moment. Values are decoded without their types.

    Raises, when it is opened:
      DataDirectoryInUse: An engine has it open: ask that.
      StoreCorrupt: It is damaged.
      StoreError: It is no data directory of perdure, or can not be read.
    """

    _noun = "view"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__({})
        self._path = os.fspath(path)

    async def __aenter__(self) -> View:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the directory, once."""
        if self._loop is not None:
            raise StoreClosed("this view was opened before; make another View")
        store = ReadOnlyStore(self._path)
        try:
            loop = asyncio.get_running_loop()
            self._scheduler = Scheduler(
                store,
                _AllServices(store),
                loop=loop,
                clock=WallClock(),
                host=Host(),
                max_resident=0,
                step_threads=1,
            )
            self._loop = loop
        except BaseException:
            store.close()
            raise

    async def close(self) -> None:
        """Let go of the directory."""
        if self._scheduler is not None:
            await self._stop_backups()
            # The scheduler has done nothing, so it has nothing to close but the store.
            scheduler, self._scheduler = self._scheduler, None
            scheduler.draining = True
            scheduler.store.close()

    async def output(self, invocation_id: str, returns: Any = None) -> Any:
        """The result of an invocation, if there is one; *returns*: its type, else none is known.

        Raises:
          NotReady: It has not completed.
          NotFound: There is none with this id, or its result is not kept.
          TerminalError: As the invocation failed.
        """
        output = await self._results.now(parse_id(invocation_id))
        return decode_output(output, serde_for(UNTYPED if returns is None else returns))

    async def state(self, service: type | str, key: str) -> dict[str, Any]:
        """The state of a key by name; empty where nothing is set, or no such service is known.

        Raises:
          InvalidInput: It is no service, or no key.
        """
        name = _keyed(service, key)
        return await self._results.look(functools.partial(read_state, service=name, key=key))

    async def promises(self, workflow: type | str, key: str) -> list[PromiseInfo]:
        """The promises of a workflow's key that are completed or waited for; empty as for state.

        Raises:
          InvalidInput: It is no workflow, or no key.
        """
        name = _keyed(workflow, key)
        return await self._results.look(functools.partial(read_promises, service=name, key=key))


def _keyed(service: type | str, key: str) -> str:
    name = service_name(service)
    check_key(key, f"key of {name}")
    return name


class _AllServices(Registry):
    """Takes each invocation for one of a registered service, and knows no service."""

    def __init__(self, store: Store) -> None:
        super().__init__({}, DEFAULT_RETRY)
        self._store = store

    def why_blocked(self, record: Record) -> str:
        return ""

    def takes_turns(self, invocation_id: bytes, record: Record) -> bool:
        # Only what takes turns has a place in the line of its key.
        return invocation_id in self._in_line

    @functools.cached_property
    def _in_line(self) -> frozenset[bytes]:
        found: set[bytes] = set()
        start = b""
        while page := self._store.scan_committed(Db.INBOX, start):
            found.update(value for _, value in page)
            start = page[-1][0] + b"\0"
        return frozenset(found)
