"""The workers of a run, as Slurm describes them in the environment."""

import json

import pytest
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.errors import ConfigError
from maskrcnn.training.cluster import expand_nodes, join_cluster, slurm_workers


def step(nodes="node[01-02]", tasks=2, task=0, **more):
    """The variables that every job step has."""
    return {"SLURM_STEP_NODELIST": nodes, "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_PROCID": str(task)} | more


def placed(task, node, local, per_node, nodes="a,b", tasks=4):
    """A task of a step whose tasks are dealt out in any way."""
    where = {"SLURM_NODEID": str(node), "SLURM_LOCALID": str(local), "SLURM_STEP_TASKS_PER_NODE": per_node}
    return step(nodes, tasks, task, **where)


def names(workers):
    return [worker.partition(":")[0] for worker in workers]


def ports(environment):
    return {int(worker.partition(":")[2]) for worker in slurm_workers(environment)[0]}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("gpu5", ["gpu5"]),
        ("node[01-03,07],gpu5", ["node01", "node02", "node03", "node07", "gpu5"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[008-010]", ["n008", "n009", "n010"]),
        ("n[3],m", ["n3", "m"]),
        ("rack[1-2]node[01-02]", ["rack1node01", "rack1node02", "rack2node01", "rack2node02"]),
        ("n[1-2]-ib.cluster.local,b,a", ["n1-ib.cluster.local", "n2-ib.cluster.local", "b", "a"]),
    ],
)
def test_node_lists(nodes, expected):
    assert expand_nodes(nodes) == expected


@pytest.mark.parametrize(
    "nodes",
    ["", ",", "a,,b", "a,", "n[", "n]", "n[1-", "n[1-2", "n[]", "n[3-1]", "n[a-b]", "n[1--2]", "n[1-2-3]", "n[1,]",
     "a b", "n[[1-2]]", "n[1-99999999999]", "n[" + "9" * 5000 + "]", "n[0-999][0-999]", "n[\u0661-\u0662]"],
)  # fmt: skip
def test_what_is_no_node_list_is_refused(nodes):
    with pytest.raises(ConfigError, match="SLURM_STEP_NODELIST is"):
        expand_nodes(nodes)


def test_a_worker_on_each_node():
    workers, index = slurm_workers(step("node[01-03,07],gpu5", 5, 3))
    assert names(workers) == ["node01", "node02", "node03", "node07", "gpu5"]
    assert index == 3


def test_several_workers_on_a_node_have_ports_of_their_own():
    for environment in (step(tasks=6, task=4), placed(4, 1, 1, "3(x2)", "node[01-02]", 6)):
        workers, index = slurm_workers(environment)
        assert names(workers) == ["node01"] * 3 + ["node02"] * 3
        assert len(set(workers)) == 6
        assert index == 4


def test_workers_are_numbered_by_node_however_slurm_deals_them_out():
    cyclic = [placed(0, 0, 0, "3,1"), placed(1, 1, 0, "3,1"), placed(2, 0, 1, "3,1"), placed(3, 0, 2, "3,1")]
    found = [slurm_workers(environment) for environment in cyclic]
    assert [index for _, index in found] == [0, 3, 1, 2]
    assert all(names(workers) == ["a", "a", "a", "b"] for workers, _ in found)
    assert len({tuple(workers) for workers, _ in found}) == 1


def test_ports_of_jobs_that_share_a_node_differ():
    seen = set()
    for job in range(4_711, 4_741):
        for number in range(3):
            own = ports(step("a", 8, 0, SLURM_JOB_ID=str(job), SLURM_STEP_ID=str(number)))
            assert len(own) == 8
            assert not own & seen
            assert min(own) >= 1024
            assert max(own) < 32_768  # where Linux takes ports for outgoing connections
            seen |= own


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (step(task=2), "contradict each other: this is task 2"),
        (placed(0, 2, 0, "2(x2)"), "contradict each other"),
        (placed(0, 0, 2, "2(x2)"), "contradict each other"),
        (step(tasks=3), "3 tasks cannot be dealt out evenly to 2 nodes"),
        (placed(0, 0, 0, "2(x3)"), "SLURM_STEP_TASKS_PER_NODE is"),
        (placed(0, 0, 0, "2"), "SLURM_STEP_TASKS_PER_NODE is"),
        (placed(0, 0, 0, "2,3"), "SLURM_STEP_TASKS_PER_NODE is"),
        (placed(0, 0, 0, "two"), "SLURM_STEP_TASKS_PER_NODE is"),
        (placed(0, 0, 0, "1(x999999999)"), "SLURM_STEP_TASKS_PER_NODE is"),
        (step(tasks="many"), "SLURM_STEP_NUM_TASKS is 'many'"),
        (step(task="-1"), "SLURM_PROCID is '-1'"),
        (step(task="9" * 5000), "SLURM_PROCID is"),
        ({"SLURM_STEP_NODELIST": "a"}, "SLURM_STEP_NUM_TASKS and SLURM_NTASKS are not set"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, "put srun before it"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}, "put srun before it"),
    ],
)
def test_what_slurm_does_not_say_is_refused(environment, message):
    with pytest.raises(ConfigError, match=message):
        join_cluster(environment)
    assert "TF_CONFIG" not in environment


def test_the_cluster_is_written_for_tensorflow():
    environment = step(task=1, SLURM_JOB_ID="12", SLURM_NTASKS="7")
    join_cluster(environment)
    written = json.loads(environment["TF_CONFIG"])
    assert names(written["cluster"]["worker"]) == ["node01", "node02"]
    assert written["task"] == {"type": "worker", "index": 1}


def test_the_number_of_tasks_has_two_names():
    environment = step()
    environment["SLURM_NTASKS"] = environment.pop("SLURM_STEP_NUM_TASKS")
    assert slurm_workers(environment) == slurm_workers(step())


@pytest.mark.parametrize(
    "environment", [{}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, step("a", 1), {"TF_CONFIG": ""}]
)
def test_otherwise_this_machine_trains_alone(environment):
    before = dict(environment)
    join_cluster(environment)
    assert environment == before


def test_an_own_description_comes_first():
    environment = step() | {"TF_CONFIG": "mine"}
    join_cluster(environment)
    assert environment["TF_CONFIG"] == "mine"


def test_the_command_asks_slurm_only_if_told(monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in step(task=5).items():
        monkeypatch.setenv(name, value)
    command = ["train", str(tmp_path / "missing"), "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*command, "--cluster", "auto"])
    assert (result.exit_code, result.stderr) == (
        4,
        "error: Slurm's variables contradict each other: this is task 5 of a step with 2 tasks\n",
    )
    result = CliRunner().invoke(app, command)
    assert "Slurm" not in result.stderr
    assert CliRunner().invoke(app, [*command, "--cluster", "mine"]).exit_code == 2
