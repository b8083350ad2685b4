"""Which workloads there are. (Not in __main__, which processes of their own cannot import.)"""

from __future__ import annotations

import dataclasses
import importlib
from typing import cast

from benchmarks._measure import Result, Setting, environment_of

WORKLOADS = {
    "P1": "p1_concurrent_steps",
    "P2": "p2_sequential_step",
    "P3": "p3_replay",
    "P4": "p4_suspended",
    "P5": "p5_timers",
    "P6": "p6_counter",
    "P7": "p7_resolve_complete",
    "P8": "p8_http",
    "P9": "p9_disk_per_step",
    "P10": "p10_open",
    "P11": "p11_full_store",
    "P12": "p12_restate_bridge",
}


def measure(workload: str, setting: Setting) -> Result:
    """Run one workload; called in a process of its own."""
    before = environment_of(setting)  # its load is that of the others, not of this workload
    module = importlib.import_module(f"benchmarks.{WORKLOADS[workload]}")
    result = cast(Result, module.measure(setting))
    return dataclasses.replace(result, config={**result.config, **before})
