"""Golden data: results of the genuine matterport code. See `tests/golden/README.md`."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
COMMITTED = REPOSITORY / "tests" / "golden"
VARIABLE = "MASKRCNN_SHARED"


def load(name):
    """A committed golden file, by name without its suffix."""
    path = COMMITTED / f"{name}.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it with: python tests/golden/make.py ../shared")
    with np.load(path) as arrays:
        return dict(arrays)


def load_json(name):
    """A committed golden JSON file, by name without its suffix."""
    return json.loads((COMMITTED / f"{name}.json").read_text())


def shared_path(name):
    """A file of the full set, which is too large to commit; the test is skipped where it is not there."""
    folder = Path(os.environ.get(VARIABLE, REPOSITORY.parent / "shared")) / "goldens"
    path = folder / name
    if not path.exists():
        pytest.skip(f"no full golden set: {path} does not exist; set {VARIABLE} to the folder with goldens/")
    return path


def load_shared(name):
    """An npz file of the full set, by name without its suffix."""
    with np.load(shared_path(f"open/{name}.npz")) as arrays:
        return dict(arrays)


def config_values(arrays):
    """The matterport configuration of a golden run, by its own field names."""
    return json.loads(str(arrays["config_json"]))


def relative_difference(ours, golden):
    """Largest difference, in units of the largest golden value."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    assert ours.shape == golden.shape
    return np.abs(ours - golden).max() / np.abs(golden).max()
