"""Workers on several machines start from the same, or none of them starts; a lost one ends the others with its name."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from training_runs import TINY, free_ports, pictures, tiny

from maskrcnn.checkpoints.matterport_h5 import read_arrays
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.synthetic.shapes import write_shapes
from maskrcnn.errors import ConfigError, TrainingError, WorkerLostError
from maskrcnn.evaluation.evaluate import evaluate
from maskrcnn.training import evaluator as evaluator_module, workers
from maskrcnn.training.state import State, save_state
from maskrcnn.training.strategies import find_strategy
from maskrcnn.training.workers import (
    Fact,
    agree,
    first_signal,
    gather,
    losses_named,
    together,
    worker_count,
    worker_index,
)
from runtime.detections import Detections
from runtime.errors import ImageError, OutputError, ToolkitError
from runtime.masks.rle import mask_box


def strategy_of(job, index, **cluster):
    """What this module asks of a strategy for one task of a cluster."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=job, task_id=index
    )
    return SimpleNamespace(cluster_resolver=resolver)


PAIR = {"worker": ["one:1", "two:2"]}
WITH_CHIEF = {"chief": ["one:1"], "worker": ["two:2", "three:3"]}
JOBS = [("chief", 0), ("worker", 0), ("worker", 1)]


@pytest.mark.parametrize(
    ("strategy", "index", "count"),
    [
        (SimpleNamespace(cluster_resolver=None), 0, 1),
        (strategy_of("worker", 0, **PAIR), 0, 2),
        (strategy_of("worker", 1, **PAIR), 1, 2),
        (strategy_of("worker", 1, evaluator=["three:3"], **PAIR), 1, 2),
        (strategy_of("chief", 0, **WITH_CHIEF), 0, 3),
        (strategy_of("worker", 0, **WITH_CHIEF), 1, 3),  # not the one that writes the files
        (strategy_of("worker", 1, **WITH_CHIEF), 2, 3),
    ],
)
def test_one_worker_is_the_first(strategy, index, count):
    assert (worker_index(strategy), worker_count(strategy)) == (index, count)


@pytest.fixture
def on_three(monkeypatch):
    """Run an action of (strategy, number) as three workers; return what each returned or raised."""
    barrier, sent = threading.Barrier(3, timeout=20), {}

    def exchange(strategy, words):
        sent[worker_index(strategy)] = list(words)
        barrier.wait()
        rows = np.array([sent[number] for number in range(3)])
        barrier.wait()
        return rows

    def run(action):
        ends = {}

        def work(strategy):
            number = worker_index(strategy)
            try:
                ends[number] = action(strategy, number)
            except ToolkitError as error:
                ends[number] = error

        threads = [threading.Thread(target=work, args=[strategy_of(*job, **WITH_CHIEF)]) for job in JOBS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [ends[number] for number in range(3)]

    monkeypatch.setattr(workers, "_exchange", exchange)
    return run


def test_all_go_on_or_none(on_three):
    assert on_three(lambda strategy, number: together(strategy, lambda: number)) == [0, 1, 2]

    def refuse():
        raise OutputError("the disk is full")

    ends = on_three(lambda strategy, number: together(strategy, refuse if number == 1 else lambda: number))
    assert [type(end) for end in ends] == [TrainingError, OutputError, TrainingError]
    assert [str(end) for end in ends[::2]] == ["worker 1 cannot start, so none does: see its message"] * 2
    assert str(ends[1]) == "the disk is full"


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_who_has_something_else_is_told_what(on_three, odd):
    def compare(strategy, number):
        state = "step 8" if number == odd else "no state"
        agree(strategy, {"seed": Fact("0", "-"), "state": Fact(state, f"folder {number} has {state}")})

    ends = on_three(compare)
    others = [number for number in range(3) if number != odd] if odd == 0 else [odd]
    for number, end in enumerate(ends):
        assert isinstance(end, TrainingError)
        if number == 0 or number not in others:
            assert str(end) == f"worker {others[0]} has another state than worker 0, so none starts: see its message"
        else:
            assert str(end).startswith(f"worker {number} cannot start: folder {number} has ")


def test_equal_workers_agree(on_three):
    assert on_three(lambda strategy, number: agree(strategy, {"state": Fact("step 8", "-")})) == [None] * 3


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 1000])
def test_bytes_of_any_length_reach_all(on_three, monkeypatch, size):
    monkeypatch.setattr(workers, "_WORDS_AT_ONCE", 100)
    sent = [np.random.default_rng(number).bytes(size * number) for number in range(3)]
    assert on_three(lambda strategy, number: gather(strategy, sent[number])) == [sent] * 3


def test_a_signal_of_one_worker_ends_all_after_the_same_step(on_three):
    for received, expected in ([None, None, None], None), ([None, 15, None], 15), ([2, None, None], 2):
        assert on_three(lambda strategy, number: first_signal(strategy, received[number])) == [expected] * 3  # noqa: B023


