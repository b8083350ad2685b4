"""What is asked of perdure and of Restate alike."""

from __future__ import annotations

import asyncio
from typing import Any

from http_support import JSON
from wire_side import Seen, Side

UNKNOWN = {
    "perdure": "inv_06d3pdls0000f7hnf6snuijs2k",
    "restate": "inv_1jl9uW2wJQ1L0ZpTyPTZe5D8Oy9lM8X2zB",
}
HOUR = "/Greeter/nap/send?delay=1h"


async def ask_all(on: Side) -> None:
    for each in (
        calls,
        bodies,
        odd_paths,
        odd_keys,
        methods,
        sends,
        idempotency,
        workflows,
        promises,
        targets,
        awakeables,
        admin_of_the_running,
        admin_of_the_completed,
        admin_of_services,
    ):
        await each(on)


async def calls(on: Side) -> None:
    for family in ("", "/restate/call"):
        await on.post(f"{family}/Greeter/greet", "Bob")
        await on.post(f"{family}/Greeter/void", "x")
        await on.get(f"{family}/Greeter/noargs")
        await on.post(f"{family}/Greeter/noargs")
        await on.post(f"{family}/Counter/calls/add", 2)
        await on.get(f"{family}/Counter/calls/total")
        await on.post(f"{family}/Greeter/secret")
    for code in (418, 0, 400, 599, 600, 200):
        await on.post("/Greeter/fail", code)
    headers = {"x-mine": "1", "authorization": "Bearer me", "traceparent": "00-1-2-01"}
    answer = await on.ingress.post("/Greeter/headers?a=b", headers=headers)
    handed = answer.json()
    on.seen["headers of a handler"] = Seen(
        answer.status_code,
        {name: handed.get(name) for name in ("x-mine", "authorization", "x-restate-ingress-path")},
        {},
    )


async def bodies(on: Side) -> None:
    await on.post("/Greeter/noargs", 1)
    await on.post("/Greeter/noargs", headers=JSON)
    await on.post("/Greeter/noargs", content=b"x")
    await on.post("/Greeter/greet")
    await on.post("/Greeter/greet", headers=JSON)
    await on.get("/Greeter/greet")
    await on.get("/Greeter/greet?name=Bob")
    await on.post("/Greeter/greet", content=b'"x"')
    await on.post("/Greeter/greet", data={"a": "b"})
    await on.post("/Greeter/greet", content=b"{bad", headers=JSON)
    await on.post("/Greeter/greet", 12)
    await on.post("/Greeter/greet", content=b"null", headers=JSON)
    for content_type in (
        "application/json; charset=utf-8",
        "application/json;charset=latin-1",
        "Application/JSON",
        "application/problem+json",
        "application/*",
        "text/plain",
        "*/*",
        "nonsense",
        "",
    ):
        await on.post("/Greeter/greet", content=b'"x"', headers={"content-type": content_type})
    values: list[Any] = [0, False, "", [], {}, {"a": [1, 2.5, "é\u2028"]}, 2**63, 1e300]
    for value in values:
        await on.post("/Greeter/untyped", value)
    await on.post("/Greeter/untyped", content=b" [1,\n2]  ", headers=JSON)
    await on.post("/Greeter/raw", content=b"abc", headers={"content-type": "text/plain"})
    await on.post("/Greeter/raw", content=b"abc")
    await on.post("/Greeter/raw", content=b"")
    await on.post("/Greeter/price", {"name": "tea", "price": 1.5, "due": None})
    await on.post("/Greeter/price", {"name": "tea", "price": "much"})


