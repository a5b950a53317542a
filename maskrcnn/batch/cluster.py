"""A Ray cluster: reaching it or starting one on this machine, what fits on it, and its errors in our words."""

import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from maskrcnn.callbacks import Say
from maskrcnn.errors import ArgumentError, ClusterError
from maskrcnn.runs.folder_lock import LOCK, locked
from runtime.errors import MissingPackageError, OutputError, ToolkitError

# Of each task that reads images or writes rows.
SMALL_TASK: dict[str, Any] = {"num_cpus": 0.25}
_SPARE = 0.1  # part of a cluster's CPUs, at least one CPU, that workers leave to such tasks
_SECONDS_TO_ANSWER = 5
_SECONDS_UNTIL_SAID, _SECONDS_BETWEEN = 5, 30  # that a run waits for the cluster
_NOTICE = b"Set ray log level from environment variable"  # of Ray, for a setting below
# In the traceback of what Ray Data writes files with.
_WRITE_STEP = ("datasink.py", "data/checkpoint/")
_FOLDER = "mrcnn-"
_LONGEST_FOLDER = 28  # of a local cluster: sockets below it may have paths of 107 bytes
# Of this process, and of a cluster that it starts.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else it prints to stdout that a process ended
}


class StoppedError(BaseException):
    """Ends a run on a signal, whose number it holds."""


class Need(NamedTuple):
    """What one worker takes: processor cores, GPUs, and bytes of memory (0 if not yet known)."""

    cpus: int
    gpus: int
    memory: int = 0

    def options(self) -> dict[str, Any]:
        """Return this as options of a Ray task or actor."""
        found: dict[str, Any] = {"num_cpus": self.cpus}
        return found | ({"num_gpus": self.gpus} if self.gpus else {}) | ({"memory": self.memory} if self.memory else {})


def require_ray() -> Any:
    """Import Ray.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import ray  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingPackageError("ray", "batch", "a Ray cluster") from error
    return ray


@contextmanager
def connected(address: str, need: Need | None = None, wanted: int | None = None) -> Iterator[Any]:
    """Connect to a cluster for the time of a block, or use the one that this process is connected to.

    Args:
        address: "auto" for the cluster of this machine, "local" to start one on this machine that ends with the block,
            or HOST:PORT of a cluster's head.
        need: What a worker takes; no cluster is started here if the processors do not suffice. None: not known.
        wanted: Number of workers; None for as many as fit.

    Raises:
        MissingPackageError: Ray is not installed.
        ArgumentError: It is no address.
        ClusterError: There is no cluster, it has other versions of Ray or Python, or this machine is too small for one.
    """
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    ray = require_ray()
    import_module("ray.data")  # sets up the loggers that are quieted next
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address != "local":
        _check_address(address)
        try:
            with _without_notice():
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(_no_cluster(address, error)) from error
        try:
            yield ray
        finally:
            ray.shutdown()
        return
    if need is not None:
        # At once, and not after the seconds that Ray takes to start; in a container it may find fewer.
        fitting([{"CPU": os.cpu_count() or 1}], need._replace(gpus=0), wanted)
    with _short_folder() as folder:
        try:
            with _without_notice():
                ray.init(address="local", include_dashboard=False, _temp_dir=folder, **quiet)
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _short_folder() -> Iterator[str]:
    """Make a folder for the time of a block; remove those that killed processes left."""
    usual = tempfile.gettempdir()
    parent = usual if len(usual) < _LONGEST_FOLDER or os.name == "nt" else "/tmp"  # noqa: S108
    folder = tempfile.mkdtemp(prefix=_FOLDER, dir=parent)
    try:
        user = Path(folder).stat().st_uid
        for lock in Path(parent).glob(f"{_FOLDER}*/{LOCK}"):
            with suppress(OutputError, OSError):  # it is in use, or removed by another process
                if lock.stat().st_uid == lock.parent.stat().st_uid == user:
                    with locked(lock.parent, "batch"):
                        shutil.rmtree(lock.parent, ignore_errors=True)
        with locked(Path(folder), "batch"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_notice() -> Iterator[None]:
    """Hold back stderr for the time of a block, and leave out Ray's line about a setting of ours."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            os.write(2, b"".join(line for line in held if _NOTICE not in line))


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `StoppedError` in the main thread on Ctrl-C or SIGTERM; a second one ends the process at once.

    It belongs inside of `connected`, since Ray has a handler of its own. A signal that is ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise StoppedError(number)

    numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _check_address(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ArgumentError(f"--ray is {address!r}: expected auto, local, or HOST:PORT of a cluster's head")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: Exception) -> str:
    where = "on this machine" if address == "auto" else f"at {address}"
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return (
        f"there is no Ray cluster {where} that can be used ({reason}): start one with 'ray start --head', set "
        "RAY_AUTH_MODE=token if it asks for a token, or use local"
    )


def workers_that_fit(ray: Any, need: Need, wanted: int | None) -> int:
    """Return the number of workers of a run, all that fit unless a number is wanted.

    Raises:
        ClusterError: The cluster does not hold that many, or not one beside a task that reads.
    """
    return fitting([node["Resources"] for node in ray.nodes() if node["Alive"]], need, wanted)


