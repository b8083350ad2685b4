"""The check of a data directory that no engine has open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perdure._core._entries import LOGIC_VERSION
from perdure._core._machine import PYTHON_MINOR
from perdure._doctor._outside import meta, rights, space
from perdure._doctor._report import DoctorReport, Finding, Severity
from perdure._store import ReaderLock, read_owner
from perdure.errors import DataDirectoryInUse, StoreCorrupt, StoreError

Progress = Callable[[int, int], None]

_RESTORE = "restore it from a backup"


def check_directory(
    path: str | os.PathLike[str], *, deep: bool = False, progress: Progress | None = None
) -> DoctorReport:
    """Look over the data directory *path*; nothing in it changes.

    Args:
      deep: Read every row, check its checksum, and the rules between the databases: each unfinished
        invocation in exactly one place, each row with what it belongs to. It takes as long as
        reading the file does, and some hundred bytes of memory for each unfinished invocation.
      progress: Of a deep check: called now and then with the rows read and how many there are.

    Returns:
      What was found; a directory that is none, damaged, or in use is a finding, too.
    """
    directory = Path(path).absolute()
    checking = _Checking(directory, deep, progress)
    try:
        checking.run()
    except DataDirectoryInUse as error:
        # Without a word about the rows, a deep check has not done what was asked.
        severity = Severity.ERROR if deep else Severity.WARNING
        checking.found(
            Finding(
                *(severity, f"{error}. Its rows were not read", str(directory)),
                "stop it first, or make a backup from it and check that",
            )
        )
    except StoreError as error:
        remedy = _RESTORE if isinstance(error, StoreCorrupt) else "name the directory of an engine"
        checking.found(Finding(Severity.ERROR, str(error), str(directory), remedy))
    findings = sorted(checking.findings, key=lambda each: each.severity is not Severity.ERROR)
    return DoctorReport(str(directory), deep, findings, checking.facts)


class _Checking:
    def __init__(self, directory: Path, deep: bool, progress: Progress | None) -> None:
        self._directory = directory
        self._deep = deep
        self._progress = progress
        self._reading = "the file"
        self.findings: list[Finding] = []
        self.facts: dict[str, Any] = {}

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def run(self) -> None:
        if self._directory.is_dir():
            self.findings += rights(self._directory)
            facts, findings = space(self._directory)
            self.facts |= facts
            self.findings += findings
            owner = read_owner(self._directory)
            if owner:
                self.facts["owner_pid"] = int(owner) if owner.isdigit() else owner
        lock = ReaderLock(self._directory)
        try:
            self.facts.pop("owner_pid", None)  # that of a process which has let it go
            facts, findings = meta(self._directory)
            self.facts |= facts
            self.findings += findings
            self._read_rows()
        finally:
            lock.release()
        self._judge_versions()

    def _read_rows(self) -> None:
        command = [sys.executable, "-P", "-m", "perdure._doctor._reader", str(self._directory)]
        command.append("deep" if self._deep else "quick")
        # It must find the same perdure, however that was found here.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, "PYTHONPATH": paths},
            ) as reader,
        ):
            assert reader.stdout is not None
            ended = False
            try:
                for line in reader.stdout:
                    ended = self._heard(line) or ended
            except BaseException:
                reader.kill()
                raise
            code = reader.wait()
            if not ended:
                complaints.seek(0)
                self._died(code, complaints.read()[-2_000:].decode("utf-8", "replace").strip())

    def _heard(self, line: bytes) -> bool:
        """Take in what the reader says; True if it is its last word."""
        said: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # a line that its death cut short
            said = json.loads(line)
        if "finding" in said:
            fields = said["finding"]
            self.found(Finding(**{**fields, "severity": Severity(fields["severity"])}))
        if "progress" in said and self._progress is not None:
            self._progress(*said["progress"])
        self._reading = said.get("reading", self._reading)
        self.facts |= said.get("facts", {})
        return "end" in said

    def _died(self, code: int, complaint: str) -> None:
        how = f"ended with code {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
        complaint = complaint.splitlines()[-1] if complaint else "it said nothing"
        self.found(
            Finding(
                Severity.ERROR,
                f"the process that read it {how} at {self._reading} ({complaint}): pages of the "
                "file are damaged, or it was cut short",
                str(self._directory / "data.mdb"),
                _RESTORE,
            )
        )

    def _judge_versions(self) -> None:
        place = str(self._directory)
        for version, count in self.facts.get("logic_versions", {}).items():
            if int(version) > LOGIC_VERSION:
                what = f"{count} unfinished invocations were begun by a newer perdure"
                remedy = "install that; with this one they pause"
                self.found(Finding(Severity.ERROR, what, place, remedy))
        for version, count in self.facts.get("python_versions", {}).items():
            if version != PYTHON_MINOR:
                what = f"{count} unfinished invocations began under Python {version}"
                remedy = f"this is {PYTHON_MINOR}: open the engine with check_at_open='refuse'"
                self.found(Finding(Severity.WARNING, what, place, remedy))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
