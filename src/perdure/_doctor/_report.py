"""What a check of a data directory has found."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

FINDINGS_MAX = 1_000
"""Of one reading of the rows; a damaged file may have more, which tell nothing new."""


class Severity(enum.StrEnum):
    """How bad it is. An error: something is lost, or an engine can not go on with it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
      what: A sentence.
      place: The file, the database and key, or the invocation.
      remedy: What to do about it.
    """

    severity: Severity
    what: str
    place: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.place}: {self.what}\n    {self.remedy}"


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What :func:`check_directory` has found in a data directory.

    Attributes:
      path: The directory.
      deep: Every row was to be read.
      findings: The worst first.
      facts: What is no complaint, by name: ``file_bytes``, ``recorded_bytes``, ``map_bytes``,
        ``disk_free_bytes``, ``schema_version``, ``durability``, ``openings``, ``owner_pid``,
        ``rows`` (by database), ``python_versions`` and ``logic_versions`` (how many unfinished
        invocations began under each). Those that could not be learned are missing.
    """

    path: str
    deep: bool
    findings: list[Finding]
    facts: dict[str, Any]  # Any: what JSON can hold

    @property
    def ok(self) -> bool:
        """Whether nothing found is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.path}: {'ok' if self.ok else 'not ok'}"]
        lines += [f"  {name}: {_shown(value)}" for name, value in self.facts.items()]
        lines += [f"  {finding}" for finding in self.findings]
        if not self.deep:
            lines.append("  Not every row was read: a deep check does that.")
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,}" for name, number in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
