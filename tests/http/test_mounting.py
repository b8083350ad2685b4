"""The apps below a path of other apps, behind proxies, and served by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

import httpx
import pytest
from engine_support import Place, run
from fastapi import FastAPI
from http_support import Counter, Greeter, Signup
from loopback import served
from starlette.applications import Starlette
from starlette.routing import Mount

from perdure import DataDirectoryInUse, Engine
from perdure.http import admin, ingress

KEY = "a%2Fb%20c"


def in_fastapi(engine: Engine) -> tuple[Any, str]:
    app = FastAPI(lifespan=_opening(engine))
    app.mount("/durable", ingress(engine))
    app.mount("/operations", admin(engine))
    return app, ""


def in_starlette(engine: Engine) -> tuple[Any, str]:
    mounts = [Mount("/durable", ingress(engine)), Mount("/operations", admin(engine))]
    return Starlette(routes=mounts, lifespan=_opening(engine)), ""


def in_a_mount_of_a_mount(engine: Engine) -> tuple[Any, str]:
    inner, _ = in_fastapi(engine)
    middle = Starlette(routes=[Mount("/durable", inner)])
    outer = FastAPI(lifespan=_opening(engine))
    outer.mount("/outer/{tenant}", middle)
    return outer, "/outer/durable/durable"


def _opening(engine: Engine) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with engine:
            yield

    return lifespan


@contextlib.asynccontextmanager
async def client_of(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with served(app, lifespan="on", **options) as url, httpx.AsyncClient() as client:
        client.base_url = httpx.URL(url)
        yield client


async def ask_below(client: httpx.AsyncClient, prefix: str) -> None:
    """Keys with a slash in them, a path and one that is empty arrive as they were meant."""
    for number, key in enumerate((KEY, "", "durable", "%C3%A9", "restate")):
        path = f"{prefix}/durable/Counter/{key}/add"
        assert (await client.post(path, json=number)).json() == number
        assert (await client.post(f"{path}/", json=1)).json() == number + 1
        total = f"{prefix}/durable/restate/call/Counter/{key}/total"
        assert (await client.get(total)).json() == number + 1
    assert (await client.post(f"{prefix}/durable/Signup/{KEY}/run/send", json="A")).is_success
    assert (await client.post(f"{prefix}/durable/Signup/{KEY}/approve", json="yes")).is_success
    attached = f"{prefix}/durable/restate/workflow/Signup/{KEY}/attach"
    assert (await client.get(attached)).json() == "A:yes"
    assert (await client.get(f"{prefix}/durable/nowhere")).status_code == 400
    health = await client.get(f"{prefix}/durable/restate/health")
    assert health.json() == {"server": "perdure", "services": ["Counter", "Greeter", "Signup"]}


async def ask_admin(client: httpx.AsyncClient, prefix: str) -> None:
    state = await client.get(f"{prefix}/operations/state/Counter/{KEY}")
    assert state.json() == {"state": {"total": 1}}
    assert (await client.get(f"{prefix}/operations/health")).json() == {}


@pytest.mark.parametrize("outer", [in_fastapi, in_starlette, in_a_mount_of_a_mount])
@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy", "/durable"])
def test_below_any_path_the_apps_are_the_same(
    resident_place: Place, outer: Callable[[Engine], tuple[Any, str]], root_path: str
) -> None:
    async def main() -> None:
        engine = resident_place.engine(Greeter(), Counter(), Signup())
        app, prefix = outer(engine)
        # uvicorn is told what a proxy in front of it has taken off the path.
        async with client_of(app, root_path=root_path) as client:
            assert engine.is_open
            await ask_below(client, prefix)
            await ask_admin(client, prefix)
        assert not engine.is_open

    run(main())


@pytest.mark.parametrize("root_path", ["/Greet", "/Greeter/gre", "/elsewhere", "/"])
def test_a_root_path_that_is_not_in_front_of_the_path_takes_nothing_off(
    resident_place: Place, root_path: str
) -> None:
    async def main() -> None:
        async with resident_place.engine(Greeter()) as engine:
            transport = httpx.ASGITransport(ingress(engine), root_path=root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                assert (await client.post("/Greeter/greet", json="Bob")).json() == "hi Bob"

    run(main())


@pytest.mark.parametrize("make", [ingress, admin])
def test_served_by_itself_an_app_opens_the_engine_and_closes_it(
    resident_place: Place, make: Callable[[Engine], Any]
) -> None:
    async def main() -> None:
        engine = resident_place.engine(Greeter())
        async with client_of(make(engine)) as client:
            assert engine.is_open
            health = "/health" if make is admin else "/restate/health"
            assert (await client.get(health)).is_success
        assert not engine.is_open

    run(main())


def test_an_engine_that_is_open_is_left_open(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Greeter()) as engine:
            async with client_of(ingress(engine)) as client:
                assert (await client.post("/Greeter/greet", json="Bob")).json() == "hi Bob"
            assert engine.is_open
            assert await engine.call(Greeter.greet, "Al") == "hi Al"

    run(main())


def test_an_engine_that_can_not_be_opened_ends_the_server(resident_place: Place) -> None:
    async def main() -> None:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "lifespan.startup"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        async with resident_place.engine(Greeter()):
            with pytest.raises(DataDirectoryInUse) as raised:
                await ingress(resident_place.engine(Greeter()))({"type": "lifespan"}, receive, send)
        assert sent == [{"type": "lifespan.startup.failed", "message": str(raised.value)}]

    run(main())


def test_mounted_in_an_app_that_does_not_open_the_engine_it_answers_503(
    resident_place: Place,
) -> None:
    async def main() -> None:
        engine = resident_place.engine(Greeter())
        app = Starlette(routes=[Mount("/durable", ingress(engine))])
        async with client_of(app) as client:
            answer = await client.post("/durable/Greeter/greet", json="Bob")
            assert answer.status_code == 503
            assert answer.headers["x-perdure-error"] == "StoreClosed"

    run(main())
