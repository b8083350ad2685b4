"""What Restate discovers of our services, and what of them is refused before it comes to ask."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import restate
from declared_services import Trip, app, echo
from restate_server import hypercorn
from restate_server import restate as restate_server

from perdure import (
    Context,
    DefinitionError,
    RetryPolicy,
    Service,
    Workflow,
    WorkflowContext,
    handler,
)
from perdure._schemas import schema_of
from perdure.restate._declaring import declare
from perdure.service import definition_of

# Any, in this module: manifests are JSON.

DAY_MS = 86_400_000
LATEST = {"accept": "application/vnd.restate.endpointmanifest.v4+json"}
BRIEF = {
    "retryPolicyInitialInterval": 100,
    "retryPolicyExponentiationFactor": 3.0,
    "retryPolicyMaxInterval": 1500,
    "retryPolicyMaxAttempts": 7,
    "retryPolicyOnMaxAttempts": "KILL",
}
PATIENT = {
    "retryPolicyInitialInterval": 0,
    "retryPolicyExponentiationFactor": 1.0,
    "retryPolicyMaxInterval": 0,
    "retryPolicyMaxAttempts": 2**53 - 1,
    "retryPolicyOnMaxAttempts": "PAUSE",
}


def discovered(asgi: Any = app) -> dict[str, Any]:
    """The services of a manifest by name, their handlers by name."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.get("/discover", headers=LATEST)

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    return by_name(
        {**each, "handlers": by_name(each["handlers"])} for each in answer.json()["services"]
    )


def by_name(listed: Any) -> dict[str, Any]:
    return {each["name"]: each for each in listed}


def declared(*classes: type) -> dict[str, Any]:
    return discovered(restate.app(declare([definition_of(each) for each in classes], echo)))


def options_of(described: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in described.items()
        if key not in ("name", "ty", "handlers", "input", "output", "documentation")
    }


# -- what is discovered ---------------------------------------------------------------------------


def test_services_and_handlers_have_their_names_and_kinds() -> None:
    assert {
        (name, service["ty"]): {
            each["name"]: each.get("ty") for each in service["handlers"].values()
        }
        for name, service in discovered().items()
    } == {
        ("travel.Trip", "WORKFLOW"): {"run": "WORKFLOW", "how_far": "SHARED"},
        ("Ledger", "VIRTUAL_OBJECT"): {"add": "EXCLUSIVE", "total": "SHARED"},
        ("Files", "SERVICE"): {"pack": None, "untyped": None},
        ("Plain", "SERVICE"): {"go": None},
    }


def test_the_options_of_a_class_are_those_of_the_service() -> None:
    assert options_of(discovered()["travel.Trip"]) == {
        "metadata": {"owner": "travel", "tier": "1"},
        "inactivityTimeout": 5000,
        "abortTimeout": 7000,
        "journalRetention": 2 * DAY_MS,
        "idempotencyRetention": DAY_MS // 4,
        **BRIEF,
    }


def test_the_options_of_a_handler_are_its_own() -> None:
    """Among them 1.5 ms, rounded up; and 1.001 s, of which floats would make 1,000 ms."""
    assert options_of(discovered()["travel.Trip"]["handlers"]["run"]) == {
        "metadata": {"step": "main"},
        "inactivityTimeout": 2,
        "abortTimeout": 1001,
        "journalRetention": 0,
        "workflowCompletionRetention": 3 * DAY_MS,
        "ingressPrivate": True,
        **PATIENT,
    }


def test_a_handler_says_nothing_of_what_its_class_says() -> None:
    assert options_of(discovered()["travel.Trip"]["handlers"]["how_far"]) == {
        "idempotencyRetention": 60_000,
        "enableLazyState": True,  # being a shared one
    }


def test_the_retention_of_a_workflow_class_is_that_of_run() -> None:
    class Order(Workflow, retention=timedelta(microseconds=1)):
        async def run(self, ctx: WorkflowContext) -> None: ...

    run = declared(Order)["Order"]["handlers"]["run"]
    assert options_of(run) == {"workflowCompletionRetention": 1}


def test_what_has_no_options_leaves_all_to_the_server() -> None:
    plain = discovered()["Plain"]
    assert options_of(plain) == options_of(plain["handlers"]["go"]) == {}


def test_a_private_class_is_a_private_service() -> None:
    ledger = discovered()["Ledger"]
    assert options_of(ledger) == {"ingressPrivate": True}
    assert options_of(ledger["handlers"]["add"]) == {}


def test_a_public_handler_of_a_private_class_makes_a_public_service_with_private_handlers() -> None:
    files = discovered()["Files"]
    assert options_of(files) == options_of(files["handlers"]["untyped"]) == {}
    assert options_of(files["handlers"]["pack"]) == {"ingressPrivate": True}


def test_the_first_line_of_a_docstring_is_the_documentation() -> None:
    trip = discovered()["travel.Trip"]
    assert trip["documentation"] == "Books a trip."
    assert trip["handlers"]["run"]["documentation"] == "Book all of it."
    assert "documentation" not in trip["handlers"]["how_far"]


def test_argument_and_result_are_json_with_the_schemas_that_the_openapi_document_has() -> None:
    run = discovered()["travel.Trip"]["handlers"]["run"]
    definition = definition_of(Trip).handlers["run"]
    json = {"contentType": "application/json"}
    assert run["input"] == {
        **json,
        "required": False,
        "jsonSchema": schema_of(definition.argument, output=False),
    }
    assert set(run["input"]["jsonSchema"]["$defs"]) == {"Leg"}
    assert run["output"] == {
        **json,
        "setContentTypeIfEmpty": False,
        "jsonSchema": schema_of(definition.result, output=True),
    }


