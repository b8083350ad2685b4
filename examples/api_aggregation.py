"""One answer out of several: ask three APIs at once, each with a limit, and do without those that
fail.

Each answers in a format of its own. What came is journalled as it came, by its step; turning it
into the report is plain code of the handler, which a replay simply does again.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from xml.etree import ElementTree as ET

import perdure
from perdure import Context, RetryPolicy, TerminalError

Fetch = Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class CityReport:
    city: str
    celsius: float | None
    rates: dict[str, float]
    headlines: list[str]
    missing: list[str]


@dataclass
class Web:
    """Three APIs; those in *down* raise, those in *slow* do not answer in time."""

    down: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def weather(self, city: str) -> str:
        await self._serve("weather")
        return json.dumps({"city": city, "fahrenheit": 68})

    async def rates(self, city: str) -> str:
        await self._serve("rates")
        return "currency,rate\nUSD,1.1\nGBP,0.85\n"

    async def news(self, city: str) -> str:
        await self._serve("news")
        return f"<news><item>{city} has a new bridge</item><item>Rain</item></news>"

    async def _serve(self, api: str) -> None:
        self.asked.append(api)
        if api in self.down:
            raise OSError(f"{api} is down")
        if api in self.slow:
            await asyncio.sleep(3600)


class CityGuide(perdure.Service):
    def __init__(self, web: Web, *, limit: timedelta = timedelta(seconds=2)) -> None:
        self.web = web
        self.limit = limit

    @perdure.handler
    async def report(self, ctx: Context, city: str) -> CityReport:
        """All that is known of *city*; `missing` names what could not be had."""
        weather, rates, news = await asyncio.gather(
            self._fetch(ctx, "weather", self.web.weather, city),
            self._fetch(ctx, "rates", self.web.rates, city),
            self._fetch(ctx, "news", self.web.news, city),
        )
        found = {"weather": weather, "rates": rates, "news": news}
        return CityReport(
            city,
            celsius=None if weather is None else celsius_of(weather),
            rates={"USD": 1.0} if rates is None else rates_of(rates),
            headlines=[] if news is None else headlines_of(news),
            missing=[api for api, text in found.items() if text is None],
        )

    async def _fetch(self, ctx: Context, api: str, fetch: Fetch, city: str) -> str | None:
        retry = RetryPolicy(initial=0.05, max_attempts=2)
        try:
            return await ctx.run(api, fetch, city, retry=retry, timeout=self.limit)
        except TerminalError as error:  # both attempts failed: that is on record, too
            ctx.log.warning("no %s for %s: %s", api, city, error)
            return None


def celsius_of(text: str) -> float:
    return round((float(json.loads(text)["fahrenheit"]) - 32) / 1.8, 1)


def rates_of(text: str) -> dict[str, float]:
    rows = (line.split(",") for line in text.splitlines()[1:])
    return {currency: float(rate) for currency, rate in rows}


def headlines_of(text: str) -> list[str]:
    return [item.text or "" for item in ET.fromstring(text).iter("item")]


services = [CityGuide(Web())]


async def main() -> None:
    troubled = CityGuide(Web(down={"rates"}, slow={"news"}), limit=timedelta(seconds=0.2))
    for service in (CityGuide(Web()), troubled):
        with tempfile.TemporaryDirectory() as directory:
            async with perdure.Engine(directory, [service]) as engine:
                print(await engine.call(CityGuide.report, "Lisbon"))


if __name__ == "__main__":
    asyncio.run(main())
