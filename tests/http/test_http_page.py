"""The page on HTTP lists what the apps answer, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from engine_support import Place, run
from http_support import Counter, Greeter, wire

import perdure
from perdure import Context, ObjectContext, WorkflowContext
from perdure.http._openapi_admin import admin_document
from perdure.http._openapi_ingress import ingress_document
from perdure.service import definition_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "http.md"


class Plain(perdure.Service):
    @perdure.handler
    async def handle(self, ctx: Context) -> None: ...


class Thing(perdure.VirtualObject):
    @perdure.handler
    async def handle(self, ctx: ObjectContext) -> None: ...


class Flow(perdure.Workflow):
    async def run(self, ctx: WorkflowContext, word: str) -> None: ...


PLACEHOLDERS = {
    "Plain": "{service}",
    "Thing": "{object}",
    "Flow": "{workflow}",
    "handle": "{handler}",
}


def section(title: str) -> str:
    text = PAGE.read_text("utf-8")
    return re.split(r"^## ", text.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


def listed(title: str) -> set[tuple[str, str]]:
    rows = re.findall(r"^\| ([A-Z]+) \| `(/[^`]*)` \|", section(title), re.MULTILINE)
    assert len(rows) == len(set(rows))
    return {(path, method) for method, path in rows}


def described(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (re.sub(r"[^/]+", lambda part: PLACEHOLDERS.get(part[0], part[0]), path), method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }


def test_the_page_lists_exactly_the_paths_of_the_admin() -> None:
    assert listed("Admin") == described(admin_document())


def test_the_page_lists_exactly_the_paths_of_the_ingress() -> None:
    services = {
        definition_of(each).name: ((definition_of(each), None),) for each in (Plain, Thing, Flow)
    }
    # A run is called as a handler of an object is.
    run = {
        (path, method)
        for path, method in described(ingress_document(services))
        if path.startswith("/{workflow}/")
    }
    assert run == {("/{workflow}/{key}/run", "POST"), ("/{workflow}/{key}/run/send", "POST")}
    assert listed("Ingress") == described(ingress_document(services)) - run


def aliases() -> list[tuple[str, str]]:
    return re.findall(r"^\| `(/[^`]*)` \| `(/[^`]*)` \|", section("Ingress"), re.MULTILINE)


def test_the_page_has_aliases() -> None:
    assert len(aliases()) == 8


@pytest.mark.parametrize(("alias", "path"), aliases())
def test_an_alias_is_answered_as_what_it_stands_for(
    resident_place: Place, alias: str, path: str
) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            names = {
                "service": definition_of(Greeter).name,
                "object": definition_of(Counter).name,
                "key": "k",
                "handler": "total" if "{object}" in path else "noargs",
                "invocation_id": "inv_06d3pdls0000f7hnf6snuijs2k",
                "awakeable_id": "sign_x",
            }
            method = "GET" if "{invocation_id}" in path else "POST"
            answers = [
                await on.ingress.request(method, each.format(**names)) for each in (alias, path)
            ]
            assert answers[0].status_code == answers[1].status_code != 405
            messages = [each.json().get("message") for each in answers if each.is_error]
            assert len(set(messages)) <= 1
            assert not any(message.startswith("bad path") for message in messages)

    run(main())
