"""The OpenAPI documents: valid, complete, and true to the handlers' types."""

from __future__ import annotations

import importlib
import re
import types
from pathlib import Path

import httpx
import openapi_support
import pydantic
import pytest
from engine_support import Place, run
from http_support import Counter, Greeter, Signup, Waiter, wire
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_support import Basket, Forest, Odd, Shop, Tree, Visit

import perdure
from perdure import Context, Service, handler
from perdure._schemas import Components, schema_of
from perdure.http import admin
from perdure.http._admin import VERBS, Admin
from perdure.http._openapi_admin import admin_document
from perdure.http._openapi_ingress import ingress_document, service_document
from perdure.service import Versions, definition_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HERE = [Greeter, Counter, Signup, Waiter, Shop, Odd, Basket, Visit]


def versions_of(cls: type) -> Versions:
    """*cls* as an engine has it, but for the instance."""
    definition = definition_of(cls)
    definition.resolve_types()
    return ((definition, None),)


def example_services() -> list[type]:
    modules = [importlib.import_module(path.stem) for path in sorted(EXAMPLES.glob("*.py"))]
    bases = (perdure.Service, perdure.VirtualObject, perdure.Workflow)
    return [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, bases)
        and each.__module__ == module.__name__
        and not definition_of(each).abstract
    ]


EXAMPLE_SERVICES = example_services()


@pytest.mark.parametrize(
    "cls", [*HERE, *EXAMPLE_SERVICES], ids=lambda cls: f"{cls.__module__}.{cls.__name__}"
)
def test_the_document_of_a_service_is_valid(cls: type) -> None:
    OpenAPIV31SpecValidator(service_document(versions_of(cls))).validate()


def test_the_examples_have_services() -> None:
    assert len(EXAMPLE_SERVICES) >= 10


def test_the_document_of_the_ingress_is_valid() -> None:
    services = {definition_of(each).name: versions_of(each) for each in HERE}
    OpenAPIV31SpecValidator(ingress_document(services)).validate()


def test_the_document_of_the_admin_is_valid() -> None:
    OpenAPIV31SpecValidator(admin_document()).validate()


def test_the_apps_answer_their_documents(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            whole = (await on.ingress.get("/perdure/openapi")).json()
            assert whole["servers"] == [{"url": "/"}]
            assert whole["info"]["title"] == "perdure ingress"
            assert whole["paths"] == ingress_document(on.engine._services)["paths"]
            one = (await on.admin.get("/services/Counter/openapi")).json()
            assert one["info"] == {"title": "Counter", "version": "1"}
            own = (await on.admin.get("/openapi")).json()
            assert own["paths"] == admin_document()["paths"]
            assert (await on.admin.get("/services/Nope/openapi")).status_code == 404

    run(main())


def test_a_mounted_app_says_where_it_is(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine() as engine:
            transport = httpx.ASGITransport(app=admin(engine), root_path="/operate")
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                document = (await client.get("/operate/openapi")).json()
            assert document["servers"] == [{"url": "/operate"}]

    run(main())


# -- what is in them --------------------------------------------------------------------------


def test_a_handler_is_described_by_its_types_and_its_docstring() -> None:
    document = service_document(versions_of(Shop))
    order = document["paths"]["/Shop/order"]["post"]
    assert order["summary"] == "Order something."
    assert order["description"] == "Order something.\n\nIt is not delivered."
    reference = {"$ref": "#/components/schemas/Order"}
    assert order["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": reference}},
    }
    assert order["responses"]["200"]["content"] == {"application/json": {"schema": reference}}
    assert document["components"]["schemas"]["Line"]["properties"]["count"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
    }
    assert document["info"]["description"] == (
        "Takes and returns values of many types.\n\nEach as it is."
    )


