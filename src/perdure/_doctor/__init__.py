"""Looking a data directory over: rights, file, rows, and the rules between the rows."""

from perdure._doctor._checking import check_directory
from perdure._doctor._report import DoctorReport, Finding, Severity

__all__ = ["DoctorReport", "Finding", "Severity", "check_directory"]
