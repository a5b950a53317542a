"""A run folder belongs to one training at a time, also across containers, until that training ends or is killed."""

import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from training_runs import Cheap, backbone, pictures, small

from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.configuration.training import StageConfig
from maskrcnn.runs.folder_lock import locked
from maskrcnn.training import train as module
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.train import train
from runtime.errors import OutputError

CONFIG = small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=1, validation_steps=0)
HOLDER = """
import sys
from pathlib import Path
from maskrcnn.runs.folder_lock import locked
with locked(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]


def run(folder, resume=False):
    options = TrainOptions(tensorboard=False, verbose=0, build_backbone=backbone)
    return train(CONFIG, pictures(), output=folder, resume=resume, options=options)


@contextmanager
def held(folder, root, before=()):
    """Another process that has a run in a folder, until it is killed at the end of a block."""
    command = [*before, sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("before", [(), CONTAINER], ids=["process", "container"])
def test_a_second_training_is_refused_until_the_first_is_killed(tmp_path, monkeypatch, pytestconfig, before):
    if before and (not shutil.which(before[0]) or subprocess.run([*before, "true"], check=False).returncode):
        pytest.skip("making a process id namespace is not allowed here")
    monkeypatch.setattr(module, "TrainingModel", Cheap)
    with held(tmp_path / "run", pytestconfig.rootpath, before):
        for resume in (False, "auto"):
            with pytest.raises(OutputError, match=r"run is in use by another run: wait for it, or choose") as refused:
                run(tmp_path / "run", resume)
        assert exit_code(refused.value) == 6
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert run(tmp_path / "run").ended == "finished"
    assert run(tmp_path / "run", "auto").ended == "finished"


def test_the_lock_is_held_to_the_end_and_not_longer(tmp_path, monkeypatch):
    seen = []

    class Watching(Cheap):
        def train_step(self, batch):
            with pytest.raises(OutputError, match="in use"), locked(tmp_path / "run", "train"):
                pass
            seen.append(True)
            raise ZeroDivisionError

    monkeypatch.setattr(module, "TrainingModel", Watching)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "run")
    assert seen
    with locked(tmp_path / "run", "train"):
        pass


def test_the_command_refuses_before_it_loads_or_reads_anything(tmp_path, pytestconfig):
    with held(tmp_path / "run", pytestconfig.rootpath):
        command = [
            sys.executable,
            "-m",
            "maskrcnn",
            "train",
            "no data",
            "--config",
            "demo",
            "-o",
            str(tmp_path / "run"),
        ]
        done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, "")
    line = f"error: {tmp_path / 'run'} is in use by another run: wait for it, or choose another folder\n"
    assert done.stderr == line