def fitting(nodes: Sequence[Mapping[str, float]], need: Need, wanted: int | None) -> int:
    """Do what `workers_that_fit` does, for machines with these resources."""
    cpus = sum(node.get("CPU", 0.0) for node in nodes)
    free = cpus - max(1.0, _SPARE * cpus)
    most = min(sum(_room(node, need) for node in nodes), math.floor(free / need.cpus))
    most = max(most, 0)
    if most >= (wanted or 1):
        return wanted or most
    one = [f"{need.cpus} CPUs"] + [f"{need.gpus} GPUs"] * bool(need.gpus)
    one += [f"{math.ceil(need.memory / 2**20)} MiB of memory"] * bool(need.memory)
    has = f"{cpus:g} CPUs"
    if need.gpus:
        has += f", {sum(node.get('GPU', 0.0) for node in nodes):g} GPUs"
    if need.memory:
        has += f", {sum(node.get('memory', 0.0) for node in nodes) / 2**20:.0f} MiB of memory"
    has += f" on {len(nodes)} machines"
    raise ClusterError(
        f"the cluster is too small: {wanted or 1} workers of {', '.join(one)} each, beside {max(1.0, _SPARE * cpus):g} "
        f"CPUs for reading and writing, do not fit on it; it has {has}: "
        + (f"use at most {most} workers" if most else "use fewer --threads or a larger cluster")
        + ", or --device cpu" * bool(need.gpus)
    )


def _room(node: Mapping[str, float], need: Need) -> int:
    """Return how many workers one machine holds."""
    pairs = (("CPU", need.cpus), ("GPU", need.gpus), ("memory", need.memory))
    return min(math.floor(node.get(name, 0.0) / amount) for name, amount in pairs if amount)


def with_gpu(ray: Any, need: Need, device: str) -> tuple[Need, str]:
    """Return what a worker takes and its device, for "auto" by whether the cluster has GPUs.

    Workers without a GPU of their own see all of their machine: with "auto", each would open the first one.
    """
    if device != "auto":
        return need, device
    has_gpu = any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"])
    return (need._replace(gpus=1), device) if has_gpu else (need, "cpu")


def wait_for_room(ray: Any, need: Need, say: Say) -> None:
    """Return once the cluster has a place for a worker; say what it waits for while there is none."""
    place, seconds = ray.remote(**need.options())(_take_place).remote(), _SECONDS_UNTIL_SAID
    while not ray.wait([place], timeout=seconds)[0]:
        free, seconds = ray.available_resources(), _SECONDS_BETWEEN
        wanted = (("CPU", "processors", need.cpus), ("GPU", "GPUs", need.gpus), ("memory", "memory", need.memory))
        short = [shown for name, shown, amount in wanted if free.get(name, 0.0) < amount]
        what = " and ".join(short or ["processors, GPUs or memory of each machine"])
        say(f"waiting for the cluster, which is busy: others use its {what}")
    ray.get(place)


def _take_place() -> None:
    """Do nothing, as a task that takes what a worker does."""


def require_shared(ray: Any, file: str) -> None:
    """Refuse a folder that other machines of a cluster do not see, by a file in it.

    Raises:
        OutputError: A machine does not see it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415  (an extra)

    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not ray.get(ray.remote(num_cpus=0, scheduling_strategy=there)(os.path.exists).remote(file)):
                host = node["NodeManagerHostname"]
                raise OutputError(
                    f"{file} is not seen on {host}: choose a folder that all machines of the cluster share"
                )


def in_our_words(error: Exception, output: str) -> Exception:
    """Return the error of ours behind one of Ray, else what to say about it; errors of neither are returned as is."""
    ray = require_ray()
    chain: list[BaseException] = []
    following: list[BaseException | None] = [error]
    while following:
        one = following.pop(0)
        if one is None or any(one is other for other in chain):
            continue
        chain.append(one)
        following += [getattr(one, "cause", None), one.__cause__, one.__context__]
    where = "".join(traceback.format_exception(error))  # on this machine and, for an error of a task, on that of it
    writes = any(part in where for part in _WRITE_STEP)
    chain = [one for one in chain if not isinstance(one, ray.exceptions.RayTaskError)]
    for one in chain:
        if isinstance(one, ToolkitError):
            return one
    for one in chain:
        if isinstance(one, ModuleNotFoundError) and one.name is not None:
            return ClusterError(
                f"a machine of the cluster has no package {one.name!r}: install the same on all of them"
            )
        if isinstance(one, OSError) and one.errno is not None:
            if writes:
                return OutputError(f"cannot write {output}: {os.strerror(one.errno)}")
            return ClusterError(f"a step of the run failed ({type(one).__name__}: {' '.join(str(one).split())[:200]})")
    if not isinstance(error, ray.exceptions.RayError):
        return error
    reason = " ".join(str(error).split())[:200]
    return ClusterError(f"the cluster failed ({type(error).__name__}: {reason}): run the same command again to resume")