async def odd_paths(on: Side) -> None:
    for path in (
        "/",
        "/Nope/greet",
        "/Nope/k/greet",
        "/Greeter",
        "/Greeter/",
        "/Greeter/nope",
        "/Greeter/greet/",
        "/Greeter/greet/x/y",
        "/Greeter/greet/send/x",
        "/Greeter/k/greet",
        "/Counter/add",
        "/Counter/k/nope",
        "/Counter/k/add/send/x",
        "/send",
        "/Greeter/send",
        "/Greeter%2Fgreet",
        "/%47reeter/greet",
        "/Greeter/%ff",
        "/restate",
        "/restate/",
        "/restate/nonsense",
        "/restate/call",
        "/restate/call/Greeter",
        "/restate/call/Greeter/greet/send",
        "/restate/call/Greeter/k/greet/x",
        "/restate/send",
        "/restate/scope/s/call/Greeter/greet",
        "/restate/invocation",
        "/restate/invocation/x",
        "/restate/workflow/Signup/k",
        "/restate/workflow/Signup/k/nonsense",
        "/restate/awakeables",
        "/restate/awakeables/foo",
        "/restate/awakeables/foo/nonsense",
        "/restate/a/foo/resolve",
        "/openapi",
    ):
        await on.post(path, "x")


async def odd_keys(on: Side) -> None:
    for key in ("a%2Fb", "a%20b", "a+b", "%C3%A9", "a.b~c", "%00", "send", "", "%25", "x%3Fy"):
        await on.post(f"/Counter/{key}/add", 1)
        await on.get(f"/Counter/{key}/total")
        await on.get(f"/restate/call/Counter/{key}/total")
    await on.post("/Counter/%ff/add", 1)


async def methods(on: Side) -> None:
    for method in ("PUT", "DELETE", "PATCH", "HEAD", "TRACE"):
        await on.ask(method, "/Greeter/greet")
        await on.ask(method, "/restate/health")
    await on.post("/restate/health")
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-mine"}
    await on.ask("OPTIONS", "/Greeter/greet", headers={"origin": "http://web.test", **asked})
    await on.ask("OPTIONS", "/Greeter/greet")
    await on.post("/Greeter/greet", "x", headers={"origin": "http://web.test"})
    await on.post("/Greeter/nope", "x", headers={"origin": "http://web.test"})
    await on.get("/restate/attach")
    await on.get("/restate/lookup")
    await on.get("/Greeter/greet/send")
    await on.get("/restate/send/Greeter/noargs")
    await on.ask("PUT", "/restate/nonsense")
    await on.ask("PUT", "/Nope/greet")


async def sends(on: Side) -> None:
    for path in ("/Greeter/greet/send", "/restate/send/Greeter/greet", "/Counter/s/add/send"):
        await on.post(path, 1 if "add" in path else "Bob")
    for delay in ("2s", "2500ms", "PT2S", "0s", "1h 30m", "1d", "P1D", "PT0.5S", "P1DT2H", "1w"):
        await on.post(f"/Greeter/greet/send?delay={delay}", "Bob")
    for delay in ("2.5s", "2,5s", "1h30m", "1H", "1h, 30m", "PT0,5S", "pt2s", "1 day", "2secs"):
        await on.post(f"/Greeter/greet/send?delay={delay}", "Bob")
    for delay in ("2000", "", "2 parsecs", "-2s", "P", "PT", "s", "1e3s", "1M1s", "1y", "1mo"):
        await on.post(f"/Greeter/greet/send?delay={delay}", "Bob")
    await on.post("/restate/send/Greeter/greet?delay=2s", "Bob")
    await on.post("/Greeter/greet?delay=2s", "x")
    await on.post("/restate/call/Greeter/greet?delay=2s", "x")
    await on.post("/Greeter/greet/send?unknown=1", "x")
    await on.post("/Greeter/greet/send")
    await on.post("/Greeter/secret/send")
    await on.post("/Greeter/nope/send", 1)


