"""Attach, output and lookup, awakeables and promises over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from engine_support import Place, run, until
from http_support import JSON, Wire, error, wire

UNKNOWN = "inv_06d3pdls0000f7hnf6snuijs2k"


async def _started(on: Wire, name: str = "A") -> str:
    answer = await on.call("/Signup/w1/run/send", name)
    assert answer.status_code == 202
    return str(answer.json()["invocationId"])


def test_a_workflow_runs_once_per_key_and_tells_its_result(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            first = await _started(on)
            again = await on.call("/Signup/w1/run/send", "B")
            assert again.json() == {"invocationId": first, "status": "PreviouslyAccepted"}
            called = await on.call("/Signup/w1/run", "C")
            assert error(called) == (409, "the workflow method was already invoked", "invocation")
            running = await on.ingress.get("/restate/workflow/Signup/w1/output")
            assert error(running) == (
                470,
                "the invocation exists but has not completed yet",
                "ingress",
            )
            attached = asyncio.ensure_future(on.ingress.get("/restate/workflow/Signup/w1/attach"))
            assert (await on.call("/Signup/w1/approve", "yes")).json() == "resolved"
            assert (await attached).json() == "A:yes"
            for verb in ("attach", "output"):
                answer = await on.ingress.get(f"/restate/workflow/Signup/w1/{verb}")
                assert answer.json() == "A:yes"
                assert "idempotency-expires" in answer.headers

    run(main())


def test_a_promise_is_completed_once(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert (await on.call("/Signup/w1/approve", "yes")).json() == "resolved"
            taken = (409, "promise was already completed", "invocation")
            assert error(await on.call("/Signup/w1/approve", "no")) == taken
            assert error(await on.call("/Signup/w1/refuse", "no")) == taken
            assert (await on.call("/Signup/w1/peek")).json() == "yes"
            await _started(on)
            answer = await on.ingress.get("/restate/workflow/Signup/w1/attach")
            assert answer.json() == "A:yes"

    run(main())


def test_a_rejection_is_the_failure_of_who_waits(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            await _started(on)
            await on.call("/Signup/w1/refuse", "no way")
            for path in ("/restate/workflow/Signup/w1/attach", "/Signup/w1/peek"):
                assert error(await on.ingress.get(path)) == (499, "no way", "invocation")

    run(main())


def test_what_was_never_submitted_is_404(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            by_key = "invocation/Counter/k/add/i"
            for target in ("workflow/Signup/w", by_key, f"invocation/{UNKNOWN}"):
                output = await on.ingress.get(f"/restate/{target}/output")
                assert error(output) == (404, "invocation not found", "ingress")
                attach = await on.ingress.get(f"/restate/{target}/attach")
                assert error(attach) == (404, "not found", "invocation")
            for verb in ("workflow/Nope/w/attach", "invocation/Nope/greet/i/output"):
                assert error(await on.ingress.get(f"/restate/{verb}"))[0] == 404

    run(main())


def test_results_are_found_by_id_and_by_idempotency_key(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            called = await on.call("/Counter/k1/add", 5, idempotency_key="i1")
            invocation_id = called.headers["x-restate-id"]
            greeted = await on.call("/Greeter/greet", "x", idempotency_key="i2")
            for path, value in {
                f"/restate/invocation/{invocation_id}": 5,
                "/restate/invocation/Counter/k1/add/i1": 5,
                "/restate/invocation/Greeter/greet/i2": "hi x",
            }.items():
                for verb in ("attach", "output"):
                    answer = await on.ingress.get(f"{path}/{verb}")
                    assert answer.json() == value
                    assert "idempotency-expires" in answer.headers
            for verb in ("attach", "output"):
                assert (await on.ingress.get(f"/restate/{verb}/{invocation_id}")).json() == 5
            bad = await on.ingress.get("/restate/invocation/inv_garbage/output")
            assert bad.status_code == 400
            assert bad.json()["message"].startswith("bad invocation id 'inv_garbage': ")
            assert greeted.json() == "hi x"

    run(main())


def test_a_call_without_a_key_can_be_attached_to_while_it_runs(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            calling = asyncio.ensure_future(on.call("/Waiter/wait"))
            await until(lambda: bool(on.waiter.ids))
            (found,) = (await on.engine.invocations()).items
            attached = asyncio.ensure_future(
                on.ingress.get(f"/restate/invocation/{found.id}/attach")
            )
            await asyncio.sleep(0)
            await on.call(f"/restate/awakeables/{on.waiter.ids[0]}/resolve", "hello")
            assert [(await calling).json(), (await attached).json()] == ["hello", "hello"]

    run(main())


TARGETS: list[dict[str, Any]] = [
    {"target": "workflow", "workflowName": "Signup", "workflowKey": "w1"},
    {
        "target": "idempotentInvocation",
        "service": "Counter",
        "key": "k",
        "handler": "add",
        "idempotencyKey": "i",
    },
    {
        "target": "idempotentInvocation",
        "service": "Greeter",
        "handler": "greet",
        "idempotencyKey": "i",
    },
    {"target": "invocation", "invocationId": UNKNOWN},
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.get("service", each["target"]))
def test_a_target_in_a_body_is_looked_up(resident_place: Place, target: dict[str, Any]) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            for verb in ("lookup", "output", "attach"):
                assert error(await on.call(f"/restate/{verb}", target))[0] == 404
            await on.call("/Signup/w1/run/send", "A")
            await on.call("/Signup/w1/approve", "yes")
            await on.call("/Counter/k/add", 5, idempotency_key="i")
            greeted = await on.call("/Greeter/greet", "x", idempotency_key="i")
            if "invocationId" in target:
                target["invocationId"] = greeted.headers["x-restate-id"]
            looked_up = await on.call("/restate/lookup", target)
            assert looked_up.status_code == 200
            by_id = f"/restate/attach/{looked_up.json()['invocationId']}"
            expected = (await on.ingress.get(by_id)).json()
            for verb in ("attach", "output"):
                assert (await on.call(f"/restate/{verb}", target)).json() == expected

    run(main())


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"{", b"", b'{"target":"x"}', b'{"target":"workflow","workflowName":"S"}'],
)
def test_a_body_that_names_no_target_is_refused(resident_place: Place, body: bytes) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            for headers in (JSON, {}):
                answer = await on.ingress.post("/restate/lookup", content=body, headers=headers)
                assert error(answer)[0] == 400

    run(main())


@pytest.mark.parametrize("family", ["awakeables", "a"])
def test_awakeables_are_completed_and_a_second_time_is_accepted_too(
    resident_place: Place, family: str
) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            waiting = asyncio.ensure_future(on.call("/Waiter/wait"))
            await until(lambda: bool(on.waiter.ids))
            path = f"/restate/{family}/{on.waiter.ids[0]}"
            for _ in range(2):
                answer = await on.call(f"{path}/resolve", "hello")
                assert (answer.status_code, answer.content) == (202, b"")
            assert (await waiting).json() == "hello"
            assert (await on.ingress.get(f"{path}/resolve")).status_code == 405

    run(main())


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json"])
def test_an_awakeables_value_is_json_whatever_it_says_that_it_is(
    resident_place: Place, content_type: str | None
) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            waiting = asyncio.ensure_future(on.call("/Waiter/wait"))
            await until(lambda: bool(on.waiter.ids))
            path = f"/restate/a/{on.waiter.ids[0]}/resolve"
            headers = {} if content_type is None else {"content-type": content_type}
            bad = await on.ingress.post(path, content=b"a=b", headers=headers)
            assert error(bad)[0] == 400
            answer = await on.ingress.post(path, content=b'"hello"', headers=headers)
            assert answer.status_code == 202
            assert (await waiting).json() == "hello"

    run(main())


def test_a_rejected_awakeable_fails_who_waits_with_the_text(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            waiting = asyncio.ensure_future(on.call("/Waiter/wait"))
            await until(lambda: bool(on.waiter.ids))
            path = f"/restate/a/{on.waiter.ids[0]}/reject"
            answer = await on.ingress.post(path, content=b" very bad ")
            assert answer.status_code == 202
            assert error(await waiting) == (500, " very bad ", "invocation")
            foo = await on.call("/restate/awakeables/foo/resolve", 1)
            assert error(foo) == (400, "bad awakeable id 'foo': bad format", "ingress")

    run(main())


@pytest.mark.parametrize(("verb", "text"), [("cancel", "cancelled"), ("kill", "killed")])
def test_who_waits_is_told_that_it_was_ended(resident_place: Place, verb: str, text: str) -> None:
    async def main() -> httpx.Response:
        async with wire(resident_place) as on:
            started = await _started(on)
            attached = asyncio.ensure_future(on.ingress.get("/restate/workflow/Signup/w1/attach"))
            await asyncio.sleep(0)
            answer = await on.admin.patch(f"/invocations/{started}/{verb}")
            assert answer.status_code == {"cancel": 202, "kill": 200}[verb]
            told = await attached
            again = await on.admin.patch(f"/invocations/{started}/{verb}")
            assert again.status_code == 409
            assert again.json()["message"] == (f"The invocation '{started}' was already completed.")
            return told

    assert error(run(main())) == (409, text, "invocation")


def test_submit_starts_or_attaches(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            submitted = [
                asyncio.ensure_future(on.call("/perdure/submit/Signup/w1/run", name))
                for name in ("A", "B")
            ]
            resolved = await on.call("/perdure/promises/Signup/w1/approval/resolve", "yes")
            assert resolved.status_code == 200
            answers = await asyncio.gather(*submitted)
            assert [each.json() for each in answers] == ["A:yes", "A:yes"]
            assert (await on.call("/perdure/submit/Signup/w1/run", "C")).json() == "A:yes"

    run(main())


def test_promises_are_completed_from_outside(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            await _started(on)
            rejected = await on.ingress.post(
                "/perdure/promises/Signup/w1/approval/reject?code=418", content="no tea"
            )
            assert (rejected.status_code, rejected.content) == (200, b"")
            attached = await on.ingress.get("/restate/workflow/Signup/w1/attach")
            assert error(attached) == (418, "no tea", "invocation")
            again = await on.call("/perdure/promises/Signup/w1/approval/resolve", "yes")
            assert error(again) == (409, "promise was already completed", "ingress")
            assert again.headers["x-perdure-error"] == "AlreadyCompleted"
            for code in ("200", "abc", "1e3"):
                refused = await on.ingress.post(
                    f"/perdure/promises/Signup/w2/approval/reject?code={code}", content="x"
                )
                assert error(refused)[0] == 400

    run(main())


def test_health_lists_the_services(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            answer = await on.ingress.get("/restate/health")
            services = ["Counter", "Greeter", "Signup", "Waiter"]
            assert answer.json() == {"server": "perdure", "services": services}
            assert (await on.ingress.post("/restate/health")).status_code == 405

    run(main())
