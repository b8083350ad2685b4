"""The tortured server: ``torture_program.py PORT ADMIN_PORT DATA OUTSIDE MAX_RESIDENT``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from outside import Outside
from torture_services import services

import perdure
from perdure.http._server import run

SOON = perdure.RetryPolicy(initial=0.002, factor=1, max_interval=0.002, max_attempts=None)


def main() -> int:
    port, admin_port, data, outside, max_resident = sys.argv[1:]
    engine = perdure.Engine(
        data,
        services(Outside(Path(outside))),
        default_retry=SOON,
        max_resident=int(max_resident),
    )
    # What fails once in each process would fill the log with its failures.
    logging.getLogger("perdure").setLevel(logging.ERROR)
    return run(engine, port=int(port), admin_port=int(admin_port), log_level=logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