async def idempotency(on: Side) -> None:
    key = {"idempotency-key": "i1"}
    await on.post("/Counter/k1/add", 5, headers=key)
    await on.post("/Counter/k1/add", 7, headers=key)
    await on.post("/Counter/k1/add/send", 7, headers=key)
    await on.post("/restate/call/Counter/k1/add", 7, headers=key)
    await on.post("/Counter/k2/add", 1, headers=key)
    at_once = [
        on.ingress.post("/Counter/k3/add", json=amount, headers={"idempotency-key": "at once"})
        for amount in (1, 1, 1)
    ]
    answers = await asyncio.gather(*at_once)
    ids = {each.headers["x-restate-id"] for each in answers}
    on.seen["at once"] = Seen(len(ids), [each.json() for each in answers], {})
    await on.post("/Greeter/greet", "a", headers=key)
    await on.post("/Greeter/void", "a", headers=key)
    await on.post("/Greeter/void", "a", headers=key)
    await on.post("/Greeter/fail", 418, headers=key)
    await on.post("/Greeter/fail", 419, headers=key)
    await on.post("/Counter/k1/add", "bad", headers=key)
    await on.post("/Greeter/greet", "a", headers={"idempotency-key": ""})
    await on.post("/Greeter/nap/send?delay=1h", 1, headers=key)
    await on.post("/Greeter/nap/send?delay=2h", 1, headers=key)
    await on.post("/Greeter/nap/send", 1, headers=key)
    for target in ("Counter/k1/add/i1", "Greeter/greet/i1", "Greeter/fail/i1", "Greeter/void/i1"):
        await on.get(f"/restate/invocation/{target}/output")
        await on.get(f"/restate/invocation/{target}/attach")
    await on.get("/restate/invocation/Greeter/nap/i1/output")
    await on.get("/restate/invocation/Counter/k1/add/nope/output")
    await on.get("/restate/invocation/Counter/k1/add/nope/attach")
    await on.get("/restate/invocation/Nope/greet/i/output")
    await on.get("/restate/invocation/Nope/greet/i/attach")
    await on.get("/restate/invocation/Greeter/nope/i/output")
    await on.get("/restate/invocation/Counter/add/i/output")
    await on.get("/restate/invocation/Greeter/k/greet/i1/output")
    await on.post("/restate/invocation/Counter/k1/add/i1/output")


async def workflows(on: Side) -> None:
    await on.get("/restate/workflow/Signup/w1/attach")
    await on.get("/restate/workflow/Signup/w1/output")
    await on.post("/Signup/w1/peek")
    identity = await on.sent("/Signup/w1/run/send", "A")
    await on.post("/Signup/w1/run/send", "B")
    await on.post("/Signup/w1/run", "C")
    await on.post("/Signup/w1/run", "C", headers={"idempotency-key": "i"})
    await on.post("/Signup/w1/run/send", "C", headers={"idempotency-key": "i"})
    await on.get("/restate/workflow/Signup/w1/output")
    await on.get(f"/restate/invocation/{identity}/output")
    await on.get(f"/restate/output/{identity}")
    await on.post("/Signup/w1/approve", "yes")
    await on.settled("/restate/workflow/Signup/w1/output", 200)
    for verb in ("attach", "output"):
        await on.get(f"/restate/workflow/Signup/w1/{verb}")
        await on.get(f"/restate/invocation/{identity}/{verb}")
        await on.get(f"/restate/{verb}/{identity}")
    await on.post("/Signup/w1/run", "D")
    await on.post("/Signup/w1/run/send", "D")
    await on.post("/Signup/w1/approve", "no")
    await on.post("/Signup/w1/approve", "x", headers={"idempotency-key": "i"})
    await on.post("/Signup/w2/run/send?delay=1h", "A")
    await on.post("/Signup/w2/run/send", "A")
    await on.get("/restate/workflow/Signup/w2/output")
    for verb in ("attach", "output"):
        await on.get(f"/restate/workflow/Nope/w/{verb}")
        await on.get(f"/restate/workflow/Greeter/w/{verb}")
        await on.get(f"/restate/workflow/Counter/w/{verb}")
        await on.post(f"/restate/workflow/Signup/w1/{verb}")


