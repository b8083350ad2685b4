"""The document approval, driven through the engine as a program would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

import perdure
from document_approval import (
    Approval,
    ApprovalResult,
    Document,
    DocumentApproval,
    Mailer,
    Status,
    services,
)

DOC = Document("doc123", "Budget for next year", "bob")
YES = Approval(True, "bob", "Go ahead")


class Desk:
    """An engine with the workflow, the file of its mails, and shorthands for DOC."""

    def __init__(self, engine: perdure.Engine, outbox: Path) -> None:
        self.engine = engine
        self.outbox = outbox

    async def submit(self) -> perdure.InvocationHandle[ApprovalResult]:
        return await self.engine.send(DocumentApproval.run, DOC, key=DOC.id)

    async def approve(self) -> None:
        await self.engine.call(DocumentApproval.approve, YES, key=DOC.id)

    async def status(self) -> Status:
        return await self.engine.call(DocumentApproval.status, key=DOC.id)

    async def until(self, status: Status) -> None:
        async with asyncio.timeout(20):
            while await self.status() != status:  # noqa: ASYNC110
                await asyncio.sleep(0)

    def mails(self) -> list[str]:
        return self.outbox.read_text().splitlines()


@asynccontextmanager
async def desk(
    directory: Path, *, deadline: timedelta = timedelta(hours=48), mailer: Mailer | None = None
) -> AsyncIterator[Desk]:
    outbox = directory / "outbox.txt"
    workflow = DocumentApproval(mailer or Mailer(outbox), deadline=deadline)
    async with perdure.Engine(directory / "data", [workflow], durability="os") as engine:
        yield Desk(engine, outbox)


Scenario = Callable[[Path], Coroutine[None, None, None]]


def scenario(test: Scenario) -> Callable[[Path], None]:
    """Run an async test on a loop of its own."""

    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))

    run.__name__ = test.__name__
    return run


@scenario
async def test_an_approved_document_is_approved(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        started = await it.submit()
        await it.approve()
        assert await started.result() == ApprovalResult(Status.APPROVED, "bob", "Go ahead")


@scenario
async def test_a_rejected_document_is_rejected(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        started = await it.submit()
        await it.engine.call(DocumentApproval.reject, Approval(True, "bob", "No"), key=DOC.id)
        assert await started.result() == ApprovalResult(Status.REJECTED, "bob", "No")
        assert await it.status() == Status.REJECTED


@scenario
async def test_approve_with_a_no_rejects(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        started = await it.submit()
        await it.engine.call(DocumentApproval.approve, Approval(False, "bob"), key=DOC.id)
        assert (await started.result()).status == Status.REJECTED


@scenario
async def test_no_answer_within_the_deadline_is_a_timeout(tmp_path: Path) -> None:
    async with desk(tmp_path, deadline=timedelta(milliseconds=20)) as it:
        result = await (await it.submit()).result()
        assert result == ApprovalResult(Status.TIMEOUT, None, "No response within 0:00:00.020000")
        assert await it.status() == Status.TIMEOUT


@scenario
async def test_an_answer_after_the_deadline_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path, deadline=timedelta(0)) as it:
        await (await it.submit()).result()
        with pytest.raises(perdure.AlreadyCompleted):
            await it.approve()
        assert await it.status() == Status.TIMEOUT


@scenario
async def test_whichever_way_the_last_moment_goes_the_approver_and_the_result_agree(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, deadline=timedelta(milliseconds=5)) as it:
        keys = [f"doc{number}" for number in range(200)]

        async def answer(number: int, key: str) -> tuple[bool, Status]:
            started = await it.engine.send(DocumentApproval.run, DOC, key=key)
            await asyncio.sleep(number % 20 / 1000)
            try:
                await it.engine.call(DocumentApproval.approve, YES, key=key)
                thanked = True
            except perdure.AlreadyCompleted:
                thanked = False
            return thanked, (await started.result()).status

        for thanked, status in await asyncio.gather(*map(answer, range(200), keys)):
            assert status == (Status.APPROVED if thanked else Status.TIMEOUT)


@scenario
async def test_a_second_answer_is_refused_with_409_and_changes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        started = await it.submit()
        await it.approve()
        with pytest.raises(perdure.AlreadyCompleted) as refusal:
            await it.engine.call(DocumentApproval.reject, Approval(False, "eve"), key=DOC.id)
        assert refusal.value.code == 409
        assert (await started.result()).status == Status.APPROVED
        with pytest.raises(perdure.AlreadyCompleted):
            await it.approve()


@scenario
async def test_status_tells_the_truth_at_every_moment(tmp_path: Path) -> None:
    released = asyncio.Event()

    class SlowMailer(Mailer):
        async def send(self, doc: Document) -> None:  # type: ignore[override]
            await released.wait()

    async with desk(tmp_path, mailer=SlowMailer(tmp_path / "outbox.txt")) as it:
        assert await it.status() == Status.NOT_SUBMITTED
        started = await it.submit()
        assert await it.status() == Status.SUBMITTED
        released.set()
        await it.until(Status.WAITING)
        await it.approve()
        assert await it.status() == Status.APPROVED
        await started.result()
        assert await it.status() == Status.APPROVED


@scenario
async def test_a_document_may_be_approved_before_it_is_submitted(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.approve()
        assert await it.status() == Status.APPROVED
        assert (await (await it.submit()).result()).status == Status.APPROVED


@scenario
async def test_the_approver_gets_one_mail_also_when_the_engine_is_reopened(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.submit()
        await it.until(Status.WAITING)
    async with desk(tmp_path) as it:
        assert await it.status() == Status.WAITING
        await it.approve()
        assert (await (await it.submit()).result()).status == Status.APPROVED
        assert len(it.mails()) == 1
        assert it.mails()[0].startswith("doc123: please approve 'Budget for next year', bob [inv_")


@scenario
async def test_a_deadline_that_passed_while_nothing_ran_is_a_timeout_at_the_next_start(
    tmp_path: Path,
) -> None:
    deadline = timedelta(milliseconds=200)
    async with desk(tmp_path, deadline=deadline) as it:
        await it.submit()
        await it.until(Status.WAITING)
    await asyncio.sleep(deadline.total_seconds())
    async with desk(tmp_path, deadline=deadline) as it:
        assert (await (await it.submit()).result()).status == Status.TIMEOUT


def test_the_services_can_be_served_as_they_are() -> None:
    assert [type(service) for service in services] == [DocumentApproval]
    assert services[0].deadline == timedelta(hours=48)
