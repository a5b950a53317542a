"""Golden data: results of the genuine matterport code, and of other packages. See `tests/golden/README.md`."""

import json
import os
import zlib
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
COMMITTED = REPOSITORY / "tests" / "golden"
VARIABLE = "MASKRCNN_SHARED"
FAMILIES = Path(os.environ.get(VARIABLE, REPOSITORY.parent / "shared")) / "goldens" / "families"


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


def network_images(arrays):
    """The images fed to the network in a golden run, uint8 [B, H, W, C].

    The large run's file stores the image before it was doubled, and a bit for each value that the original rounded to
    one gray level less.
    """
    if "resized_image" in arrays:
        return arrays["resized_image"]
    image, (y1, x1, y2, x2) = doubled(arrays["image"]), arrays["window"][0]
    below = np.unpackbits(arrays["doubled_minus_resized_packed"])[: image.size].reshape(image.shape)
    size = config_values(arrays)["IMAGE_SHAPE"]
    canvas = np.zeros((1, *size), np.uint8)
    canvas[0, y1:y2, x1:x2] = image - below
    return canvas


def doubled(image):
    """An image [H, W, C] at twice its size: bilinear in whole numbers, 0 beyond the edges, truncated: uint8."""
    values = np.pad(image.astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        before, here, after = values[:-2], values[1:-1], values[2:]
        pairs = np.stack([before + 3 * here, 3 * here + after], axis=1)
        values = np.moveaxis(pairs.reshape(-1, *values.shape[1:]), 0, axis)
    return (values // 16).astype(np.uint8)


def config_values(arrays):
    """The matterport configuration of a golden run, by its own field names."""
    return json.loads(str(arrays["config_json"]))


def relative_difference(ours, golden):
    """Largest difference, in units of the largest golden value."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    assert ours.shape == golden.shape
    return np.abs(ours - golden).max() / np.abs(golden).max()


@cache
def family_operators():
    """What operators of torchvision and Detectron2 computed; a test that needs it is skipped if it is missing."""
    path = FAMILIES / "open" / "ops.npz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return np.load(path)


@cache
def _recipe():
    spec = spec_from_file_location("family_recipe", FAMILIES / "recipe.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def family_picture(name, height, width, seed=11):
    """A picture of the goldens, uint8 [H, W, 3]."""
    return _recipe().picture(name, height, width, seed)


def family_uniform(key, shape, seed=11):
    """Numbers of the goldens, 0 to 1."""
    raw = np.random.PCG64(zlib.crc32(key.encode()) + 1000003 * seed).random_raw(int(np.prod(shape)))
    whole = 2 * (raw >> np.uint64(40)).astype(np.int64) - (2**24 - 1)
    return ((whole.reshape(shape) / 2**24 + 1.0) / 2).astype(np.float32)
