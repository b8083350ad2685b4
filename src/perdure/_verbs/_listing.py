"""The verbs that list."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from perdure._runtime._filter import InvocationFilter
from perdure._runtime._listing import InvocationPage, InvocationSummary

_ITEMS_PER_PAGE = 256


class Listing(ABC):
    """Invocations, page by page or one after the other."""

    @abstractmethod
    async def invocations(
        self,
        filter: InvocationFilter | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
    ) -> InvocationPage: ...

    async def all_invocations(
        self, filter: InvocationFilter | None = None
    ) -> AsyncIterator[InvocationSummary]:
        """The invocations one after the other, as ``async for`` asks for them.

        It reads page after page: what changes meanwhile may or may not be seen.

        Raises:
          InvalidInput: *filter* is none.
        """
        cursor: str | None = None
        while True:
            page = await self.invocations(filter, limit=_ITEMS_PER_PAGE, cursor=cursor)
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return
            await asyncio.sleep(0)  # where all is committed, a page does not wait for anything
