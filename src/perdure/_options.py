"""The options of an engine that can be wrong on their own."""

from __future__ import annotations

from typing import Literal, TypeAlias

Durability: TypeAlias = Literal["fsync", "os", "memory"]
CheckAtOpen: TypeAlias = Literal["refuse", "warn"]
GuardMode: TypeAlias = Literal["off", "warn", "raise"]


def check_options(
    durability: str,
    max_resident: int,
    step_threads: int,
    drain_timeout: float,
    check_at_open: str | None,
    guard: str,
    stall_warning: float | None,
) -> None:
    """Refuse what makes no sense.

    Raises:
      ValueError: The text names the option and what it got.
    """
    if durability not in ("fsync", "os", "memory"):
        raise ValueError(f"durability must be 'fsync', 'os' or 'memory', not {durability!r}")
    if check_at_open not in ("refuse", "warn", None):
        raise ValueError(f"check_at_open must be 'refuse', 'warn' or None, not {check_at_open!r}")
    if guard not in ("off", "warn", "raise"):
        raise ValueError(f"guard must be 'off', 'warn' or 'raise', not {guard!r}")
    if max_resident < 0:
        raise ValueError(f"max_resident must not be negative, got {max_resident}")
    if step_threads < 1:
        raise ValueError(f"step_threads must be at least 1, got {step_threads}")
    if drain_timeout < 0:
        raise ValueError(f"drain_timeout must not be negative, got {drain_timeout}")
    if stall_warning is not None and not stall_warning > 0:
        raise ValueError(f"stall_warning must be positive or None, got {stall_warning}")
