"""Control flow of the engine inside user code."""

from __future__ import annotations


class Halted(BaseException):
    """This run of the handler is over: evicted, failed or diverged.

    A ``BaseException``, because a user's ``except Exception`` must not swallow it.
    """