def test_a_body_is_there_as_the_handler_takes_it() -> None:
    paths = service_document(versions_of(Shop))["paths"]
    content = paths["/Shop/content"]["post"]
    assert content["requestBody"]["content"] == {"application/octet-stream": {}}
    assert content["responses"]["200"]["content"] == {"application/octet-stream": {}}
    nothing = paths["/Shop/nothing"]["post"]
    assert "requestBody" not in nothing
    assert "content" not in nothing["responses"]["200"]
    assert paths["/Shop/options"]["post"]["requestBody"]["required"] is False
    anything = paths["/Shop/anything"]["post"]
    assert anything["requestBody"]["content"] == {"application/json": {"schema": {}}}


def test_a_get_is_there_where_the_argument_may_be_left_out() -> None:
    paths = service_document(versions_of(Shop))["paths"]
    assert set(paths["/Shop/nothing"]) == set(paths["/Shop/options/send"]) == {"get", "post"}
    assert set(paths["/Shop/order"]) == {"post"}


def test_private_handlers_are_left_out() -> None:
    assert not any("secret" in path for path in service_document(versions_of(Greeter))["paths"])


def test_a_workflow_has_its_results_and_its_promises() -> None:
    document = service_document(versions_of(Visit))
    assert set(document["paths"]) == {
        *("/Visit/{key}/run", "/Visit/{key}/run/send"),
        *("/Visit/{key}/seen", "/Visit/{key}/seen/send"),
        "/perdure/submit/Visit/{key}/run",
        *("/restate/workflow/Visit/{key}/attach", "/restate/workflow/Visit/{key}/output"),
        "/perdure/promises/Visit/{key}/welcome/resolve",
        *(f"/perdure/promises/Visit/{{key}}/{{promise}}/{verb}" for verb in ("resolve", "reject")),
        *(f"/restate/invocation/{{invocation_id}}/{verb}" for verb in ("attach", "output")),
    }
    resolve = document["paths"]["/perdure/promises/Visit/{key}/welcome/resolve"]["post"]
    (schema,) = resolve["requestBody"]["content"].values()
    assert schema == {"schema": {"$ref": "#/components/schemas/Leaf"}}
    assert "470" in document["paths"]["/restate/workflow/Visit/{key}/output"]["get"]["responses"]
    run = document["paths"]["/Visit/{key}/run"]["post"]
    assert [each["name"] for each in run["parameters"]] == ["key"]  # no idempotency key


# -- schemas ----------------------------------------------------------------------------------


def test_classes_of_one_name_are_components_of_their_own() -> None:
    first = types.new_class("Item", (pydantic.BaseModel,), {})
    other = pydantic.create_model("Item", price=(float, ...))
    components = Components()
    several = types.GenericAlias(list, (other,))
    references = [components.of(each, output=False) for each in (first, other, several, first)]
    assert references == [
        {"$ref": "#/components/schemas/Item"},
        {"$ref": "#/components/schemas/Item2"},
        {"type": "array", "items": {"$ref": "#/components/schemas/Item2"}},
        {"$ref": "#/components/schemas/Item"},
    ]
    assert set(components.schemas["Item2"]["properties"]) == {"price"}


def test_a_model_that_is_read_otherwise_than_written_is_two_components() -> None:
    components = Components()
    read, written = (components.of(Tree, output=output) for output in (False, True))
    assert read != written
    shown = components.schemas[written["$ref"].rpartition("/")[2]]
    assert "size" in shown["properties"]
    assert shown["properties"]["children"]["items"] == written
    assert "size" not in components.schemas[read["$ref"].rpartition("/")[2]]["properties"]


def test_a_model_in_a_dataclass_is_a_component() -> None:
    components = Components()
    reference = components.of(Forest, output=False)
    assert reference == {"$ref": "#/components/schemas/Forest"}
    trees = components.schemas["Forest"]["properties"]["trees"]
    assert trees == {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}
    assert set(components.schemas) == {"Forest", "Tree", "Leaf"}


def test_a_name_of_perdure_s_own_is_left_to_it() -> None:
    user_error = pydantic.create_model("Error", why=(str, ...))

    async def fail(self: object, ctx: Context, error: object) -> None: ...

    fail.__annotations__.update(error=user_error)
    failing = types.new_class("Failing", (Service,), {}, lambda body: body.update(f=handler(fail)))
    document = service_document(versions_of(failing))
    assert set(document["components"]["schemas"]) == {"Error", "Error2"}
    assert "message" in document["components"]["schemas"]["Error"]["properties"]