class Recalls:
    """A predictor that finds most objects of its images, some in a wrong place, and remembers the images."""

    class_names = TINY.model.class_names

    def __init__(self, dataset):
        self.seen, self.dataset, self.broken = [], dataset, None

    def __call__(self, image):
        row = next(i for i, record in enumerate(self.dataset.records) if record.image() is image)
        self.seen.append(row)
        if row == self.broken:
            raise ImageError("the file is cut short")
        rng = np.random.default_rng(row)
        found = [each for each in self.dataset.records[row].load_instances() if rng.random() < 0.9]
        boxes = np.array([mask_box(each.mask) for each in found], np.float32).reshape(-1, 4)
        boxes[:, 2] += rng.integers(0, 8, len(found))
        scores = np.sort(rng.random(len(found)).astype(np.float32))[::-1]
        ids = np.array([each.class_id for each in found], np.int32)
        masks = np.ones((len(found), 4, 4), np.float32)
        return Detections(np.minimum(boxes, 64), scores, ids, masks, (64, 64), self.class_names)


@pytest.fixture
def evaluators(monkeypatch):
    """Make an `Evaluator` for a worker, with a predictor of its own."""

    def make(strategy, predictor):
        monkeypatch.setattr(evaluator_module, "CheckpointPredictor", lambda network: predictor)
        monkeypatch.setattr(evaluator_module, "ModelStages", lambda network: None)
        return evaluator_module.Evaluator(SimpleNamespace(distribute_strategy=strategy))

    return make


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_validation_is_shared_and_its_scores_are_those_of_one_process(on_three, evaluators, count):
    dataset = pictures(count, 1)
    alone = Recalls(dataset)
    expected = evaluators(SimpleNamespace(cluster_resolver=None), alone).scores(dataset)
    evaluation = evaluate(Recalls(dataset), dataset)
    kinds = {"bbox": evaluation.bbox, "segm": evaluation.segm}
    assert expected == {f"{kind}_{name.lower()}": kinds[kind][name] for kind in kinds for name in ("AP", "AP50")}
    assert 0 < expected["segm_ap"] < expected["segm_ap50"]
    predictors = [Recalls(dataset) for _ in range(3)]
    made = [evaluators(strategy_of(*job, **WITH_CHIEF), each) for job, each in zip(JOBS, predictors, strict=True)]
    assert on_three(lambda strategy, number: made[number].scores(dataset)) == [expected] * 3
    assert sorted(row for each in predictors for row in each.seen) == list(range(count))
    assert max(len(each.seen) for each in predictors) == -(-count // 3)


def test_an_image_that_one_worker_cannot_read_ends_validation_on_all(on_three, evaluators):
    dataset = pictures(7, 1)
    predictors = [Recalls(dataset) for _ in range(3)]
    predictors[1].broken = 4
    made = [evaluators(strategy_of(*job, **WITH_CHIEF), each) for job, each in zip(JOBS, predictors, strict=True)]
    ends = on_three(lambda strategy, number: made[number].scores(dataset))
    assert [type(end) for end in ends] == [TrainingError, ImageError, TrainingError]
    assert str(ends[0]) == "worker 1 cannot validate, so none does: see its message"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (tf.errors.UnavailableError(None, None, "unhealthy tasks: /job:worker/replica:0/task:1 crashed"), "worker 2"),
        (tf.errors.AbortedError(None, None, "Error reported from /job:chief/task:0: ..."), "worker 0"),
        (tf.errors.DeadlineExceededError(None, None, "no answer"), "another worker"),
        (
            tf.errors.InternalError(None, None, "Collective ops is aborted by: /job:worker/task:0 /job:worker/task:1"),
            "worker 2",
        ),
        (tf.errors.UnknownError(None, None, "Failed to send RPC to coordination service."), "another worker"),
    ],
)
def test_a_lost_worker_is_named(error, lost):
    named = losses_named(strategy_of("worker", 0, **WITH_CHIEF))
    with pytest.raises(WorkerLostError, match=rf"^{lost} is gone.*--resume$") as raised, named:
        raise error
    assert exit_code(raised.value) == 7


def test_other_errors_of_tensorflow_stay(tmp_path):
    for strategy, error in (
        (strategy_of("worker", 0, **PAIR), tf.errors.InvalidArgumentError(None, None, "shapes differ")),
        (SimpleNamespace(cluster_resolver=None), tf.errors.UnavailableError(None, None, "a file server is away")),
    ):
        with pytest.raises(type(error)), losses_named(strategy):
            raise error


@pytest.mark.parametrize(
    "value", ["{", "[]", "{}", '{"cluster": {"worker": ["a:1"]}}',
              '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
              '{"cluster": {"worker": "a:1"}, "task": {"type": "chief", "index": 0}}']
)  # fmt: skip
def test_a_cluster_that_is_not_described(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ConfigError, match="TF_CONFIG"):
        find_strategy()