async def promises(on: Side) -> None:
    await on.post("/Signup/early/approve", "early")
    await on.post("/Signup/early/peek")
    await on.post("/Signup/early/approve", "again")
    await on.post("/Signup/early/refuse", "again")
    await on.post("/Signup/early/run", "A")
    await on.post("/Signup/w3/run/send", "A")
    await on.post("/Signup/w3/refuse", "no way")
    await on.post("/Signup/w3/peek")
    await on.get("/restate/workflow/Signup/w3/attach")
    await on.get("/restate/workflow/Signup/w3/output")
    await on.post("/Signup/w3/run", "A")


async def targets(on: Side) -> None:
    key = {"idempotency-key": "t"}
    done = (await on.post("/Greeter/greet", "x", headers=key)).headers["x-restate-id"]
    await on.post("/Counter/t/add", 5, headers=key)
    await on.post("/Signup/t/approve", "yes")
    await on.post("/Signup/t/run", "A")
    by_key = {"target": "idempotentInvocation", "handler": "add", "service": "Counter"}
    asked: list[Any] = [
        {"target": "invocation", "invocationId": done},
        {**by_key, "service": "Greeter", "handler": "greet", "idempotencyKey": "t"},
        {**by_key, "key": "t", "idempotencyKey": "t"},
        {"target": "workflow", "workflowName": "Signup", "workflowKey": "t"},
        {"target": "workflow", "workflowName": "Signup", "workflowKey": "never"},
        {**by_key, "key": "t", "idempotencyKey": "never"},
        {"target": "invocation", "invocationId": UNKNOWN[on.name]},
        {"target": "invocation", "invocationId": "inv_garbage"},
        {"target": "workflow", "workflowName": "Nope", "workflowKey": "never"},
        {"target": "workflow", "workflowName": "Greeter", "workflowKey": "k"},
        {"target": "workflow", "workflowName": "Signup"},
        {"target": "nonsense"},
        {},
        [],
    ]
    for target in asked:
        for verb in ("lookup", "output", "attach"):
            await on.post(f"/restate/{verb}", target)
    await on.post("/restate/lookup")
    await on.post("/restate/lookup", content=b"{", headers=JSON)
    await on.post("/restate/lookup", content=b"{}")
    for path in (f"invocation/{UNKNOWN[on.name]}", "invocation/inv_garbage", "invocation/x"):
        await on.get(f"/restate/{path}/output")
        await on.get(f"/restate/{path}/attach")


async def awakeables(on: Side) -> None:
    await on.post("/restate/awakeables/foo/resolve", 1)
    await on.post("/restate/awakeables/foo/reject", content=b"x")
    completions: list[tuple[str, str, dict[str, Any]]] = [
        ("awakeables", "resolve", {"json": "hello"}),
        ("a", "resolve", {"json": "hello"}),
        ("a", "reject", {"content": b" very bad "}),
        ("a", "reject", {"content": b'"x"', "headers": JSON}),
        ("a", "reject", {}),
        ("a", "resolve", {"content": b'"text"', "headers": {"content-type": "text/plain"}}),
        ("a", "resolve", {"content": b'"bare"'}),
    ]
    for number, (path, verb, parts) in enumerate(completions):
        waited = await on.ingress.post("/Waiter/wait/send")
        ids: list[str] = []
        while len(ids) <= number:
            ids = (await on.ingress.post("/Waiter/waiting")).json()
        for _ in range(2):
            await on.post(f"/restate/{path}/{ids[-1]}/{verb}", **parts)
        waiting = f"/restate/invocation/{waited.json()['invocationId']}"
        await on.settled(f"{waiting}/output", 500 if verb == "reject" else 200)
        await on.get(f"{waiting}/attach")
        await on.get(f"/restate/{path}/{ids[-1]}/{verb}")