def test_a_type_without_a_schema_has_an_open_one() -> None:
    class Holder(pydantic.BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        inner: openapi_support.Opaque
        name: str

    components = Components()
    assert components.of(Holder, output=False) == {"$ref": "#/components/schemas/Holder"}
    properties = components.schemas["Holder"]["properties"]
    assert properties["name"] == {"title": "Name", "type": "string"}
    assert "type" not in properties["inner"]
    assert components.of(complex, output=False) == {"description": "complex"}
    items = components.of(list[openapi_support.Opaque], output=False)
    assert items == {"type": "array", "items": {"description": "Opaque"}}


def test_a_schema_by_itself_holds_what_it_refers_to() -> None:
    schema = schema_of(Forest, output=True)
    assert schema["$ref"] == "#/$defs/Forest"
    assert set(schema["$defs"]) == {"Forest", "Tree", "Leaf"}
    assert schema_of(int, output=True) == {"type": "integer"}


def test_handlers_are_listed_with_their_schemas(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            handlers = {
                each["name"]: (each["input_json_schema"], each["output_json_schema"])
                for each in (await on.admin.get("/services/Greeter")).json()["handlers"]
            }
            assert handlers["greet"] == ({"type": "string"}, {"type": "string"})
            assert handlers["raw"] == (None, None)
            assert handlers["void"] == ({"type": "string"}, None)
            assert handlers["noargs"] == (None, {"type": "string"})
            assert handlers["untyped"] == ({}, {})

    run(main())


def test_metadata_is_shown_where_services_are_listed_and_in_their_documents(
    resident_place: Place,
) -> None:
    class Mail(Service, metadata={"owner": "post"}):
        @handler(metadata={"cost": "high"})
        async def send(self, ctx: Context) -> None: ...

        @handler
        async def read(self, ctx: Context) -> None: ...

    document = service_document(((definition_of(Mail), Mail()),))
    assert document["info"]["x-perdure-metadata"] == {"owner": "post"}
    assert document["paths"]["/Mail/send"]["post"]["x-perdure-metadata"] == {"cost": "high"}
    assert "x-perdure-metadata" not in document["paths"]["/Mail/read"]["post"]
    OpenAPIV31SpecValidator(document).validate()

    async def main() -> None:
        async with resident_place.engine(Mail()) as engine:
            transport = httpx.ASGITransport(admin(engine))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                listed = (await client.get("/services/Mail")).json()
        assert listed["metadata"] == {"owner": "post"}
        assert [each["metadata"] for each in listed["handlers"]] == [{"cost": "high"}, {}]

    run(main())


# -- the routes -------------------------------------------------------------------------------


def test_each_route_of_the_admin_is_in_its_document_and_the_other_way_round(
    resident_place: Place,
) -> None:
    described = {
        (path, method.upper())
        for path, operations in admin_document()["paths"].items()
        for method in operations
    }
    assert described == routes_of(Admin(resident_place.engine()))


def routes_of(app: Admin) -> set[tuple[str, str]]:
    """Paths and methods, as a document writes them."""
    found = set()
    for route in app.routes:
        path = re.sub(":path}", "}", route.path)
        for method in route.allowed:
            if method != "HEAD":
                verbs = VERBS if path.endswith("{verb}") else [""]
                found |= {(path.replace("{verb}", verb), method) for verb in verbs}
    return found


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/health", "GET, HEAD"),
        ("/invocations/cancel", "PATCH"),
        ("/invocations/inv_x", "DELETE, GET, HEAD"),
        ("/invocations/inv_x/cancel", "PATCH"),
        ("/state/Counter/a/b", "GET, HEAD, PUT"),
    ],
)
def test_a_method_that_a_path_has_not_is_refused_with_those_it_has(
    resident_place: Place, path: str, allowed: str
) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            for method in ("POST", "OPTIONS"):
                answer = await on.admin.request(method, path)
                assert answer.status_code == answer.json()["code"] == 405
                assert answer.headers["allow"] == allowed

    run(main())
