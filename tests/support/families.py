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
