"""Several devices or machines learn the same as one device does from the same images."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from training_runs import free_ports

from maskrcnn.checkpoints.matterport_h5 import read_arrays

SCRIPT = Path(__file__).parent / "devices_run.py"
VALIDATION = pytest.mark.parametrize("validation", [4, 1])  # 1 image: one of two devices has none


def start(folder, batch_size, cpus, cluster=None, rank=0, validation=4):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    # On some processors oneDNN in TensorFlow 2.21 corrupts memory in a step on one picture of 64 x 64 pixels.
    environment |= {"TF_ENABLE_ONEDNN_OPTS": "0", "VALIDATION": str(validation)}
    if cluster is not None:
        task = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": rank}}
        environment["TF_CONFIG"] = json.dumps(task)
    folder.mkdir()
    command = [sys.executable, str(SCRIPT), str(folder), str(batch_size), str(cpus)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(*processes):
    """Wait for processes that work together; if one fails, all of them end."""
    try:
        errors = [process.communicate(timeout=600)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run on one device with two images per step, and some validation images."""

    @cache
    def run(validation):
        folder = tmp_path_factory.mktemp("devices") / "alone"
        finish(start(folder, 2, 1, validation=validation))
        return folder

    return run


def assert_same(folder, alone):
    """The losses of each epoch and the final weights equal those of one device."""
    found, expected = (json.loads((f / "losses.json").read_text(encoding="utf-8")) for f in (folder, alone))
    assert [list(epoch) for epoch in found] == [list(epoch) for epoch in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-6)
    assert expected[1]["mrcnn_mask_loss"] > 0  # there were objects to learn from
    for name in ("last", "best"):
        weights, reference = (read_arrays(f / f"{name}.weights.h5")[0] for f in (folder, alone))
        assert set(weights) == set(reference)
        assert max(float(np.abs(weights[key] - reference[key]).max()) for key in reference) < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(1800)
@VALIDATION
def test_two_devices_of_one_process(alone, tmp_path, validation):
    finish(start(tmp_path / "two", 1, 2, validation=validation))
    assert_same(tmp_path / "two", alone(validation))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@VALIDATION
def test_two_machines(alone, tmp_path, validation):
    cluster = [f"127.0.0.1:{port}" for port in free_ports(2)]
    folders = [tmp_path / "first", tmp_path / "second"]
    finish(*(start(folder, 1, 1, cluster, rank, validation) for rank, folder in enumerate(folders)))
    assert_same(folders[0], alone(validation))
    losses = [(folder / "losses.json").read_text(encoding="utf-8") for folder in folders]
    assert losses[0] == losses[1]
    assert not (folders[1] / "state.h5").exists()  # only one of them writes