def tf_configs():
    """The environment of each of two workers on this machine."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})} for i in range(2)]


def slurm_tasks():
    """The same as Slurm describes it; a job number of its own for each call, and so ports."""
    job = {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
    job |= {"SLURM_JOB_ID": str(time.monotonic_ns() // 1000), "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}
    return [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]


EXCHANGE = """
import os, sys
from maskrcnn.training.cluster import join_cluster
join_cluster(os.environ)
from maskrcnn.errors import TrainingError
from maskrcnn.training import workers
from maskrcnn.training.strategies import find_strategy
workers._WORDS_AT_ONCE = 1000
strategy = find_strategy()
own = workers.worker_index(strategy)
assert own == int(os.environ["SLURM_PROCID"])
sent = [b"abc", bytes(range(256)) * 40]
assert workers.gather(strategy, sent[own]) == sent
assert workers.first_signal(strategy, 15 if own else None) == 15
assert workers.first_signal(strategy, None) is None
def refuse():
    if own:
        raise TrainingError("not here")
try:
    workers.together(strategy, refuse, "validate")
except TrainingError as error:
    sys.exit(str(error))
"""


def test_two_tasks_of_slurm_exchange_what_they_have(pytestconfig):
    command = [sys.executable, "-c", EXCHANGE]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": pytestconfig.rootpath}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_CONFIG": ""}
    processes = [subprocess.Popen(command, env=os.environ | each | quiet, **output) for each in slurm_tasks()]
    try:
        printed = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [text.splitlines()[-1] for text in printed] == [
        "worker 1 cannot validate, so none does: see its message",
        "not here",
    ]


class Pair:
    """Two processes that train together; call it with the folder of each and more arguments."""

    def __init__(self, root, folder):
        self.root, self.folder = root, folder
        config = tiny(batch_size=1, steps_per_epoch=5, validation_steps=0, stages=(StageConfig("heads", 3),))
        (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
        write_shapes(folder / "shapes", count=6, seed=0, size=(64, 64))

    def start(self, folders, *arguments, slurm=False):
        described = slurm_tasks() if slurm else tf_configs()
        command = [sys.executable, "-m", "maskrcnn", "train", str(self.folder / "shapes"), *map(str, arguments)]
        command += ["--config", str(self.folder / "config.json"), "--set", "run.tensorboard=false"]
        processes = []
        for variables, folder in zip(described, folders, strict=True):
            environment = os.environ | variables | {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
            run = [*command, "-o", str(folder), *(["--cluster", "auto"] if slurm else [])]
            output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            processes.append(subprocess.Popen(run, cwd=self.root, env=environment, **output))
        return processes

    def ends(self, processes, seconds):
        """Exit codes and last lines of processes that end within some seconds."""
        until = time.monotonic() + seconds
        try:
            printed = [process.communicate(timeout=until - time.monotonic())[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        return [process.returncode for process in processes], [text.splitlines()[-1] for text in printed]


@pytest.fixture(scope="module")
def pair(tmp_path_factory, pytestconfig):
    return Pair(pytestconfig.rootpath, tmp_path_factory.mktemp("pair"))


@pytest.mark.slow
def test_folders_apart_are_refused(pair, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    folders[0].mkdir()
    save_state(folders[0] / "state.h5", State({}, {"counters": {"step": 8}}))
    codes, lines = pair.ends(pair.start(folders, "--resume"), 60)  # most of it is the start of TensorFlow
    assert codes == [4, 4]
    assert lines[0] == "error: worker 1 has another state than worker 0, so none starts: see its message"
    assert lines[1].startswith(f"error: worker 1 cannot start: {folders[1] / 'state.h5'} does not exist, and")
    assert "one run folder" in lines[1]
    assert not folders[1].exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("victim", "number", "slurm"),
    [(0, signal.SIGKILL, False), (1, signal.SIGKILL, True), (1, signal.SIGTERM, False)],
)
def test_a_worker_that_is_killed_ends_the_other_and_the_run_resumes(pair, tmp_path, victim, number, slurm):
    if not (pair.folder / "whole").exists():
        assert pair.ends(pair.start([pair.folder / "whole"] * 2), 600)[0] == [0, 0]
    folder = tmp_path / "run"
    processes = pair.start([folder] * 2, "--set", "run.state_steps=2", slurm=slurm)
    while not (folder / "state.h5").exists() and all(process.poll() is None for process in processes):
        time.sleep(0.05)
    processes[victim].send_signal(number)
    codes, lines = pair.ends(processes, 120)
    if number == signal.SIGTERM:  # both end after the same step
        assert codes == [128 + number] * 2
    else:
        assert codes[victim] == -9
        assert codes[1 - victim] == 7
        assert lines[1 - victim].startswith(f"error: worker {victim} is gone or does not answer")
    assert pair.ends(pair.start([folder] * 2, "--resume", slurm=slurm), 600)[0] == [0, 0]
    whole, resumed = (read_arrays(each / "last.weights.h5")[0] for each in (pair.folder / "whole", folder))
    assert set(whole) == set(resumed)
    assert max(float(np.abs(whole[key] - resumed[key]).max()) for key in whole) < 1e-6
