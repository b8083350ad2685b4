"""What operators do and see over HTTP."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_support import Place, run, until, until_status
from http_support import Wire, wire

import perdure
from perdure import Status, WorkflowContext
from perdure.http import admin

UNKNOWN = "inv_06d3pdls0000f7hnf6snuijs2k"


def problem(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["code"] == answer.status_code
    assert body["restate_code"] is None
    return answer.status_code, body["message"]


async def _waiting(on: Wire, key: str = "w1") -> str:
    """A workflow that waits for its promise."""
    invocation_id = (await on.call(f"/Signup/{key}/run/send", "A")).json()["invocationId"]
    await until_status(on.engine, invocation_id, Status.SUSPENDED)
    return str(invocation_id)


def test_health_and_version(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert (await on.admin.get("/health")).json() == {}
            version = (await on.admin.get("/version")).json()
            assert version["server"] == "perdure"
            assert version["min_admin_api_version"] <= version["max_admin_api_version"]
            await on.engine.close()
            assert problem(await on.admin.get("/health"))[0] == 503

    run(main())


def test_services_are_listed_with_their_handlers(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            services = (await on.admin.get("/services")).json()["services"]
            assert {each["name"]: each["ty"] for each in services} == {
                "Greeter": "Service",
                "Counter": "VirtualObject",
                "Signup": "Workflow",
                "Waiter": "Service",
            }
            signup = (await on.admin.get("/services/Signup")).json()
            assert {each["name"]: each["ty"] for each in signup["handlers"]} == {
                "run": "Workflow",
                "approve": "Shared",
                "refuse": "Shared",
                "peek": "Shared",
            }
            handlers = (await on.admin.get("/services/Greeter/handlers")).json()["handlers"]
            secret = (await on.admin.get("/services/Greeter/handlers/secret")).json()
            assert secret in handlers
            assert secret["public"] is False
            assert problem(await on.admin.get("/services/Nope"))[0] == 404
            assert problem(await on.admin.get("/services/Greeter/handlers/nope"))[0] == 404

    run(main())


def test_invocations_are_listed_in_pages(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            ids = [await _waiting(on, f"w{number}") for number in range(5)]
            await on.call("/Greeter/greet/send", "x")
            seen: list[str] = []
            query: dict[str, Any] = {"service": "Signup", "status": "suspended", "limit": 2}
            while True:
                page = (await on.admin.get("/invocations", params=query)).json()
                seen += [each["id"] for each in page["items"]]
                if page["cursor"] is None:
                    break
                query["cursor"] = page["cursor"]
            assert seen == ids
            several = {"status": ["paused", "completed"]}
            (greeting,) = (await on.admin.get("/invocations", params=several)).json()["items"]
            assert (greeting["service"], greeting["status"]) == ("Greeter", "completed")

    run(main())


@pytest.mark.parametrize(
    "query",
    [
        *("stauts=paused", "status=happy", "limit=0", "limit=x", "cursor=x"),
        *("older_than=5", "created_after=x"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(resident_place: Place, query: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert problem(await on.admin.get(f"/invocations?{query}"))[0] == 400

    run(main())


def test_an_invocation_is_described_with_its_journal(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            invocation_id = await _waiting(on)
            shown = (await on.admin.get(f"/invocations/{invocation_id}")).json()
            assert (shown["status"], shown["service"], shown["key"]) == (
                "suspended",
                "Signup",
                "w1",
            )
            assert [each["name"] for each in shown["waiting_on"]] == ["approval"]
            assert [each["kind"] for each in shown["journal"]] == [
                "start",
                "set state",
                "wait for promise",
            ]
            assert len(shown["timeline"].splitlines()) == 3
            some = {"journal_from": 1, "journal_limit": 1}
            part = await on.admin.get(f"/invocations/{invocation_id}", params=some)
            assert [each["index"] for each in part.json()["journal"]] == [1]
            assert problem(await on.admin.get(f"/invocations/{UNKNOWN}"))[0] == 404
            assert problem(await on.admin.get("/invocations/nope"))[0] == 400

    run(main())


def test_a_failure_in_a_journal_is_shown_as_an_object(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            invocation_id = await _waiting(on)
            await on.call("/Signup/w1/refuse", "no way")
            await on.ingress.get("/restate/workflow/Signup/w1/attach")
            journal = (await on.admin.get(f"/invocations/{invocation_id}")).json()["journal"]
            assert journal[-1]["failure"] == {
                "kind": "TerminalError",
                "message": "no way",
                "code": 499,
                "metadata": {},
            }

    run(main())


def test_a_workflows_key_is_shown_with_run_promises_and_state(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            empty = (await on.admin.get("/workflows/Signup/a%2Fb")).json()
            assert empty == {
                "name": "Signup",
                "key": "a/b",
                "run": None,
                "promises": [],
                "state": {},
            }
            invocation_id = await _waiting(on)
            shown = (await on.admin.get("/workflows/Signup/w1")).json()
            assert shown["run"]["id"] == invocation_id
            assert shown["state"] == {"status": "waiting"}
            (promise,) = shown["promises"]
            assert (promise["name"], promise["status"], promise["waiters"]) == (
                "approval",
                "pending",
                [invocation_id],
            )
            assert problem(await on.admin.get("/workflows/Counter/k"))[0] == 400
            assert problem(await on.admin.get("/workflows/Nope/k"))[0] == 404

    run(main())


def test_state_is_read_and_replaced(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            await on.call("/Counter/k/add", 5)
            assert (await on.admin.get("/state/Counter/k")).json() == {"state": {"total": 5}}
            assert (await on.admin.put("/state/Counter/k", json={"total": 7})).status_code == 200
            assert (await on.call("/Counter/k/total")).json() == 7
            body = {"object_key": "k", "new_state": {"total": list(b"9")}}
            assert (await on.admin.post("/services/Counter/state", json=body)).status_code == 202
            assert (await on.call("/Counter/k/total")).json() == 9
            refused = await on.admin.post("/services/Greeter/state", json=body)
            assert problem(refused) == (400, "Cannot modify state for service type Service")
            for bad in ({}, {"object_key": "k", "new_state": {"total": [300]}}):
                assert problem(await on.admin.post("/services/Counter/state", json=bad))[0] == 400
            plain = await on.admin.put("/state/Counter/k", content=b"{}")
            assert problem(plain)[0] == 400  # not JSON: no form of a web page may do this

    run(main())


def test_state_that_a_handler_may_write_is_left_alone(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            await _waiting(on)
            refused = await on.admin.put("/state/Signup/w1", json={})
            assert problem(refused)[0] == 409
            assert refused.headers["x-perdure-error"] == "Conflict"

    run(main())


def test_an_invocation_is_paused_resumed_cancelled_and_purged(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            invocation_id = await _waiting(on)
            path = f"/invocations/{invocation_id}"
            assert problem(await on.admin.patch(f"{path}/resume"))[0] == 409
            assert (await on.admin.patch(f"{path}/pause")).status_code == 202
            assert problem(await on.admin.patch(f"{path}/pause"))[0] == 409
            assert (await on.admin.get(path)).json()["status"] == "paused"
            assert (await on.admin.patch(f"{path}/resume")).status_code == 200
            assert problem(await on.admin.patch(f"{path}/purge"))[0] == 409
            assert (await on.admin.patch(f"{path}/cancel")).status_code == 202
            await on.ingress.get("/restate/workflow/Signup/w1/attach")
            restarted = await on.admin.patch(f"{path}/restart-as-new")
            assert problem(restarted)[0] == 422
            assert (await on.admin.patch(f"{path}/purge")).status_code == 200
            assert problem(await on.admin.patch(f"{path}/purge"))[0] == 404
            assert problem(await on.admin.patch(f"{path}/fly"))[0] == 404

    run(main())


def test_the_older_form_of_the_verbs_works(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            path = f"/invocations/{await _waiting(on)}"
            assert (await on.admin.delete(f"{path}?mode=Kill")).status_code == 200
            assert (await on.admin.delete(f"{path}?mode=purge")).status_code == 200
            assert problem(await on.admin.delete(f"{path}?mode=fly"))[0] == 400

    run(main())


def test_what_has_completed_is_restarted_as_new(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            called = await on.call("/Counter/k/add", 5, idempotency_key="i")
            old = called.headers["x-restate-id"]
            answer = await on.admin.patch(f"/invocations/{old}/restart-as-new")
            new = answer.json()["new_invocation_id"]
            assert new != old
            assert (await on.ingress.get(f"/restate/invocation/{new}/attach")).json() == 10

    run(main())


def test_all_that_a_filter_means_are_acted_on(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            for number in range(3):
                await _waiting(on, f"w{number}")
            one = await on.admin.patch("/invocations/cancel?key=w1")
            assert one.json() == {"count": 1}
            assert problem(await on.admin.patch("/invocations/kill"))[0] == 400
            assert (await on.admin.patch("/invocations/kill?all=true")).json() == {"count": 2}
            assert problem(await on.admin.patch("/invocations/fly?all=true"))[0] == 405

    run(main())


def test_the_code_is_checked_against_the_journals(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            await _waiting(on)
            report = (await on.admin.post("/check")).json()
            assert report["counts"]["safe"] == 1
            assert report["problems"] == []

    run(main())


def test_a_backup_is_a_directory_that_an_engine_goes_on_with(
    resident_place: Place, tmp_path: Path
) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            invocation_id = await _waiting(on)
            answer = await on.admin.get("/backup")
            assert answer.status_code == 200
            assert int(answer.headers["content-length"]) == len(answer.content)
        assert os.listdir(tmp_path) == ["data"]
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / "data.mdb").write_bytes(answer.content)
        async with wire(Place(copy, 10_000)) as on:
            await on.call("/Signup/w1/approve", "yes")
            assert await on.engine.attach(invocation_id) == "A:yes"

    run(main())


def test_a_query_answers_with_rows(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            invocation_id = await _waiting(on)
            sql = "SELECT id, status, target_service_key AS key, id FROM sys_invocation"
            answer = await on.admin.post("/query", json={"query": sql})
            row = {"id": invocation_id, "status": "suspended", "key": "w1", "id:1": invocation_id}
            assert answer.json() == {
                "rows": [row],
                "columns": ["id", "status", "key", "id:1"],
                "truncated": False,
            }
            as_csv = {"accept": "text/csv"}
            text = await on.admin.post("/query", json={"query": sql}, headers=as_csv)
            assert text.headers["content-type"].startswith("text/csv")
            assert text.text.splitlines() == [
                "id,status,key,id:1",
                f"{invocation_id},suspended,w1,{invocation_id}",
            ]
            one = {"query": "SELECT 1 UNION SELECT 2", "rows_max": 1}
            assert (await on.admin.post("/query", json=one)).json()["truncated"] is True
            for body in (
                {"query": "DELETE FROM state"},
                {"query": "SELECT * FROM nope"},
                {"query": "SELECT 1", "rows_max": 0},
                {"query": "SELECT 1", "limit": 5},
                {},
            ):
                assert problem(await on.admin.post("/query", json=body))[0] == 400

    run(main())


def test_what_is_not_there_is_404_and_405(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            assert problem(await on.admin.get("/nope"))[0] == 404
            assert (await on.admin.post("/health")).status_code == 405

    run(main())


def test_a_call_in_memory_alone_can_be_killed(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            calling = asyncio.ensure_future(on.call("/Waiter/wait"))
            await until(lambda: bool(on.waiter.ids))
            (found,) = (await on.engine.invocations()).items
            assert (await on.admin.patch(f"/invocations/{found.id}/kill")).status_code == 200
            assert (await calling).status_code == 409

    run(main())


class Deal(perdure.Workflow):
    """Waits for one of two promises, as it is told."""

    def __init__(self, awaited: str) -> None:
        self.awaited = awaited

    async def run(self, ctx: WorkflowContext) -> None:
        await ctx.promise(self.awaited)


def test_a_check_tells_where_code_and_journal_part(resident_place: Place) -> None:
    async def main() -> None:
        async with resident_place.engine(Deal("signed")) as engine:
            handle = await engine.send(Deal.run, key="1")
            await until_status(engine, handle, Status.SUSPENDED)
        async with resident_place.engine(Deal("sealed")) as engine:
            transport = httpx.ASGITransport(app=admin(engine))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                answer = await client.post("/check")
        assert answer.status_code == 200
        (problem,) = answer.json()["problems"]
        assert problem["verdict"] == "diverges"
        assert "signed" in problem["divergence"]["expected"]
        assert "sealed" in problem["divergence"]["actual"]

    run(main())


@pytest.mark.parametrize("everything", ["false", "yes", ""])
def test_all_is_true_or_left_out(resident_place: Place, everything: str) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            for query in (f"all={everything}", f"all={everything}&service=Signup"):
                assert problem(await on.admin.patch(f"/invocations/kill?{query}"))[0] == 400

    run(main())


def test_state_nested_too_deeply_is_refused(resident_place: Place) -> None:
    async def main() -> None:
        async with wire(resident_place) as on:
            deep = {"object_key": "k", "new_state": {"a": [ord("[")] * 100_000}}
            answer = await on.admin.post("/services/Counter/state", json=deep)
            assert problem(answer)[0] == 400

    run(main())
