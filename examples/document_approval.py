"""A document waits for a person: days, and restarts, if need be.

A workflow is one durable `run` per key, here per document, and handlers that may be called while it
waits. Read demo.py to see this one killed in mid-wait and carry on in another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import perdure
from perdure import AlreadyCompleted, Pending, TerminalError, WorkflowContext, WorkflowSharedContext


class Status(StrEnum):
    NOT_SUBMITTED = "not submitted"
    SUBMITTED = "submitted"  # the approver has not been told yet
    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    approver: str


@dataclass(frozen=True)
class Approval:
    approved: bool
    approver: str
    comments: str = ""


@dataclass(frozen=True)
class ApprovalResult:
    status: Status
    approver: str | None = None
    comments: str = ""


class Mailer:
    """Sends mail, for the purposes of an example, by adding a line to a file."""

    def __init__(self, outbox: Path) -> None:
        self.outbox = outbox

    def send(self, doc: Document) -> None:
        # A step that is cut short runs again, under the same token. A real mail service takes the
        # token as its idempotency key, and the approver still gets one mail.
        line = f"{doc.id}: please approve {doc.title!r}, {doc.approver} [{perdure.step_token()}]\n"
        with self.outbox.open("a") as file:
            file.write(line)


class DocumentApproval(perdure.Workflow):
    """The key is the document's id."""

    def __init__(self, mailer: Mailer, *, deadline: timedelta = timedelta(hours=48)) -> None:
        self.mailer = mailer
        self.deadline = deadline

    async def run(self, ctx: WorkflowContext, doc: Document) -> ApprovalResult:
        """Tell the approver and wait for the answer, or for the deadline."""
        ctx.set("status", Status.SUBMITTED)
        await ctx.run("notify approver", self.mailer.send, doc)
        ctx.set("status", Status.WAITING)

        approval = ctx.promise("approval", Approval)
        timeout = ctx.after(self.deadline)
        if await ctx.wait_first(approval, timeout) is timeout:
            try:
                # From here on an answer is refused (409), rather than accepted and ignored.
                await approval.reject(f"no response within {self.deadline}")
            except AlreadyCompleted:
                pass  # It came at the last moment and its sender was thanked: it counts.
            else:
                return ApprovalResult(
                    Status.TIMEOUT, comments=f"No response within {self.deadline}"
                )

        decision = await approval
        status = Status.APPROVED if decision.approved else Status.REJECTED
        return ApprovalResult(status, decision.approver, decision.comments)

    @perdure.handler
    async def approve(self, ctx: WorkflowSharedContext, approval: Approval) -> None:
        """Answer: yes or no, once. A second answer, or one too late, is `AlreadyCompleted`."""
        await ctx.promise("approval", Approval).resolve(approval)

    @perdure.handler
    async def reject(self, ctx: WorkflowSharedContext, approval: Approval) -> None:
        """Answer no, whatever *approval* says."""
        no = Approval(False, approval.approver, approval.comments)
        await ctx.promise("approval", Approval).resolve(no)

    @perdure.handler
    async def status(self, ctx: WorkflowSharedContext) -> Status:
        """Where the document stands now: before `run` has started, during it and after."""
        try:
            decision = await ctx.promise("approval", Approval).peek()
        except TerminalError:
            return Status.TIMEOUT  # `run` rejected the promise at the deadline
        if decision is not Pending:
            return Status.APPROVED if decision.approved else Status.REJECTED
        return await ctx.get("status", Status, Status.NOT_SUBMITTED)


services = [DocumentApproval(Mailer(Path("outbox.txt")))]
