"""The workers of a run, as Slurm and a Kubernetes job describe them in the environment."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.errors import ArgumentError, ConfigError, NonFiniteLossError, WorkerLostError
from maskrcnn.training.cluster import check_cluster, expand_nodes, join_cluster, slurm_workers
from runtime.errors import ImageError


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
        (step("a,a", 2), "names a twice"),
        (step("n[1-3],n2", 4), "names n2 twice"),
        (step("a", 65), "65 tasks on a node"),
        (placed(0, 0, 0, "65,1", tasks=66), "65 tasks on a node"),
        *(
            (step("a", 1, SLURM_STEP_ID=str(2**32 - number), **job), "put srun before it")
            for number in (4, 5, 6)  # of a shell beside the job, of its script, and of an interactive shell
            for job in ({"SLURM_NTASKS": "4"}, {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "2"})
        ),
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
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"},
        step("a", 1),
        step("a", 1, SLURM_STEP_ID=str(2**32 - 6), SLURM_NTASKS="1"),
        {"TF_CONFIG": ""},
    ],
)
def test_otherwise_this_machine_trains_alone(environment):
    before = dict(environment)
    join_cluster(environment)
    assert environment == before


TWO = ["a:1", "b:1"]


def described(cluster, kind="worker", index=0):
    return {"cluster": cluster, "task": {"type": kind, "index": index}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "it has no cluster"),
        (described({}), "it has no cluster"),
        (described(TWO), "it has no cluster"),
        ({"cluster": {"worker": TWO}}, "it has no task"),
        ({"cluster": {"worker": TWO}, "task": "worker"}, "it has no task"),
        (described({"worker": "a:1"}), "worker is no list of addresses"),
        (described({"worker": {"0": "a:1"}}), "worker is no list of addresses"),
        (described({"worker": [["a:1"]]}), "worker is no list of addresses"),
        (described({"worker": TWO, "chief": "c:1"}), "chief is no list of addresses"),
        *(
            (described({"worker": ["a:1", each]}), "is not host:port")
            for each in (
                "nohostport",
                "b:",
                ":1",
                "b:one",
                "b:0",
                "b:65536",
                "b:-1",
                "b c:1",
                "http://b:1",
                "::1:1",
                "",
            )
        ),
        *(
            (described({"worker": TWO, "ps": ["c:1"]}, kind), "each is a worker or the chief")
            for kind in ("ps", "worker")
        ),
        (described({"worker": TWO, "evaluator": ["c:1"]}, "evaluator"), "each is a worker or the chief"),
        *((described({"worker": TWO}, kind), "each is a worker") for kind in ("evaluator", "ps", None, ["worker"])),
        *((described({"worker": TWO}, "worker", each), "the index is") for each in (-1, 2, 0.9, True, None, "-1", "x")),
        (described({"worker": TWO}, "chief"), "no address of type chief"),
        (described({"worker": ["a:1", "a:1"]}), "two tasks have one address"),
        (described({"worker": ["a:1", "A:1"]}), "two tasks have one address"),
        (described({"chief": ["a:1"], "worker": ["a:1"]}), "two tasks have one address"),
        (described({"chief": TWO}, "chief"), "more than one chief"),
    ],
)
def test_what_describes_no_cluster_is_refused(values, message):
    with pytest.raises(ConfigError, match=r"^the environment variable TF_CONFIG is .*" + message) as raised:
        check_cluster(json.dumps(values))
    assert exit_code(raised.value) == 4


@pytest.mark.parametrize(
    "values",
    [
        described({"worker": TWO}, index=1),
        described({"worker": TWO}, index="1"),
        described({"worker": ["a:1", "a:2"]}),
        described({"chief": ["c:1"], "worker": TWO}, "chief"),
        described({"worker": ["[::1]:10001", "n-1.example.org:65535", "10.0.0.1:1"]}, index=2) | {"environment": "x"},
    ],
)
def test_what_describes_a_cluster(values):
    check_cluster(json.dumps(values))


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


PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def manifest():
    """The service and the job of the page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (text,) = (block for block in blocks if "TF_CONFIG" in block)
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def test_the_manifest_gives_each_pod_a_name_and_a_number(manifest):
    service, job = manifest["Service"], manifest["Job"]["spec"]
    name = manifest["Job"]["metadata"]["name"]
    pod = job["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]  # workers look for each other before they are ready
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert job["completions"] == job["parallelism"] == int(variables["WORKERS"])
    assert job["completionMode"] == "Indexed"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert pod["restartPolicy"] == "Never"  # which such rules need
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert exit_code(WorkerLostError("gone")) not in rule["onExitCodes"]["values"]
    assert {exit_code(error("wrong")) for error in (ConfigError, ArgumentError, NonFiniteLossError, ImageError)} <= set(
        rule["onExitCodes"]["values"]
    )


@pytest.mark.parametrize(("count", "index"), [(1, 0), (4, 0), (12, 11)])
def test_the_shell_lines_of_the_manifest_describe_the_cluster(manifest, tmp_path, count, index):
    (container,) = manifest["Job"]["spec"]["template"]["spec"]["containers"]
    (port,) = manifest["Service"]["spec"]["ports"]
    command = tmp_path / "maskrcnn"
    command.write_text(
        '#!/bin/sh\nprintf %s "$TF_CONFIG" > config\nprintf "%s\\n" "$@" > arguments\n', encoding="utf-8"
    )
    command.chmod(0o755)
    environment = {
        "WORKERS": str(count),
        "JOB_COMPLETION_INDEX": str(index),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    subprocess.run([*container["command"], *container["args"]], cwd=tmp_path, env=environment, check=True, timeout=60)
    found = json.loads((tmp_path / "config").read_text())
    name, domain = manifest["Job"]["metadata"]["name"], manifest["Service"]["metadata"]["name"]
    assert found["cluster"]["worker"] == [f"{name}-{i}.{domain}:{port['port']}" for i in range(count)]
    assert found["task"] == {"type": "worker", "index": index}
    check_cluster((tmp_path / "config").read_text())
    assert (tmp_path / "arguments").read_text().split()[0] == "train"


def test_commands_of_the_page_have_options_that_exist():
    known = {option for parameter in typer.main.get_command(app).commands["train"].params for option in parameter.opts}
    commands = re.findall(r"^ *(?:srun |exec )?maskrcnn train (.*)$", PAGE, re.MULTILINE)
    assert len(commands) >= 3
    assert {word for command in commands for word in command.split() if word.startswith("-")} <= known