def test_where_there_is_no_argument_or_no_result_there_is_no_body() -> None:
    go = discovered()["Plain"]["handlers"]["go"]
    assert go["input"] == {}
    assert go["output"] == {"setContentTypeIfEmpty": False}


def test_bytes_go_as_they_are_and_what_has_no_type_may_be_any_json() -> None:
    handlers = discovered()["Files"]["handlers"]
    assert handlers["pack"]["input"] == {"required": False, "contentType": "*/*"}
    assert handlers["pack"]["output"]["contentType"] == "application/octet-stream"
    assert "jsonSchema" not in handlers["pack"]["output"]
    assert handlers["untyped"]["input"]["jsonSchema"] == {}


def test_durations_that_would_break_the_server_are_a_hundred_years() -> None:
    class Archive(Service, journal_retention=timedelta.max): ...

    assert declared(Archive)["Archive"]["journalRetention"] == 36_500 * DAY_MS


# -- what is refused ------------------------------------------------------------------------------


def refusal(*classes: type) -> str:
    with pytest.raises(DefinitionError) as refused:
        declare([definition_of(each) for each in classes], echo)
    return str(refused.value)


def line_of(cls: type) -> str:
    definition = definition_of(cls)
    return f"{definition.file}:{definition.line}: "


def test_a_second_version_of_a_service_is_refused_with_the_places_of_both() -> None:
    class Old(Service, name="Mail"): ...

    class New(Service, name="Mail", version=2): ...

    text = refusal(New, Old)
    assert text.startswith(f"{line_of(Old)}class Old: version 1 of service 'Mail', whose version 2")
    assert line_of(New).removesuffix(": ") in text


@pytest.mark.parametrize(
    "name", ["__x", "-x", ".x", "1x", "é", "_", "restate", "RestateX", "OpenAPI"]
)
def test_a_service_name_that_restate_does_not_take_is_refused(name: str) -> None:
    class Odd(Service, name=name): ...

    text = refusal(Odd)
    assert text.startswith(f"{line_of(Odd)}class Odd: Restate ")
    assert repr(name) in text
    assert text.endswith("give another name=")


@pytest.mark.parametrize("name", ["a-b", "1x", "é", "_", "__x"])
def test_a_handler_name_that_restate_does_not_take_is_refused(name: str) -> None:
    class Odd(Service):
        @handler(name=name)
        async def go(self, ctx: Context) -> None: ...

    text = refusal(Odd)
    place = definition_of(Odd).handlers[name]
    assert text.startswith(f"{place.file}:{place.line}: handler Odd.{name}: Restate takes no ")
    assert text.endswith("give another name=")


def test_a_policy_with_a_limit_of_time_is_refused_where_it_is_given() -> None:
    policy = RetryPolicy(max_duration=60)

    class Every(Service, retry=policy): ...

    class One(Service):
        @handler(retry=policy)
        async def go(self, ctx: Context) -> None: ...

    assert refusal(Every).startswith(f"{line_of(Every)}class Every: Restate counts attempts")
    line = definition_of(One).handlers["go"].line
    assert refusal(One).startswith(f"{__file__}:{line}: handler One.go: Restate counts attempts")


# -- a real server --------------------------------------------------------------------------------


def test_a_real_server_takes_and_shows_all_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            restate_server(
                tmp_path / "restate", hypercorn("declared_services:app"), Path(__file__).parent
            ) as on,
            httpx.AsyncClient(base_url=on.admin) as admin,
        ):
            names = ("travel.Trip", "Ledger", "Files", "Plain")
            shown = {name: (await admin.get(f"/services/{name}")).json() for name in names}
        check_trip(shown["travel.Trip"])
        public = {
            name: (each["public"], {h["name"]: h["public"] for h in each["handlers"]})
            for name, each in shown.items()
        }
        assert public == {
            "travel.Trip": (True, {"run": False, "how_far": True}),
            "Ledger": (False, {"add": False, "total": False}),
            "Files": (True, {"pack": False, "untyped": True}),
            "Plain": (True, {"go": True}),
        }
        # The server's defaults are those of an engine.
        assert shown["Plain"]["retry_policy"] == {
            "initial_interval": "500ms",
            "exponentiation_factor": 2.0,
            "max_interval": "1m",
            "max_attempts": 70,
            "on_max_attempts": "Pause",
        }

    asyncio.run(main())


def check_trip(trip: dict[str, Any]) -> None:
    """What a server shows of the service with all options."""
    definition = definition_of(Trip).handlers["run"]
    assert trip["documentation"] == "Books a trip."
    assert trip["metadata"] == {"owner": "travel", "tier": "1"}
    assert (trip["inactivity_timeout"], trip["abort_timeout"]) == ("5s", "7s")
    assert (trip["journal_retention"], trip["idempotency_retention"]) == ("2d", "6h")
    assert trip["workflow_completion_retention"] == "3d"
    assert trip["retry_policy"] == {
        "initial_interval": "100ms",
        "exponentiation_factor": 3.0,
        "max_interval": "1s 500ms",
        "max_attempts": 7,
        "on_max_attempts": "Kill",
    }
    run = by_name(trip["handlers"])["run"]
    assert run["metadata"] == {"step": "main"}
    assert (run["inactivity_timeout"], run["abort_timeout"]) == ("2ms", "1s 1ms")
    assert run["journal_retention"] == "0s"
    assert run["input_json_schema"] == schema_of(definition.argument, output=False)
    assert run["output_json_schema"] == schema_of(definition.result, output=True)
    assert run["retry_policy"] == {
        "initial_interval": "0s",
        "exponentiation_factor": 1.0,
        "max_interval": "0s",
        "max_attempts": 2**53 - 1,
        "on_max_attempts": "Pause",
    }
