"""See workflows outlive their process: `make demo`, or `python examples/demo.py`.

Process 1 submits three documents and is killed (SIGKILL) while they wait for their approvers.
Process 2 opens the same directory and brings all three to their end. The exit code is 0 only if
everything was as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from types import FrameType

import perdure
from document_approval import (
    Approval,
    ApprovalResult,
    Document,
    DocumentApproval,
    Mailer,
    Status,
)

BUDGET = Document("budget", "Budget for next year", "bob")
LEASE = Document("lease", "Lease of the harbour office", "carol")
MEMO = Document("memo", "Memo that nobody reads", "dave")
DOCUMENTS = (BUDGET, LEASE, MEMO)

READY = "(everything waits)"
"""What process 1 says when all it has done is on the disk."""


class DemoFailed(Exception):
    """Something was not as it must be."""


def check(condition: bool, requirement: str) -> None:
    if not condition:
        raise DemoFailed(requirement)


def say(text: str = "") -> None:
    print(text, flush=True)


# -- The parent: starts the processes, kills the first ----------------------------------------


class Parent:
    """Runs one process at a time; asked to stop, it has that process drain and end."""

    def __init__(self, directory: Path, deadline_s: float) -> None:
        self.directory = directory
        self.deadline_s = deadline_s
        self.child: subprocess.Popen[str] | None = None
        self.stop_signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = number
        if self.child is not None and self.child.returncode is None:
            self.child.terminate()

    def run(self) -> int:
        say("Three documents, two processes, one SIGKILL.")
        code = self.run_process("first", kill_at=READY)
        if self.stop_signal or code != -signal.SIGKILL:
            return self.ended_early("process 1", code)
        say()
        say("Process 1 was killed with SIGKILL: no handler, no cleanup, no goodbye.")
        code = self.run_process("second")
        if self.stop_signal or code != 0:
            return self.ended_early("process 2", code)
        say()
        say("All is as it must be.")
        return 0

    def run_process(self, role: str, *, kill_at: str | None = None) -> int:
        """Run this script as *role*, show what it says; its exit code (negative: its signal)."""
        # Its own process group: Ctrl-C reaches the parent alone, which passes it on. Its stdin is
        # a pipe from the parent: should the parent vanish, the process sees it close, and stops.
        command = [sys.executable, __file__, str(self.directory), "--role", role]
        with subprocess.Popen(
            [*command, "--deadline", str(self.deadline_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as child:
            self.child = child
            if self.stop_signal:  # It came before on_signal knew of the child.
                child.terminate()
            assert child.stdout is not None
            for line in child.stdout:
                say(line.rstrip("\n"))
                if line.strip() == kill_at:
                    child.kill()
        return child.returncode

    def ended_early(self, name: str, code: int) -> int:
        if self.stop_signal:
            say(f"Stopped by {signal.Signals(self.stop_signal).name}.")
            return 128 + self.stop_signal
        say(f"FAILED: {name} ended with exit code {code}.")
        return 1


# -- Process 1 and process 2 ------------------------------------------------------------------


class Office:
    """What both processes have in common: the directory, and the services on it."""

    def __init__(self, directory: Path, deadline_s: float) -> None:
        self.outbox = directory / "outbox.txt"
        self.deadline = timedelta(seconds=deadline_s)
        workflow = DocumentApproval(Mailer(self.outbox), deadline=self.deadline)
        self.engine = perdure.Engine(directory / "data", [workflow])

    async def status(self, doc: Document) -> Status:
        return await self.engine.call(DocumentApproval.status, key=doc.id)

    async def show_status(self) -> None:
        for doc in DOCUMENTS:
            say(f"    {doc.title:<28} {await self.status(doc)}")

    async def until_it_waits(self, doc: Document) -> None:
        while (status := await self.status(doc)) != Status.WAITING:
            check(status == Status.SUBMITTED, f"{doc.id} must come to wait, but is {status}")
            await asyncio.sleep(0.01)

    async def first_process(self) -> None:
        async with self.engine:
            say("  Submitting three documents:")
            for doc in DOCUMENTS:
                await self.engine.send(DocumentApproval.run, doc, key=doc.id)
            await asyncio.gather(*map(self.until_it_waits, DOCUMENTS))
            await self.show_status()
            say(f"  {READY}")
            await asyncio.Event().wait()

    async def second_process(self) -> None:
        async with self.engine:
            say("  The same directory, the same documents:")
            await self.show_status()
            for doc in DOCUMENTS:
                check(await self.status(doc) == Status.WAITING, f"{doc.id} must still be waiting")

            say("  Bob approves the budget, Carol rejects the lease, nobody answers the memo:")
            yes = Approval(True, "bob", "Go ahead")
            no = Approval(False, "carol", "Too expensive")
            await self.engine.call(DocumentApproval.approve, yes, key=BUDGET.id)
            await self.engine.call(DocumentApproval.reject, no, key=LEASE.id)
            for doc, expected in (
                (BUDGET, ApprovalResult(Status.APPROVED, "bob", "Go ahead")),
                (LEASE, ApprovalResult(Status.REJECTED, "carol", "Too expensive")),
                (MEMO, ApprovalResult(Status.TIMEOUT, None, f"No response within {self.deadline}")),
            ):
                result = await self.result(doc)
                say(f"    {doc.title:<28} {result.status}: {result.comments}")
                check(result == expected, f"the result of {doc.id} must be {expected}")
                check(await self.status(doc) == result.status, f"{doc.id} must have that status")

            say()
            say("  The journal of the budget, written by two processes:")
            started = await self.engine.send(DocumentApproval.run, BUDGET, key=BUDGET.id)
            check(started.accepted is perdure.Accepted.EXISTING, "nothing must start anew")
            description = await self.engine.describe(started.id)
            say(description.timeline())

        say()
        say("  The mails that were sent, each once:")
        mails = self.outbox.read_text().splitlines()
        for mail in mails:
            say(f"    {mail}")
        check(
            sorted(mail.split(":")[0] for mail in mails) == sorted(doc.id for doc in DOCUMENTS),
            "the step 'notify approver' must have run exactly once per document",
        )

    async def result(self, doc: Document) -> ApprovalResult:
        """The result of the workflow; `submit` attaches to the one that runs or has run."""
        return await self.engine.submit(DocumentApproval.run, doc, key=doc.id)


async def until_stopped(work: Coroutine[None, None, None]) -> int:
    """Do *work*; SIGINT, SIGTERM or the parent's end cancel it once, and the engine drains."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    def stop() -> None:
        loop.remove_reader(sys.stdin)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    def stop_unheard() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the parent read it
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_reader(sys.stdin, stop_unheard)
    try:
        await task
    except asyncio.CancelledError:
        say("  Asked to stop: the engine is drained and closed; what waits, waits on the disk.")
        return 2
    except DemoFailed as failure:
        say(f"  FAILED: {failure}.")
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", nargs="?", type=Path, help="default: a temporary one")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds; default: 5")
    parser.add_argument("--role", choices=["first", "second"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is None:
        if options.directory is not None:
            options.directory.mkdir(parents=True)
            return Parent(options.directory, options.deadline).run()
        with tempfile.TemporaryDirectory(prefix="perdure-demo-") as directory:
            return Parent(Path(directory), options.deadline).run()
    say()
    office = Office(options.directory, options.deadline)
    work: Callable[[], Coroutine[None, None, None]] = {
        "first": office.first_process,
        "second": office.second_process,
    }[options.role]
    say(f"--- Process {1 if options.role == 'first' else 2} (pid {os.getpid()}) ".ljust(72, "-"))
    return asyncio.run(until_stopped(work()))


if __name__ == "__main__":
    sys.exit(main())
