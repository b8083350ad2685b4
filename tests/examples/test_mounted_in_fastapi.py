"""The application of FastAPI with an engine in it, in the process and under uvicorn."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from engine_support import run
from loopback import served

from mounted_in_fastapi import application

NUMBER = "2026%2F17"
TEA = {"article": "tea", "count": 2}


@contextlib.asynccontextmanager
async def in_process(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    shop = application(data)
    transport = httpx.ASGITransport(shop)
    async with (
        shop.router.lifespan_context(shop),
        httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def under_uvicorn(data: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served(application(data), lifespan="on") as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


Opened = Callable[[Path], contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.mark.parametrize("opened", [in_process, under_uvicorn])
@pytest.mark.parametrize("number", ["17", NUMBER])
def test_an_order_is_placed_paid_for_and_sent_off(
    tmp_path: Path, opened: Opened, number: str
) -> None:
    async def main() -> None:
        async with opened(tmp_path) as client:
            placed = await client.put(f"/orders/{number}", json=TEA)
            assert placed.status_code == 202
            assert placed.json()["status"] == "Accepted"
            again = await client.put(f"/orders/{number}", json=TEA)
            assert again.json()["status"] == "PreviouslyAccepted"
            assert (await client.get(f"/orders/{number}")).json() == "waits for payment"
            paid = await client.post(f"/durable/Delivery/{number}/pay", json="ada")
            assert paid.status_code == 200
            again = await client.post(f"/durable/Delivery/{number}/pay", json="bob")
            assert again.status_code == 409
            result = await client.get(f"/durable/restate/workflow/Delivery/{number}/attach")
            assert result.json() == "ada"
            assert (await client.get(f"/orders/{number}")).json() == "sent off"

    run(main())


def test_an_order_outlives_the_application(tmp_path: Path) -> None:
    async def main() -> None:
        async with in_process(tmp_path) as client:
            await client.put(f"/orders/{NUMBER}", json=TEA)
        async with in_process(tmp_path) as client:
            assert (await client.get(f"/orders/{NUMBER}")).json() == "waits for payment"

    run(main())


def test_an_error_of_a_handler_is_an_answer_of_the_application(tmp_path: Path) -> None:
    async def main() -> None:
        async with in_process(tmp_path) as client:
            unknown = await client.get("/orders/1")
            assert (unknown.status_code, unknown.json()) == (404, {"detail": "there is no order 1"})
            assert (await client.put("/orders/1", json={"article": "tea"})).status_code == 422

    run(main())


def test_the_admin_is_below_a_path_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with in_process(tmp_path) as client:
            await client.put(f"/orders/{NUMBER}", json=TEA)
            listed = await client.get("/operations/invocations", params={"service": "Delivery"})
            assert [each["key"] for each in listed.json()["items"]] == ["2026/17"]
            assert (await client.get("/durable/invocations")).status_code == 400

    run(main())
