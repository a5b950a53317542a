"""Training on a Ray cluster: who is refused, what is said about workers that end, and what workers print."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from training_runs import tiny
from typer.testing import CliRunner

from maskrcnn.batch import cluster as batch_cluster
from maskrcnn.checkpoints.matterport_h5 import read_arrays
from maskrcnn.cli import app
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.commands.shared import WORDS_OF_INIT
from maskrcnn.commands.train_job import TrainJob
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.synthetic.shapes import write_shapes
from maskrcnn.errors import ClusterError, TrainingError, WorkerLostError
from maskrcnn.training import on_ray
from maskrcnn.training.on_ray import End

ELSEWHERE = End(4, "worker 1 cannot start, so none does: see its message")


class Remote:
    """Stands in for the handle of an actor; calls are done at once."""

    def __init__(self, actor):
        self.actor = actor

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self.actor, name))


def cluster(*nodes):
    """What is asked of the module `ray` that is connected to a cluster with these machines."""
    alive = [{"Alive": True, "Resources": node} for node in nodes]
    return SimpleNamespace(
        nodes=lambda: [*alive, {"Alive": False, "Resources": {"CPU": 99.0}}], get=lambda value: value
    )


@pytest.mark.parametrize(
    ("nodes", "most", "use_gpu"),
    [
        ([{"CPU": 2.0}], 2, False),
        ([{"CPU": 1.5}, {"CPU": 2.0}], 3, False),
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 64.0}], 4, True),
        ([{"CPU": 2.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}], 3, True),
        ([{"memory": 1e9}], 0, False),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(nodes, most, use_gpu):
    if most:
        assert on_ray._require_room(cluster(*nodes), most) is use_gpu
    with pytest.raises(ClusterError, match=rf"too small for {most + 1} workers.*there is room for {most}:") as raised:
        on_ray._require_room(cluster(*nodes), most + 1)
    assert (f"--workers {most}" in str(raised.value)) is bool(most)
    assert ("GPU" in str(raised.value)) is use_gpu
    assert exit_code(raised.value) == 3


def test_the_worker_that_refused_is_told_and_not_the_others():
    own = End(5, "a.jpg is cut short")
    for ends, expected in (
        ({}, None),
        ({0: ELSEWHERE, 1: own, 2: ELSEWHERE}, own),
        ({1: own}, own),
        ({2: ELSEWHERE}, ELSEWHERE),  # the other one could not say it any more
    ):
        board = on_ray._Board(3)
        for worker, end in ends.items():
            board.end(worker, end)
        assert board.cause() == expected


def test_workers_begin_again_until_one_refuses():
    board = on_ray._Board(3)
    assert [board.begin(worker) for worker in (0, 1, 1, 0)] == [0, 0, 1, 1]
    assert board.news() == ([("stderr", "... a worker was lost: all start again and resume (1 of 3)")], True)
    assert board.news() == ([], True)
    board.end(1, End(4, "no"))
    assert board.begin(0) is None


class DeadError(Exception):
    """As Ray says that the process of a worker is gone."""


DeadError.__module__ = "ray.exceptions"


@pytest.mark.parametrize(
    ("failures", "most", "message"),
    [
        ({1: DeadError()}, 0, "^worker 1 is gone"),
        ({0: WorkerLostError("worker 1 is gone"), 1: DeadError()}, 3, "^after 3 restarts, worker 1 is gone"),
        ({0: WorkerLostError("another worker is gone")}, 1, "^after 1 restarts, a worker is gone"),
        ({0: ZeroDivisionError(), 1: DeadError()}, 0, "^worker 1 is gone"),  # the other error follows from it
    ],
)
def test_a_lost_worker_is_named(failures, most, message):
    lost = on_ray._lost(SimpleNamespace(worker_failures=failures), most)
    assert isinstance(lost, WorkerLostError)
    with pytest.raises(WorkerLostError, match=message + ".*--resume$"):
        raise lost
    assert exit_code(lost) == 7


def test_unexpected_errors_of_workers_stay():
    bug = ZeroDivisionError()
    assert on_ray._lost(SimpleNamespace(worker_failures={0: WorkerLostError("gone"), 1: bug}), 3) is bug
    other = RuntimeError("no memory")
    assert on_ray._lost(other, 3) is other


def test_failures_of_ray_itself_are_one_line():
    failure = on_ray._lost(DeadError("Training failed due to controller error:\nthe head node is gone"), 3)
    assert isinstance(failure, ClusterError)
    assert str(failure).startswith("Ray gave up (Training failed due to controller error: the head node is gone)")


def work(monkeypatch, run, rank=0, board=None):
    """What one worker tells the board, and what it raises."""
    board, context = board or on_ray._Board(3), SimpleNamespace(get_world_rank=lambda: rank)
    monkeypatch.setitem(sys.modules, "ray", cluster())
    monkeypatch.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=lambda: context))
    settings = {"board": Remote(board), "job": SimpleNamespace(run=run), "code_of": exit_code}
    error = None
    try:
        on_ray._work(settings)
    except (RuntimeError, ArithmeticError) as raised:
        error = raised
    return board, error


def test_what_the_first_worker_prints_is_relayed(monkeypatch, capsys):
    def run(restarted):
        assert not restarted
        sys.stdout.write("one\ntwo")
        typer.echo(" three")
        typer.echo("... loading", err=True)
        assert not sys.stdout.isatty()

    board, error = work(monkeypatch, run)
    assert error is None
    assert board.news()[0] == [("stdout", "one"), ("stdout", "two three"), ("stderr", "... loading")]
    board, _ = work(monkeypatch, run, rank=1)
    assert board.news()[0] == []
    assert capsys.readouterr().out == "one\ntwo three\n"


def test_a_worker_that_refuses_says_why_and_does_not_try_again(monkeypatch):
    tried = []

    def refuse(restarted):
        tried.append(restarted)
        raise TrainingError("the run folder\nholds a run")

    board, error = work(monkeypatch, refuse, rank=1)
    assert type(error) is RuntimeError  # errors of ours with arguments of their own cannot go to another process
    assert board.cause() == End(4, "the run folder holds a run")
    assert work(monkeypatch, refuse, rank=1, board=board)[1] is None
    assert tried == [False]


def test_a_worker_that_lost_another_one_tries_again_and_resumes(monkeypatch):
    tried = []

    def lose(restarted):
        tried.append(restarted)
        raise WorkerLostError("worker 1 is gone")

    board, error = work(monkeypatch, lose)
    assert isinstance(pickle.loads(pickle.dumps(error)), WorkerLostError)
    work(monkeypatch, lose, board=board)
    assert tried == [False, True]
    assert board.cause() is None


def test_unexpected_errors_reach_ray(monkeypatch):
    board, error = work(monkeypatch, lambda restarted: 1 / 0)
    assert isinstance(error, ZeroDivisionError)
    assert board.cause() is None


def test_the_end_of_a_run_comes_after_all_its_lines(monkeypatch):
    board, said = on_ray._Board(3), []
    failure = RuntimeError("failed")

    def fit():
        assert threading.current_thread() is not threading.main_thread()  # there, Ray would take Ctrl-C
        for number in range(3):
            board.say("stdout", str(number))
            time.sleep(0.05)
        raise failure

    trainer = SimpleNamespace(fit=fit)
    monkeypatch.setattr(on_ray, "_PATIENCE", 0.01)
    monkeypatch.setattr(on_ray, "_POLL", 0.01)
    assert on_ray._follow(cluster(), trainer, Remote(board), lambda *line: said.append(line)) is failure
    assert [line for stream, line in said if stream == "stdout"] == ["0", "1", "2"]
    assert ("stderr", "... the workers have not started yet: processors or GPUs may be in use by other runs") in said


def test_a_job_has_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{}", encoding="utf-8")
    job = TrainJob(
        [Path("a"), tmp_path / "b"], Path("run"), [Path("v")], [], [], "mine.json", "imagenet", None, "x,y", False,
        ["training.seed=1"], None, None, None, None, False, ReadOptions(),
    )  # fmt: skip
    found = pickle.loads(pickle.dumps(job.absolute()))
    assert found.datasets == [tmp_path / "a", tmp_path / "b"]
    assert (found.output, found.validation) == (tmp_path / "run", [tmp_path / "v"])
    assert (found.config, found.init, found.class_names) == (str(tmp_path / "mine.json"), "imagenet", "x,y")


@pytest.mark.parametrize("word", sorted(WORDS_OF_INIT))
def test_words_of_init_are_no_paths(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(word).mkdir()
    job = TrainJob(
        [Path("a")], Path("run"), [], [], [], None, word, None, None, False, [], None, None, None, None, False,
        ReadOptions(),
    )  # fmt: skip
    assert job.absolute().init == word


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "are for a Ray cluster"),
        (["--max-failures", "2"], "are for a Ray cluster"),
        (["--ray", "local"], "--ray needs --workers"),
        (["--ray", "local", "--workers", "2", "--cluster", "auto"], "replaces --cluster"),
    ],
)
def test_options_that_contradict_each_other(options, message, tmp_path):
    result = CliRunner().invoke(app, ["train", str(tmp_path), "-o", str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_command_ends_as_the_worker_did(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(batch_cluster, "connected", lambda address: asked.append(address) or nullcontext())
    for end, code, printed in ((None, 0, ""), (End(5, "a.jpg is cut\nshort"), 5, "error: a.jpg is cut short\n")):
        monkeypatch.setattr(on_ray, "train_on_ray", lambda *arguments: end)  # noqa: B023
        arguments = ["train", str(tmp_path), "-o", str(tmp_path / "run"), "--ray", "auto", "--workers", "2"]
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.stderr) == (code, printed)
    assert asked == ["auto", "auto"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_with_its_exit_code(monkeypatch, tmp_path, number):
    def as_ray_does(number, _frame):
        sys.exit(number)

    def train(*_arguments):
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(batch_cluster, "connected", lambda address: nullcontext())
    monkeypatch.setattr(on_ray, "train_on_ray", train)
    before = signal.signal(number, as_ray_does)
    try:
        arguments = ["train", str(tmp_path), "-o", str(tmp_path / "run"), "--ray", "auto", "--workers", "2"]
        result = CliRunner().invoke(app, arguments)
        assert signal.getsignal(number) is as_ray_does
    finally:
        signal.signal(number, before)
    assert result.exit_code == 128 + number
    assert result.stderr.endswith("interrupted: add --resume to the same command to resume from the state saved last\n")


def test_a_cluster_that_is_too_small_is_refused_at_once(tmp_path):
    command = [sys.executable, "-m", "maskrcnn", "train", "a", "-o", "run", "--ray", "local", "--workers", "999"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(
        "error: the cluster is too small for 999 workers: each takes one CPU"
    )
    assert not (tmp_path / "run").exists()


class OnRay:
    """Runs of two workers on a Ray cluster that ends with each; call it with the run folder and more arguments."""

    def __init__(self, root, folder):
        self.folder, self.output = (
            folder,
            {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder},
        )
        quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(root)}
        self.environment = os.environ | quiet
        stages = (StageConfig("heads", 1), StageConfig("all", 1))
        config = tiny(batch_size=1, steps_per_epoch=3, stages=stages, gradient_clip_norm=1.0)
        (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
        for name, count in (("shapes", 6), ("val", 3)):
            write_shapes(folder / name, count=count, seed=count, size=(64, 64))

    def command(self, folder, *arguments, data="shapes"):
        line = [
            sys.executable,
            "-m",
            "maskrcnn",
            "train",
            data,
            "--val",
            "val",
            "--config",
            "config.json",
            "-o",
            folder,
        ]
        return [*line, "--set", "run.tensorboard=false", "--set", "run.state_steps=2", *arguments]

    def start(self, *arguments, **options):
        command = self.command(*arguments, "--ray", "local", "--workers", "2", **options)
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, **output)

    def end(self, process):
        """The exit code and what was printed."""
        try:
            printed = process.communicate(timeout=600)
        finally:
            process.terminate()
        return process.returncode, *printed

    def kill(self, process, folder, first):
        """End one of the two workers once it has saved something new."""
        state, lock = self.folder / folder / "state.h5", self.folder / folder / ".lock"
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.05)
        workers = [each for each in children(process.pid) if b"RayTrainWorker" in title(each)]
        (owner,) = (each for each in workers if str(lock) in opened(each))
        (other,) = set(workers) - {owner}
        os.kill(owner if first else other, signal.SIGKILL)

    def weights(self, folder, name="last"):
        return read_arrays(self.folder / folder / f"{name}.weights.h5")[0]


def title(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def opened(pid):
    """The paths of the files that a process has opened."""
    with suppress(OSError):
        return [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return []


def children(pid):
    """The processes of which a process is the parent or a forebear."""
    parents = {}
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(each.name)] = int((each / "stat").read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


@pytest.fixture(scope="module")
def on_two(tmp_path_factory, pytestconfig):
    return OnRay(pytestconfig.rootpath, tmp_path_factory.mktemp("ray"))


def difference(ours, theirs):
    assert set(ours) == set(theirs)
    return max(float(np.abs(ours[key] - theirs[key]).max()) for key in theirs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_on_ray_learn_what_one_process_does_and_survive_kills(on_two):
    alone = on_two.command("alone", "--set", "training.batch_size=2")
    subprocess.run(alone, env=on_two.environment, cwd=on_two.folder, check=True, capture_output=True)
    code, printed, errors = on_two.end(on_two.start("whole"))
    assert code == 0, errors[-3000:]
    assert printed.splitlines()[-2:] == [
        f"wrote {on_two.folder / 'whole' / name}.weights.h5" for name in ("last", "best")
    ]
    for name in ("last", "best"):
        assert difference(on_two.weights("whole", name), on_two.weights("alone", name)) < 1e-4
    histories = [json.loads((on_two.folder / name / "history.json").read_text()) for name in ("whole", "alone")]
    for ours, theirs in zip(*histories, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)

    process = on_two.start("killed", "--max-failures", "0")
    on_two.kill(process, "killed", first=False)
    code, _, printed = on_two.end(process)
    assert (code, printed.splitlines()[-1][:24]) == (7, "error: worker 1 is gone "), printed[-3000:]

    process = on_two.start("killed", "--resume")
    on_two.kill(process, "killed", first=True)
    code, _, printed = on_two.end(process)
    assert code == 0, printed[-3000:]
    assert "... a worker was lost: all start again and resume (1 of 3)" in printed
    assert difference(on_two.weights("killed"), on_two.weights("whole")) < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_error_of_the_workers_is_one_line_with_its_exit_code(on_two):
    code, _, printed = on_two.end(on_two.start("none", data="missing"))
    assert code == 4
    assert printed.splitlines()[-1].startswith(f"error: {on_two.folder / 'missing'} does not exist")
    assert "Traceback" not in printed
    assert not (on_two.folder / "none").exists()
