"""The workers of a run, found in the environment that started them: `TF_CONFIG`, else the job step of Slurm."""

import json
import re
from collections.abc import Mapping, MutableMapping
from itertools import product
from reprlib import repr as brief
from typing import Any, Literal

from maskrcnn.configuration.dataclass_json import parse_object
from maskrcnn.configuration.require import require
from maskrcnn.errors import ConfigError

ClusterKind = Literal["auto"]

TF_CONFIG = "TF_CONFIG"  # TensorFlow's own variable: all workers of the cluster, and which one this process is
ELSEWHERE = "see its message"  # ends the sentence of each worker but the one that refused

_MOST_NODES = 65_536  # the largest cluster that Slurm manages
_PORTS = range(10_000, 32_000)  # below those that Linux gives to outgoing connections
_PORTS_OF_STEP = 64
_STEPS_APART = 101  # jobs with numbers nearer than this, which share nodes most often, never share a port
_JOBS = ("chief", "worker")
_ADDRESS = re.compile(r"(?:[^\s:/\[\]@,]+|\[[0-9A-Fa-f:.%]+\]):([0-9]{1,5})")
_LAST_PORT = 65_535
_FIRST_SPECIAL_STEP = 0xFFFF_FFF0  # steps of a batch script or an interactive shell, not of srun, have such numbers
_NODE = re.compile(r"(?:[^\[\],\s]|\[[^\[\]\s]*\])+")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NUMBER = re.compile(r"[0-9]{1,18}")
_TASKS = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


def check_cluster(text: str) -> None:
    """Refuse a `TF_CONFIG` that does not describe a cluster and the task of this process."""
    where = f"the environment variable {TF_CONFIG}"
    values = parse_object(text, where)

    def check(fits: bool, what: str) -> None:
        require(
            fits,
            f"{where} is {brief(text)}: {what}; expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}',
        )

    cluster: Any = values.get("cluster")
    task: Any = values.get("task")
    check(isinstance(cluster, dict) and bool(cluster), "it has no cluster")
    check(isinstance(task, dict), "it has no task")
    known = set(cluster) <= set(_JOBS) and task.get("type") in _JOBS
    check(known, "all tasks train, so each is a worker or the chief")
    for job, addresses in cluster.items():
        listed = isinstance(addresses, list) and all(isinstance(each, str) for each in addresses)
        check(listed, f"{job} is no list of addresses")
        wrong = [each for each in addresses if not _is_address(each)]
        check(not wrong, f"{brief(wrong[0])} is not host:port" if wrong else "")
    check(len(cluster.get("chief", ())) <= 1, "there is more than one chief")
    every = [each.lower() for addresses in cluster.values() for each in addresses]
    check(len(set(every)) == len(every), "two tasks have one address")
    index, count = task.get("index"), len(cluster.get(task["type"], ()))
    check(count > 0, f"it has no address of type {task['type']}")
    if isinstance(index, str) and _NUMBER.fullmatch(index):  # TensorFlow takes it, too
        index = int(index)
    fits = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < count
    check(fits, f"the index is {brief(index)}, and tasks of type {task['type']} are numbered from 0 to {count - 1}")


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and 1 <= int(found[1]) <= _LAST_PORT


def join_cluster(environment: MutableMapping[str, str]) -> None:
    """Set `TF_CONFIG` from a job step of Slurm with several tasks; an existing one stays.

    Raises:
        ConfigError: Slurm's variables contradict each other, or the process was not started by `srun`.
    """
    if environment.get(TF_CONFIG):
        return
    found = slurm_workers(environment)
    if found is not None:
        workers, index = found
        task = {"type": "worker", "index": index}
        environment[TF_CONFIG] = json.dumps({"cluster": {"worker": workers}, "task": task})


