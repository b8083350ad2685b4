"""Where the examples are; the tests here start them as programs, and import them as scripts do."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
