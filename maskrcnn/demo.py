"""The demo: a small trained model and a picture that ship with the package, so that every command works at once.

The weights come from the recipe "shapes" in docs/recipes.md; they find squares, circles and triangles.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskrcnn.checkpoints.checkpoint import load_checkpoint
from maskrcnn.data.records import Dataset
from maskrcnn.data.synthetic.shapes import shapes_dataset
from maskrcnn.model import MaskRCNN
from runtime.pictures.read import read_image

# Which of the synthetic pictures the demo picture is: height and width, seed and index.
_SIZE, _SEED, _INDEX = (360, 480), 7, 13


def demo_checkpoint() -> AbstractContextManager[Path]:
    """The demo's checkpoint as a file, for the time of a `with` block."""
    return resources.as_file(resources.files("maskrcnn").joinpath("demo.weights.h5"))


def demo_model() -> MaskRCNN:
    """The demo model with its weights."""
    with demo_checkpoint() as path:
        return load_checkpoint(path)[0]


def demo_picture() -> npt.NDArray[np.uint8]:
    """The demo picture, uint8 [360, 480, 3] RGB."""
    return read_image(resources.files("maskrcnn").joinpath("demo.jpg").read_bytes())


def demo_dataset() -> Dataset:
    """The demo picture and its seven objects, as they were drawn."""
    drawn = shapes_dataset(_INDEX + 1, _SEED, "demo", _SIZE)
    record = replace(drawn.records[_INDEX], image_id="demo.jpg", image=demo_picture)
    return replace(drawn, records=(record,))
