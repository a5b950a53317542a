"""A run killed at random moments and resumed each time ends like an undisturbed run."""

import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from training_runs import tiny

from maskrcnn.checkpoints.matterport_h5 import read_arrays
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.synthetic.shapes import write_shapes
from maskrcnn.training.state import load_state

KILLS = 10
STATE_STEPS = 3


def command(folder, output, resume=False):
    line = [sys.executable, "-m", "maskrcnn", "train", str(folder / "shapes"), "--val", str(folder / "shapes")]
    line += ["--config", str(folder / "config.json"), "-o", str(output), "--set", f"run.state_steps={STATE_STEPS}"]
    line += ["--set", "run.tensorboard=false", "--set", "run.evaluate_every=0", *(["--resume"] if resume else [])]
    return line


def steps_done(output):
    """Return the number of steps in the saved state."""
    return load_state(output / "state.h5").facts["counters"]["step"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path, pytestconfig):
    config = tiny(steps_per_epoch=60, stages=(StageConfig("heads", 2), StageConfig("all", 3)))
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    write_shapes(tmp_path / "shapes", count=6, seed=0, size=(64, 64))
    root = pytestconfig.rootpath
    subprocess.run(command(tmp_path, tmp_path / "whole"), cwd=root, check=True, capture_output=True)

    chance, output, kills = random.Random(0), tmp_path / "broken", 0
    saved = 0
    while True:
        process = subprocess.Popen(
            command(tmp_path, output, resume=True), cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if kills < KILLS:
            before = output / "state.h5"
            stamp = before.stat().st_mtime if before.exists() else 0.0
            while process.poll() is None and not (before.exists() and before.stat().st_mtime > stamp):
                time.sleep(0.05)  # wait for the first save of this process: from here on there is something to lose
            time.sleep(chance.uniform(0.0, 2.0))
            if process.poll() is None:
                process.kill()
                kills += 1
        _, error = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -9, error.decode()[-2000:]
        reached = steps_done(output)
        assert reached >= saved  # nothing that was saved is lost
        saved = reached
    assert kills == KILLS
    whole, _ = read_arrays(tmp_path / "whole" / "last.weights.h5")
    broken, _ = read_arrays(output / "last.weights.h5")
    assert set(whole) == set(broken)
    worst = max(float(np.abs(whole[key] - broken[key]).max()) for key in whole)
    assert worst < 1e-6, worst
    curves = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "broken")]
    assert len(curves[0]) == len(curves[1]) == 5
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    moved = read_arrays(output / "best.weights.h5")[0]
    assert set(moved) == set(whole)
