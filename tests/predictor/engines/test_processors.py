"""How many cores a process may use, on machines made of files."""

import os

import pytest

from runtime.engines.processors import usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write files of a system below a folder; return the cores counted there."""

    def count(affinity, files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(affinity), raising=False)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return usable_cores(tmp_path)

    return count


def siblings(*cores):
    """Topology files: each text names the processors of one core."""
    return {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": f"{core}\n"
        for core in cores
        for number in core.replace("-", ",").split(",")
    }


def test_nothing_is_known(machine):
    assert machine(range(6), {}) == 6


def test_two_hyper_threads_are_one_core(machine):
    assert machine(range(4), siblings("0-1", "2-3")) == 2


def test_affinity_counts(machine):
    cores = siblings("0,4", "1,5", "2,6", "3,7")
    assert machine([1, 5, 2], cores) == 2
    assert machine([0], cores) == 1


V2 = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 8)],
)
def test_quota_of_a_container(machine, limit, expected):
    assert machine(range(8), {"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": f"{limit}\n"}) == expected


def test_smallest_quota_on_the_way_up_counts(machine):
    files = {
        "proc/self/cgroup": "0::/pod/box\n",
        f"{V2}/pod/box/cpu.max": "600000 100000\n",
        f"{V2}/pod/cpu.max": "300000 100000\n",
        f"{V2}/other/cpu.max": "100000 100000\n",
    }
    assert machine(range(8), files) == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3)])
def test_quota_of_the_older_control_groups(machine, quota, expected):
    files = {
        "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n1:cpuset:/\n0::/\n",
        "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
    }
    assert machine(range(8), files) == expected


def test_this_machine():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
