"""Services to be asked at random: every handler returns at once, and none fails on purpose."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic

import perdure
from perdure import Context, ObjectContext, ObjectSharedContext, WorkflowContext
from perdure import WorkflowSharedContext as SharedContext


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Line:
    """One line of an order."""

    article: uuid.UUID
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    size: Size = Size.SMALL
    tags: list[str] = field(default_factory=list)


@dataclass
class Order:
    lines: list[Line]
    due: dt.date | None = None


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float
    inside: list[Circle | Square] = []


class Place(NamedTuple):
    latitude: float
    longitude: float


class Options(TypedDict, total=False):
    mode: Literal["fast", "slow"]
    limit: int


class Opaque:
    """Nothing that a schema could describe."""


class Leaf(pydantic.BaseModel):
    name: str


class Tree(pydantic.BaseModel):
    """A model that holds itself."""

    name: str = pydantic.Field(min_length=1)
    children: list[Tree] = []
    leaf: Leaf | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return 1 + sum(each.size for each in self.children)


@dataclass
class Forest:
    """A dataclass that holds models."""

    trees: list[Tree]
    first: Leaf | None = None


class Till(perdure.Service):
    """A few of what there is, for quick rounds."""

    @perdure.handler
    async def order(self, ctx: Context, order: Order) -> Order:
        """Order something.

        It is not delivered.
        """
        return order

    @perdure.handler
    async def nothing(self, ctx: Context) -> None: ...

    @perdure.handler
    async def content(self, ctx: Context, content: bytes) -> bytes:
        return content


class Shop(Till):
    """Takes and returns values of many types.

    Each as it is.
    """

    @perdure.handler
    async def shape(self, ctx: Context, shape: Circle | Square) -> Circle | Square:
        return shape

    @perdure.handler
    async def options(self, ctx: Context, options: Options | None = None) -> dict[str, Any]:
        return {**(options or {})}

    @perdure.handler
    async def tree(self, ctx: Context, tree: Tree) -> Tree:
        return tree

    @perdure.handler
    async def forest(self, ctx: Context, forest: Forest) -> Forest:
        return forest

    @perdure.handler
    async def number(self, ctx: Context, number: int) -> int:
        return number

    @perdure.handler
    async def fraction(self, ctx: Context, number: float) -> float:
        return number

    @perdure.handler
    async def anything(self, ctx: Context, value: Any) -> Any:
        return value

    @perdure.handler
    async def times(
        self, ctx: Context, times: list[dt.datetime | None]
    ) -> dict[str, dt.datetime | None]:
        return {str(index): time for index, time in enumerate(times)}


class Odd(perdure.Service):
    """Types of which the schema is right, and not asked at random.

    schemathesis does not read ``prefixItems`` of answers, and msgspec takes numbers for decimals,
    which it describes as texts.
    """

    @perdure.handler
    async def place(self, ctx: Context, place: Place) -> tuple[Place, int]:
        return place, 1

    @perdure.handler
    async def price(self, ctx: Context, price: Decimal) -> Decimal:
        return price


class Basket(perdure.VirtualObject):
    @perdure.handler
    async def put(self, ctx: ObjectContext, article: str) -> list[str]:
        articles = [*await ctx.get("articles", list[str], []), article][-3:]
        ctx.set("articles", articles)
        return articles

    @perdure.handler
    async def articles(self, ctx: ObjectSharedContext) -> list[str]:
        return await ctx.get("articles", list[str], [])


class Visit(perdure.Workflow):
    welcome = perdure.promise(Leaf)

    async def run(self, ctx: WorkflowContext, leaf: Leaf) -> Leaf:
        ctx.set("seen", leaf.name)
        return leaf

    @perdure.handler
    async def seen(self, ctx: SharedContext) -> str | None:
        return await ctx.get("seen", str, None)
