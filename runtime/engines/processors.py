"""How many processor cores this process may use, by its affinity and the quota of its container."""

import math
import os
from contextlib import suppress
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores that this process may run on, at most its container's quota; at least 1.

    Args:
        root: Folder with /proc and /sys.
    """
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(root, processor) for processor in processors}
    # A part of a processor counts as one: on 1.5 processors, two threads get more done than one.
    granted = [math.ceil(quota) for quota in _quotas(root)]
    return max(1, min([len(cores), *granted]))


def _core(root: Path, processor: int) -> str:
    """Identify a core by the list of the processors that share it."""
    topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    return _text(topology / "thread_siblings_list") or str(processor)


def _quotas(root: Path) -> list[float]:
    """Return the processors granted by each control group of this process and its parents."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        group = Path(name.lstrip("/"))
        if not controllers:  # version 2
            folder = root / "sys/fs/cgroup"
            for place in (group, *group.parents):
                limit, _, period = _text(folder / place / "cpu.max").partition(" ")
                found.append((limit, period))
        elif "cpu" in controllers.split(","):
            folder = root / "sys/fs/cgroup/cpu"
            for place in (group, *group.parents):
                limit, period = (_text(folder / place / f"cpu.cfs_{part}_us") for part in ("quota", "period"))
                found.append((limit, period))
    return [int(limit) / int(period) for limit, period in found if limit.isdigit() and period.isdigit() and int(limit)]


def _text(path: Path) -> str:
    """Return the text of a system file; empty if there is none."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
