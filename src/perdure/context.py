"""What a handler is given: the context types.

The annotation of a handler's first parameter decides its kind; see :mod:`perdure.service`.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, overload

from perdure._base_context import Context, Request
from perdure._core._entries import decode_names
from perdure._core._question import answer_of
from perdure._declarations import (
    Declaration,
    PromiseDeclaration,
    StateDeclaration,
    StateWithDefault,
    check_use,
    name_and_serde,
)
from perdure._limits import check_name
from perdure.errors import InvalidInput, PromiseNameError
from perdure.futures import DurablePromise, durable_promise
from perdure.serde import UNTYPED, serde_for

__all__ = [
    "Context",
    "ObjectContext",
    "ObjectSharedContext",
    "Request",
    "WorkflowContext",
    "WorkflowSharedContext",
]

T = TypeVar("T")
D = TypeVar("D")
# What may be empty: `[]` has no type of its own, and takes that of the state it stands in for.
C = TypeVar("C", bound=list[Any] | dict[Any, Any] | set[Any] | frozenset[Any])


class _KeyedContext(Context):
    """What the contexts of objects and workflows have: a key, and reading its state."""

    @property
    def key(self) -> str:
        """The key of the workflow or object."""
        return self._key

    @overload
    async def get(self, name: StateWithDefault[T]) -> T: ...
    @overload
    async def get(self, name: StateDeclaration[T]) -> T | None: ...
    @overload
    async def get(self, name: str, type: type[C], default: C) -> C: ...
    @overload
    async def get(self, name: str, type: type[T], default: D) -> T | D: ...
    @overload
    async def get(self, name: str, type: type[T]) -> T | None: ...
    @overload
    async def get(self, name: str, type: Any = UNTYPED, default: Any = None) -> Any: ...

    async def get(
        self, name: str | StateDeclaration[Any], type: Any = UNTYPED, default: Any = None
    ) -> Any:
        """The value of state *name* of this key, or *default* where it is not set.

        *name* may be a declaration, which has a type and perhaps a default of its own.
        """
        if isinstance(name, Declaration):
            declared = check_use(name, StateDeclaration, self._service)
            if type is not UNTYPED or default is not None:
                raise InvalidInput(
                    f"{name!r} has a type of its own, and its default is declared with it: "
                    "perdure.state(…, default=…); leave the others out"
                )
            entry = await answer_of(self._machine.get_state(declared.name))
            return declared.decode(entry.payload)
        _check_state_name(name)
        entry = await answer_of(self._machine.get_state(name))
        if entry.payload is None:
            return default
        return serde_for(type).decode(entry.payload, f"state {name!r}")

    async def state_keys(self) -> list[str]:
        """The names of the state set for this key, sorted."""
        entry = await answer_of(self._machine.state_names())
        return decode_names(entry.payload or b"")

    @overload
    def set(self, name: StateDeclaration[T], value: T) -> None: ...
    @overload
    def set(self, name: str, value: Any) -> None: ...

    def set(self, name: str | StateDeclaration[Any], value: Any) -> None:
        """Set state *name*; refused in a shared handler."""
        self._refuse("set")

    def clear(self, name: str | StateDeclaration[Any]) -> None:
        """Remove state *name*; refused in a shared handler."""
        self._refuse("clear")

    def clear_all(self) -> None:
        """Remove all state of this key; refused in a shared handler."""
        self._refuse("clear_all")

    def _refuse(self, verb: str) -> None:
        raise InvalidInput(
            f"ctx.{verb}: a shared handler can not write state; only `run` of a workflow and the "
            "exclusive handlers of an object can"
        )


class _WritingContext(_KeyedContext):
    """The contexts that may write state."""

    @overload
    def set(self, name: StateDeclaration[T], value: T) -> None: ...
    @overload
    def set(self, name: str, value: Any) -> None: ...

    def set(self, name: str | StateDeclaration[Any], value: Any) -> None:
        """Set state *name* to *value*, which is encoded at once.

        *name* may be a declaration: then *value* is checked against its type.
        """
        declared, serde = name_and_serde(name, UNTYPED, StateDeclaration, self._service)
        _check_state_name(declared)
        place = f"state {declared!r}"
        payload = serde.encode(value, place)

        def recode(recorded: bytes) -> bytes:
            typed = serde_for(type(value)) if serde.annotation is UNTYPED else serde
            return serde.encode(typed.decode(recorded, place), place)

        self._machine.set_state(declared, payload, recode)

    def clear(self, name: str | StateDeclaration[Any]) -> None:
        """Remove state *name*."""
        declared, _ = name_and_serde(name, UNTYPED, StateDeclaration, self._service)
        _check_state_name(declared)
        self._machine.clear_state(declared)

    def clear_all(self) -> None:
        """Remove all state of this key."""
        self._machine.clear_all_state()


class ObjectSharedContext(_KeyedContext):
    """The context of a shared handler of an object: runs beside the others, reads state."""


class ObjectContext(_WritingContext):
    """The context of an exclusive handler of an object: reads and writes the state of its key."""


class _PromiseContext(_KeyedContext):
    @overload
    def promise(self, name: PromiseDeclaration[T]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, type: type[T]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, type: Any = UNTYPED) -> DurablePromise[Any]: ...

    def promise(
        self, name: str | PromiseDeclaration[Any], type: Any = UNTYPED
    ) -> DurablePromise[Any]:
        """The durable promise *name* of this workflow key, carrying a value of *type*.

        *name* may be a declaration, which has a type of its own.
        """
        self._machine.check_usable()
        declared, serde = name_and_serde(name, type, PromiseDeclaration, self._service)
        return durable_promise(self._machine, declared, serde)


class WorkflowSharedContext(_PromiseContext):
    """The context of a workflow's other handlers: they run beside ``run``, before it and after."""


class WorkflowContext(_PromiseContext, _WritingContext):
    """The context of a workflow's ``run``."""

    @overload
    def promise(self, name: PromiseDeclaration[T]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, type: type[T]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, type: Any = UNTYPED) -> DurablePromise[Any]: ...

    def promise(
        self, name: str | PromiseDeclaration[Any], type: Any = UNTYPED
    ) -> DurablePromise[Any]:
        """The durable promise *name* of this workflow key, carrying a value of *type*.

        *name* may be a declaration, which has a type of its own.

        Raises:
          PromiseNameError: ``run`` has asked for this name before: one promise, one event.
        """
        self._machine.check_usable()
        declared, serde = name_and_serde(name, type, PromiseDeclaration, self._service)
        promise = durable_promise(self._machine, declared, serde)
        if not self._machine.claim_promise(declared):
            raise PromiseNameError(
                f"run asked twice for the promise {declared!r}; keep the first and await it again, "
                "or give the second event a name of its own"
            )
        return promise


@functools.lru_cache(maxsize=4096)
def _check_state_name(name: str) -> None:
    check_name(name, "state name")
