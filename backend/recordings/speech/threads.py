"""How many threads a computation may use."""

import os
from pathlib import Path

_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = Path("/sys/fs/cgroup/cpu")


def thread_count(setting: int = 0) -> int:
    """`setting`, or, where it is 0, the processors of this process bounded by its container's CPU quota; 1 at least."""
    if setting > 0:
        return setting
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    # A started processor counts: a quota of 1.5 keeps two threads busy enough.
    return max(1, processors if quota is None else min(processors, -int(-quota // 1)))


def cpu_quota(cgroup_2: Path = _CGROUP_2, cgroup_1: Path = _CGROUP_1) -> float | None:
    """Processors that the control group (version 2 or 1) grants, None without a limit."""
    try:
        if cgroup_2.exists():
            quota, period = cgroup_2.read_text().split()
        else:
            quota = (cgroup_1 / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup_1 / "cpu.cfs_period_us").read_text().strip()
        granted = float(quota) / float(period)
    except (OSError, ValueError):
        # "max" is no number: no limit.
        return None
    return granted if granted > 0 else None
