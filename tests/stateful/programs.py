"""Generated handlers: a program is nested tuples, so that it can be printed, shrunk and shipped.

``build`` makes one out of choices (of Hypothesis or of a seeded generator), ``interpret`` makes the
handler that runs it. A handler returns the trace of all it saw, so two runs that differ in any
value, order or outcome differ in their result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

import anyio

from perdure.context import WorkflowContext
from perdure.errors import AlreadyCompleted, TerminalError
from perdure.futures import DurableFuture, DurablePromise, Pending

Statement = tuple[Any, ...]  # Any: a word, then whatever that word takes.
Body = tuple[Statement, ...]
Choose = Callable[[int], int]
"""Picks a number below its argument."""

PROMISES = 4
STATES = 3
PATCHES = 2

_LEAVES = (
    *("step", "step", "step_fails", "step_caught", "sleep", "promise", "resolve", "peek"),
    *("get", "set", "clear", "clear_all", "keys", "random", "uuid4", "now", "yield", "race"),
    *("in_order", "cancel_operation", "cancel_set_of_operations", "patched"),
)
_BLOCKS = (
    *("wait_first_completed", "wait_all", "gather", "gather_all", "wait_for", "timeout"),
    *("group", "failing_group", "shield", "as_completed", "as_completed_coroutines", "finally"),
    *("event", "lock", "queue", "semaphore", "condition", "barrier", "spawn", "generator"),
    *("pending_set", "gathers_in_set", "catch", "wait_on_futures", "owned_set"),
    *("anyio_group", "anyio_move_on"),
)


class _Builder:
    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._names = 0
        self.left = 30  # statements this program may still have

    def body(self, depth: int, least: int = 0) -> Body:
        return tuple(self.statement(depth) for _ in range(least + self._choose(3)))

    def bodies(self, depth: int) -> tuple[Body, ...]:
        return tuple(self.body(depth, 1) for _ in range(2 + self._choose(2)))

    def statement(self, depth: int) -> Statement:
        self.left -= 1
        if depth <= 0 or self.left <= 0 or self._choose(3) == 0:
            return self._leaf(_LEAVES[self._choose(len(_LEAVES))])
        word = _BLOCKS[self._choose(len(_BLOCKS))]
        if word in ("wait_for", "timeout", "anyio_move_on"):
            return word, self._ms(), self.body(depth - 1, 1)
        if word in ("finally", "catch"):
            return word, self.body(depth - 1, 1), self.body(depth - 1)
        if word == "generator":
            return word, self.body(depth - 1, 1), bool(self._choose(2))
        if word in ("shield", "spawn"):
            return word, self.body(depth - 1, 1)
        if word == "wait_on_futures":
            return word, self._operations()
        return word, self.bodies(depth - 1)

    def _leaf(self, word: str) -> Statement:
        if word.startswith("step"):
            self._names += 1
            return word, f"s{self._names}"
        if word == "sleep":
            return word, ("ctx", "asyncio", "after")[self._choose(3)], self._ms()
        if word in ("promise", "resolve", "peek"):
            return word, f"p{self._choose(PROMISES)}"
        if word in ("get", "set", "clear"):
            return word, f"k{self._choose(STATES)}"
        if word == "patched":
            return word, f"c{self._choose(PATCHES)}"
        if word in ("race", "in_order", "cancel_operation", "cancel_set_of_operations"):
            return word, self._operations()
        return (word,)

    def _operations(self) -> Body:
        words = ("step", "step_fails", "sleep", "promise")
        leaves = [self._leaf(words[self._choose(4)]) for _ in range(1 + self._choose(3))]
        return tuple(("sleep", "after", leaf[2]) if leaf[0] == "sleep" else leaf for leaf in leaves)

    def _ms(self) -> int:
        return (0, 1, 20, 1000)[self._choose(4)]


def build(choose: Choose, depth: int = 3) -> Body:
    """A program out of choices."""
    return _Builder(choose).body(depth, 2)


def interpret(program: Body) -> Callable[[WorkflowContext], Awaitable[Any]]:
    """The handler that runs *program*; it returns its trace."""

    async def handler(ctx: WorkflowContext) -> Any:
        return await _Run(ctx).main(program)

    return handler


def patched(
    program: Body, answers: list[tuple[str, bool]]
) -> Callable[[WorkflowContext], Awaitable[Any]]:
    """The handler of a later release: it does *program*, and something new before each statement.

    What is new is behind a patch of its own each. The answers go to *answers* as they come.
    """

    async def handler(ctx: WorkflowContext) -> Any:
        return await _PatchedRun(ctx, answers).main(program)

    return handler


def _value(name: str) -> str:
    return f"value of {name}"


def _failure(name: str) -> str:
    raise TerminalError(f"failure of {name}", 418)


class _Run:
    def __init__(self, ctx: WorkflowContext) -> None:
        self.ctx = ctx
        self.trace: list[Any] = []
        self.promises: dict[str, DurablePromise[Any]] = {}
        self.spawned: list[asyncio.Task[Any]] = []
        self.operations: dict[DurableFuture[Any], int] = {}

    async def main(self, program: Body) -> list[Any]:
        try:
            await self.body(program)
            for task in self.spawned:
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await task
        except (Exception, asyncio.CancelledError) as error:
            self.trace.append(["ended by", _text(error)])
        return self.trace

    async def body(self, body: Body) -> str:
        for statement in body:
            await getattr(self, f"do_{statement[0]}")(*statement[1:])
        return body[-1][0] if body else ""

    def tasks(self, bodies: tuple[Body, ...]) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.body(body), name=f"t{i}") for i, body in enumerate(bodies)]

    def see(self, *what: Any) -> None:
        self.trace.append(list(what))

    # -- operations -------------------------------------------------------------------------

    def operation(self, statement: Statement) -> DurableFuture[Any]:
        word, *rest = statement
        future: DurableFuture[Any]
        if word == "step_fails":
            future = self.ctx.run(rest[0], _failure, rest[0])
        elif word == "step":
            future = self.ctx.run(rest[0], _value, rest[0])
        elif word == "sleep":
            future = self.ctx.after(rest[1] / 1000)
        else:
            future = self.promise(rest[0])
        self.operations.setdefault(future, len(self.operations))
        return future

    def promise(self, name: str) -> DurablePromise[Any]:
        if name not in self.promises:
            self.promises[name] = self.ctx.promise(name)
        return self.promises[name]

    async def do_step(self, name: str) -> None:
        self.see(await self.ctx.run(name, _value, name))

    async def do_step_fails(self, name: str) -> None:
        self.see(await self.ctx.run(name, _failure, name))

    async def do_step_caught(self, name: str) -> None:
        try:
            await self.do_step_fails(name)
        except TerminalError as failure:
            self.see("caught", str(failure), failure.code)

    async def do_sleep(self, via: str, ms: int) -> None:
        if via == "ctx":
            await self.ctx.sleep(ms / 1000)
        elif via == "asyncio":
            await asyncio.sleep(ms / 1000)
        else:
            await self.ctx.after(ms / 1000)
        self.see("slept", asyncio.get_running_loop().time())

    async def do_promise(self, name: str) -> None:
        self.see(name, await self.promise(name))

    async def do_resolve(self, name: str) -> None:
        try:
            await self.promise(name).resolve(f"{name} from within")
        except AlreadyCompleted as refused:
            self.see(str(refused))

    async def do_peek(self, name: str) -> None:
        value = await self.promise(name).peek()
        self.see("peeked", name, "pending" if value is Pending else value)

    async def do_race(self, statements: Body) -> None:
        futures = [self.operation(statement) for statement in statements]
        first = await self.ctx.wait_first(*futures)
        self.see("first", self.operations[first])

    async def do_in_order(self, statements: Body) -> None:
        futures = [self.operation(statement) for statement in statements]
        async for future in self.ctx.wait(*futures):
            self.see("next", self.operations[future], _text(future.exception()))

    async def do_cancel_operation(self, statements: Body) -> None:
        futures = [self.operation(statement) for statement in statements]
        await asyncio.sleep(0.001)
        for future in futures:
            self.see("cancel", future.cancel(), future.cancelled())

    async def do_cancel_set_of_operations(self, statements: Body) -> None:
        operations = {self.operation(statement) for statement in statements}
        operations |= {self.ctx.after(10 + number) for number in range(3)}
        for future in operations:
            if not isinstance(future, DurablePromise):
                future.cancel()

    async def do_wait_on_futures(self, statements: Body) -> None:
        # Any: the types of asyncio.wait ask for asyncio's own futures.
        futures: set[Any] = {self.operation(statement) for statement in statements}
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        self.see("done", [self.operations[f] for f in done])
        self.see("pending", [self.operations[f] for f in pending])
        for future in pending:
            if not isinstance(future, DurablePromise):
                future.cancel()

    # -- state and the deterministic world --------------------------------------------------

    async def do_get(self, name: str) -> None:
        self.see(name, await self.ctx.get(name))

    async def do_set(self, name: str) -> None:
        self.ctx.set(name, len(self.trace))

    async def do_clear(self, name: str) -> None:
        self.ctx.clear(name)

    async def do_clear_all(self) -> None:
        self.ctx.clear_all()

    async def do_keys(self) -> None:
        self.see(await self.ctx.state_keys())

    async def do_random(self) -> None:
        self.see(self.ctx.random.random())

    async def do_uuid4(self) -> None:
        self.see(str(self.ctx.uuid4()))

    async def do_now(self) -> None:
        self.see(self.ctx.now().isoformat())

    async def do_patched(self, name: str) -> None:
        self.see(name, self.ctx.patched(name))

    async def do_yield(self) -> None:
        await asyncio.sleep(0)

    # -- combinators ------------------------------------------------------------------------

    async def do_wait_first_completed(self, bodies: tuple[Body, ...]) -> None:
        done, pending = await asyncio.wait(self.tasks(bodies), return_when=asyncio.FIRST_COMPLETED)
        self.see("done", [task.get_name() for task in done])
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        self.see("all", [[t.get_name(), t.cancelled()] for t in done | pending])
        _retrieve(done | pending)

    async def do_wait_all(self, bodies: tuple[Body, ...]) -> None:
        done, late = await asyncio.wait(set(self.tasks(bodies)), timeout=0.5)
        self.see("done", [task.get_name() for task in done])
        _retrieve(done)
        self.spawned += late

    async def do_pending_set(self, bodies: tuple[Body, ...]) -> None:
        pending = set(self.tasks(bodies))
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=0.05, return_when=asyncio.FIRST_COMPLETED
            )
            _retrieve(done)
            self.see([task.get_name() for task in done], [t.get_name() for t in pending])
            if not done:
                for task in pending:
                    task.cancel()

    async def do_owned_set(self, bodies: tuple[Body, ...]) -> None:
        owned = {asyncio.create_task(self.cleaned(body)) for body in bodies * 2}
        await asyncio.sleep(0.001)
        for task in owned:
            task.cancel()
        while owned:
            task = owned.pop()
            with contextlib.suppress(TerminalError, ExceptionGroup, asyncio.CancelledError):
                await task

    async def do_gather(self, bodies: tuple[Body, ...]) -> None:
        self.see(await asyncio.gather(*(self.body(body) for body in bodies)))

    async def do_gather_all(self, bodies: tuple[Body, ...]) -> None:
        results = await asyncio.gather(
            *(self.body(body) for body in bodies), return_exceptions=True
        )
        self.see([r if isinstance(r, str) else _text(r) for r in results])

    async def do_gathers_in_set(self, bodies: tuple[Body, ...]) -> None:
        gathers = {
            asyncio.ensure_future(asyncio.gather(self.body(body), return_exceptions=True))
            for body in bodies
        }
        done, pending = await asyncio.wait(gathers, return_when=asyncio.FIRST_COMPLETED)
        for gathered in pending:
            gathered.cancel()
        for gathered in [*done, *pending]:
            try:
                self.see([r if isinstance(r, str) else _text(r) for r in await gathered])
            except asyncio.CancelledError:
                self.see("gather cancelled")

    async def do_wait_for(self, ms: int, body: Body) -> None:
        try:
            self.see(await asyncio.wait_for(self.body(body), ms / 1000))
        except TimeoutError:
            self.see("wait_for timed out")

    async def do_timeout(self, ms: int, body: Body) -> None:
        scope = asyncio.timeout(ms / 1000)
        try:
            async with scope:
                await self.body(body)
        except TimeoutError:
            self.see("timed out", scope.expired())

    async def do_group(self, bodies: tuple[Body, ...]) -> None:
        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(self.cleaned(body))

    async def do_failing_group(self, bodies: tuple[Body, ...]) -> None:
        async def fail() -> None:
            await asyncio.sleep(0.02)
            raise TerminalError("a child failed")

        try:
            async with asyncio.TaskGroup() as group:
                for body in bodies:
                    group.create_task(self.cleaned(body))
                group.create_task(fail())
        except* TerminalError as failures:
            self.see("group", [_text(e) for e in failures.exceptions])

    async def do_anyio_group(self, bodies: tuple[Body, ...]) -> None:
        async with anyio.create_task_group() as group:
            for body in bodies:
                group.start_soon(self.shielded, body)
            await self.ctx.sleep(0.02)
            group.cancel_scope.cancel()

    async def do_anyio_move_on(self, ms: int, body: Body) -> None:
        with anyio.move_on_after(ms / 1000) as scope:
            await self.body(body)
        self.see("moved on", scope.cancelled_caught)

    async def shielded(self, body: Body) -> None:
        """*body*, with a durable clean-up that anyio does not cancel."""
        try:
            await self.body(body)
        finally:
            with anyio.CancelScope(shield=True):
                number = len(self.trace)
                self.see("cleaning", await self.ctx.run(f"clean {number}", _value, str(number)))

    async def cleaned(self, body: Body) -> None:
        """*body*, with a durable clean-up if it is cancelled."""
        try:
            await self.body(body)
        except asyncio.CancelledError:
            number = len(self.trace)
            self.see("cleaning", await self.ctx.run(f"clean {number}", _value, str(number)))
            raise

    async def do_shield(self, body: Body) -> None:
        inner = asyncio.ensure_future(self.body(body))
        self.spawned.append(inner)
        try:
            async with asyncio.timeout(0.01):
                self.see(await asyncio.shield(inner))
        except TimeoutError:
            self.see("shield timed out", inner.done())

    async def do_as_completed(self, bodies: tuple[Body, ...]) -> None:
        for earliest in asyncio.as_completed(self.tasks(bodies)):
            try:
                self.see(await earliest)
            except TerminalError as failure:
                self.see(_text(failure))

    async def do_as_completed_coroutines(self, bodies: tuple[Body, ...]) -> None:
        for earliest in asyncio.as_completed([self.body(body) for body in bodies]):
            try:
                self.see(await earliest)
            except TerminalError as failure:
                self.see(_text(failure))

    async def do_finally(self, body: Body, cleanup: Body) -> None:
        try:
            await self.body(body)
        finally:
            await self.body(cleanup)

    async def do_catch(self, body: Body, after: Body) -> None:
        try:
            await self.body(body)
        except (Exception, asyncio.CancelledError) as error:
            self.see("caught", _text(error))
            await self.body(after)

    async def do_spawn(self, body: Body) -> None:
        self.spawned.append(asyncio.create_task(self.body(body)))

    async def do_generator(self, body: Body, stops_early: bool) -> None:
        async def generate() -> AsyncGenerator[int, None]:
            try:
                for number, statement in enumerate(body):
                    await self.body((statement,))
                    yield number
            finally:
                self.see("generator closed")

        async for number in generate():
            self.see("generated", number)
            if stops_early:
                break

    # -- the primitives of asyncio ----------------------------------------------------------

    async def all_of(self, *coroutines: Coroutine[Any, Any, Any]) -> None:
        for result in await asyncio.gather(*coroutines, return_exceptions=True):
            if isinstance(result, BaseException):
                self.see("failed", _text(result))

    async def do_event(self, bodies: tuple[Body, ...]) -> None:
        event = asyncio.Event()

        async def wait(number: int) -> None:
            await event.wait()
            self.see("woken", number)

        async def setter() -> None:
            try:
                for body in bodies:
                    await self.body(body)
            finally:
                event.set()

        await self.all_of(wait(0), setter(), wait(1))

    async def do_lock(self, bodies: tuple[Body, ...]) -> None:
        lock = asyncio.Lock()

        async def locked(body: Body) -> None:
            async with lock:
                await self.body(body)

        await self.all_of(*(locked(body) for body in bodies))

    async def do_semaphore(self, bodies: tuple[Body, ...]) -> None:
        semaphore = asyncio.BoundedSemaphore(2)

        async def limited(body: Body) -> None:
            async with semaphore:
                await self.body(body)

        await self.all_of(*(limited(body) for body in bodies))

    async def do_queue(self, bodies: tuple[Body, ...]) -> None:
        queue: asyncio.Queue[Body | None] = asyncio.Queue(1)

        async def produce() -> None:
            for body in bodies:
                await queue.put(body)
            await queue.put(None)

        async def consume() -> None:
            while (body := await queue.get()) is not None:
                with contextlib.suppress(TerminalError, ExceptionGroup):
                    await self.body(body)
                queue.task_done()

        await self.all_of(consume(), produce())

    async def do_condition(self, bodies: tuple[Body, ...]) -> None:
        condition = asyncio.Condition()
        arrived = 0

        async def arrive(body: Body) -> None:
            nonlocal arrived
            try:
                await self.body(body)
            finally:
                async with condition:
                    arrived += 1
                    condition.notify_all()

        async def watch() -> None:
            async with condition:
                await condition.wait_for(lambda: arrived == len(bodies))
            self.see("all arrived")

        await self.all_of(watch(), *(arrive(body) for body in bodies))

    async def do_barrier(self, bodies: tuple[Body, ...]) -> None:
        barrier = asyncio.Barrier(len(bodies))

        async def meet(body: Body) -> None:
            try:
                await self.body(body)
            except BaseException:
                await barrier.abort()
                raise
            self.see("met", await barrier.wait())

        await self.all_of(*(meet(body) for body in bodies))


class _PatchedRun(_Run):
    def __init__(self, ctx: WorkflowContext, answers: list[tuple[str, bool]]) -> None:
        super().__init__(ctx)
        self.answers = answers
        self.numbers: dict[int, int] = {}  # of statements, in the order in which they are come to

    async def body(self, body: Body) -> str:
        for statement in body:
            number = self.numbers.setdefault(id(statement), len(self.numbers))
            if self.is_patched(f"change {number % 5}"):
                self.see("new", await self.ctx.run(f"new {number}", _value, str(number)))
            await super().body((statement,))
        return body[-1][0] if body else ""

    def is_patched(self, name: str) -> bool:
        answer = self.ctx.patched(name)
        self.answers.append((name, answer))
        return answer


def _retrieve(tasks: set[asyncio.Task[str]]) -> None:
    """Look at the failures, or asyncio reports them as never retrieved."""
    for task in tasks:
        if not task.cancelled():
            task.exception()


def _text(error: object) -> str:
    if error is None:
        return "none"
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}[{', '.join(map(_text, error.exceptions))}]"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"  # anyio's text has the address of the scope
    return f"{type(error).__name__}: {error}"