def slurm_workers(environment: Mapping[str, str]) -> tuple[list[str], int] | None:
    """Return host:port of each worker of a job step, node by node, and the index of this one; None for one task.

    TensorFlow's own `SlurmClusterResolver` needs GPUs, and has the same ports in every job.
    """
    step = _number(environment, "SLURM_STEP_ID", default=0)
    if "SLURM_STEP_NODELIST" not in environment or step >= _FIRST_SPECIAL_STEP:
        _require_srun(environment)
        return None
    nodes = expand_nodes(environment["SLURM_STEP_NODELIST"])
    twice = next((name for name in nodes if nodes.count(name) > 1), None) if len(set(nodes)) < len(nodes) else None
    require(twice is None, f"SLURM_STEP_NODELIST names {twice} twice: expected each node once")
    total = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    counts = _tasks_per_node(environment, len(nodes), total)
    if "SLURM_NODEID" in environment and "SLURM_LOCALID" in environment:  # however the tasks were dealt out
        node, local = _number(environment, "SLURM_NODEID"), _number(environment, "SLURM_LOCALID")
        known = node < len(nodes) and local < counts[node]
        index = sum(counts[:node]) + local
    else:
        index = _number(environment, "SLURM_PROCID")
        known = index < total
    require(known, f"Slurm's variables contradict each other: this is task {index} of a step with {total} tasks")
    if total == 1:
        return None
    require(
        max(counts) <= _PORTS_OF_STEP,
        f"this Slurm step has {max(counts)} tasks on a node, which has ports for {_PORTS_OF_STEP} of them: start fewer",
    )
    port = _first_port(_number(environment, "SLURM_JOB_ID", default=0), step)
    return [f"{name}:{port + i}" for name, count in zip(nodes, counts, strict=True) for i in range(count)], index


def _first_port(job: int, step: int) -> int:
    """Return the first port of a job step on each of its nodes."""
    return _PORTS[(job + _STEPS_APART * step) % (len(_PORTS) // _PORTS_OF_STEP) * _PORTS_OF_STEP]


def expand_nodes(nodes: str) -> list[str]:
    """Return the names in a node list of Slurm, such as `node[01-03,07],gpu5`, in its order.

    Raises:
        ConfigError: It is not such a list.
    """
    names: list[str] = []
    for part in _split(nodes, nodes):
        pieces = [_expand_range(piece[1:-1], nodes) if piece[0] == "[" else [piece] for piece in _pieces(part)]
        for chosen in product(*pieces):
            names.append("".join(chosen))
            _check_nodes(len(names) <= _MOST_NODES, nodes)
    return names


def _split(text: str, nodes: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts = _NODE.findall(text)
    _check_nodes(bool(parts) and ",".join(parts) == text, nodes)
    return parts


def _pieces(part: str) -> list[str]:
    return re.findall(r"\[[^\]]*\]|[^\[]+", part)


def _expand_range(ranges: str, nodes: str) -> list[str]:
    names: list[str] = []
    for each in ranges.split(","):
        found = _RANGE.fullmatch(each)
        _check_nodes(found is not None, nodes)
        low, high = found[1], found[2] or found[1]  # type: ignore[index]
        count = int(high) - int(low) + 1
        _check_nodes(1 <= count <= _MOST_NODES - len(names), nodes)
        names += [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
    return names


def _check_nodes(fits: bool, nodes: str) -> None:
    require(fits, f"SLURM_STEP_NODELIST is {brief(nodes)}: expected a list of nodes, such as node[01-03,07],gpu5")


def _tasks_per_node(environment: Mapping[str, str], nodes: int, total: int) -> list[int]:
    """Return the number of tasks on each node, from a text such as `2(x3),1`."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    text = environment.get(name)
    if text is None:  # then each node has as many
        require(
            total % nodes == 0,
            f"{name} is not set, and {total} tasks cannot be dealt out evenly to {nodes} nodes: start them with srun",
        )
        return [total // nodes] * nodes
    counts: list[int] = []
    for each in text.split(","):
        found = _TASKS.fullmatch(each)
        repeated = int(found[2] or 1) if found else 0
        if found is None or repeated > nodes:
            break
        counts += [int(found[1])] * repeated
    require(
        len(counts) == nodes and sum(counts) == total,
        f"{name} is {brief(text)}: expected {total} tasks on {nodes} nodes, as SLURM_STEP_NODELIST and the number of "
        "tasks say",
    )
    return counts


def _require_srun(environment: Mapping[str, str]) -> None:
    """Refuse a job with several tasks whose command runs only once: it would train on the first machine alone."""
    several = max(_number(environment, name, default=1) for name in ("SLURM_NTASKS", "SLURM_JOB_NUM_NODES"))
    require(
        several == 1,
        f"this Slurm job has {several} tasks or nodes, but the command was not started on each of them: put srun "
        "before it",
    )


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    """Return the first of some variables that is set."""
    for name in names:
        if name in environment:
            text = environment[name]
            require(_NUMBER.fullmatch(text) is not None, f"{name} is {brief(text)}: expected a number")
            return int(text)
    if default is None:
        raise ConfigError(f"{' and '.join(names)} are not set: expected the variables of a job step, which srun sets")
    return default
