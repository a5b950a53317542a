"""Results of genuine torchvision and Detectron2 (`goldens/families` of the shared folder), if it is there."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[3] / "shared")) / "goldens" / "families"
needs_goldens = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is missing: set MASKRCNN_SHARED")


def recipe():
    """The module that makes weights, images and the places of sampled tensors."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import recipe

    return recipe


class Case:
    """One golden case: small tensors whole, others where `recipe.sample_indices` says."""

    def __init__(self, name):
        self.facts = json.loads((FOLDER / "open" / f"{name}.json").read_text())
        with np.load(FOLDER / "open" / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name):
        return self.arrays[name]

    def shape(self, name):
        """Shape of the whole tensor."""
        return tuple(self.facts["tensors"][name]["shape"])

    def sampled(self, name, tensor):
        """The values of a whole tensor, in the source's layout, where the golden file has them."""
        assert tensor.shape == self.shape(name)
        count = 4096
        return np.asarray(tensor).reshape(-1)[recipe().sample_indices(name, tensor.size, count)]


def yx(boxes):
    """Swap x and y of boxes or deltas [..., 4]."""
    return np.asarray(boxes)[..., [1, 0, 3, 2]]


def roi_inputs(seed=11):
    """The inputs of the ROIAlign goldens: features [1, 23, 37, 4] and boxes [60, 4] y1, x1, y2, x2 at stride 4."""

    def uniform(key, shape, low, high):
        draws = recipe().draws(key, shape, seed) / recipe().B
        return (low + (draws + 1.0) / 2 * (high - low)).astype(np.float32)

    height, width = 23 * 4, 37 * 4
    features = uniform("ops/features", (1, 4, 23, 37), -1, 1).transpose(0, 2, 3, 1)
    u = uniform("ops/boxes", (60, 4), 0.0, 1.0)
    x, y, w, h = u[:, 0] * width, u[:, 1] * height, u[:, 2] ** 2 * width, u[:, 3] ** 2 * height
    boxes = np.stack([x, y, np.minimum(x + w, width), np.minimum(y + h, height)], axis=1)
    boxes[:8] = [
        [0, 0, width, height],
        [0, 0, 1, 1],
        [width - 1, height - 1, width, height],
        [width - 0.25, 8, width, 60],
        [8, height - 2, 60, height],
        [0, 0, width, 0.5],
        [3, 3, 3.001, 3.001],
        [width - 3, 0, width, height],
    ]
    return np.ascontiguousarray(features), yx(boxes.astype(np.float32))


def roi_results(aligned, ratio):
    """Crops [60, 7, 7, 4] of `roi_inputs` by torchvision."""
    with np.load(FOLDER / "open" / "ops.npz") as arrays:
        return arrays[f"roi_align/aligned={aligned}/sampling={ratio}"].transpose(0, 2, 3, 1)