async def admin_of_the_running(on: Side) -> None:
    unknown = UNKNOWN[on.name]
    for verb in ("cancel", "kill", "pause", "resume", "purge", "purge-journal", "restart-as-new"):
        await on.patch(f"admin:/invocations/{unknown}/{verb}?unknown")
        await on.patch(f"admin:/invocations/inv_garbage/{verb}")
        napping = await on.sent(f"/Greeter/nap/send?of={verb}", 3600)
        await on.patch(f"admin:/invocations/{napping}/{verb}")
        if verb in ("cancel", "kill"):
            await on.settled(f"/restate/invocation/{napping}/output", 409)
            await on.get(f"/restate/invocation/{napping}/attach?of={verb}")
            await on.patch(f"admin:/invocations/{napping}/{verb}?ended")
        later = await on.sent(f"{HOUR}&of={verb}", 1)
        await on.patch(f"admin:/invocations/{later}/{verb}?scheduled")
    await on.patch(f"admin:/invocations/{unknown}/nonsense")
    for mode in ("", "?mode=cancel", "?mode=kill", "?mode=purge", "?mode=Kill", "?mode=x"):
        await on.ask("DELETE", f"admin:/invocations/{unknown}{mode}")
        later = await on.sent(HOUR, 1, headers={"x-mode": mode})
        await on.ask("DELETE", f"admin:/invocations/{later}{mode or '?'}")


async def admin_of_the_completed(on: Side) -> None:
    for verb in ("cancel", "kill", "pause", "resume", "restart-as-new", "purge-journal", "purge"):
        headers = {"idempotency-key": f"done-{verb}"}
        done = (await on.post("/Greeter/greet", "x", headers=headers)).headers["x-restate-id"]
        await on.patch(f"admin:/invocations/{done}/{verb}?completed")
        await on.get(f"/restate/invocation/{done}/output?of={verb}")
    await on.patch(f"admin:/invocations/{done}/purge?purged")
    await on.get(f"/restate/invocation/{done}/attach?of=purged")
    await on.post("/Greeter/greet", "again", headers={"idempotency-key": "done-purge"})
    await on.post("/Signup/done/approve", "yes")
    await on.post("/Signup/done/run", "A")
    run = (await on.post("/Signup/done/run/send", "A")).json()["invocationId"]
    for verb in ("restart-as-new", "purge"):
        await on.patch(f"admin:/invocations/{run}/{verb}?workflow")
    await on.settled("/restate/workflow/Signup/done/output", 404)
    await on.get("/restate/workflow/Signup/done/attach")
    await on.post("/Signup/done/peek")


async def admin_of_services(on: Side) -> None:
    await on.get("admin:/health")
    for service in ("Greeter", "Counter", "Signup", "Nope"):
        for key in ("s", ""):
            new = {"object_key": key, "new_state": {"total": list(b"42")}}
            await on.post(f"admin:/services/{service}/state", new)
    await on.post("admin:/services/Counter/state", {})
    await on.post("admin:/services/Counter/state", content=b"x")
    await on.get("admin:/services/Nope")
    await on.get("admin:/services/Greeter/handlers/nope")
    await on.get("admin:/services/Nope/handlers")
    await on.get("admin:/nonsense")
    await on.ask("DELETE", "admin:/services/Greeter")
    for service in ("Greeter", "Counter", "Signup"):
        answer = (await on.admin.get(f"/services/{service}")).json()
        shown = {name: answer[name] for name in ("name", "ty", "public")}
        shown["handlers"] = {
            each["name"]: (each.get("ty"), each["public"])
            for each in answer["handlers"]
            if each["name"] not in ("maybe", "wait", "slow")  # which Restate's has not
        }
        on.seen[f"service {service}"] = Seen(200, shown, {})
    async with asyncio.timeout(20):
        while (await on.ingress.get("/Counter/s/total")).json() != 42:
            pass  # Restate answers before it has done it
