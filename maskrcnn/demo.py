"""The demo: a small trained model and an image that ship with the package, so that every command can be tried at once.

The model finds squares, circles and triangles. It was trained with the recipe "shapes" in docs/recipes.md. It comes as
a checkpoint and, for `maskrcnn predict` without TensorFlow, as the `.onnx` file that `make demo-onnx` exports from it.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Dataset
from maskrcnn.data.synthetic.shapes import shapes_dataset
from runtime.pictures.read import read_image

if TYPE_CHECKING:
    from maskrcnn.model import MaskRCNN

# How the demo image was generated: height and width, seed and index.
_SIZE, _SEED, _INDEX = (360, 480), 7, 13


def demo_checkpoint() -> AbstractContextManager[Path]:
    """Provide the demo's checkpoint as a file within a `with` block."""
    return resources.as_file(resources.files("maskrcnn").joinpath("demo.weights.h5"))


def demo_model() -> "MaskRCNN":
    """Return the demo model with its trained weights."""
    from maskrcnn.checkpoints.checkpoint import load_checkpoint  # noqa: PLC0415  (the image needs no TensorFlow)

    with demo_checkpoint() as path:
        return load_checkpoint(path)[0]


def demo_picture() -> npt.NDArray[np.uint8]:
    """Return the demo image, uint8 [360, 480, 3] RGB."""
    return read_image(resources.files("maskrcnn").joinpath("demo.jpg").read_bytes())


def demo_dataset() -> Dataset:
    """Return the demo image with its seven annotated objects."""
    drawn = shapes_dataset(_INDEX + 1, _SEED, "demo", _SIZE)
    record = replace(drawn.records[_INDEX], image_id="demo.jpg", image=demo_picture)
    return replace(drawn, records=(record,))
