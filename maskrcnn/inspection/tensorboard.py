"""Step 6: the same images, numbers and histograms as files for TensorBoard."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn.inspection.picture_report import PictureReport
from maskrcnn.intermediates.activations import log_activations
from runtime.errors import MissingPackageError


def write_tensorboard(
    folder: Path,
    pictures: Sequence[PictureReport],
    weights: Mapping[str, npt.NDArray[np.float32]],
) -> None:
    """Write one event file with images, activations, numbers and weights; each image is a step.

    Args:
        pictures: What the page shows of each image.
        weights: Weights by name, written as histograms.

    Raises:
        MissingPackageError: The package `tensorboard` is missing.
    """
    if find_spec("tensorboard") is None:
        raise MissingPackageError("tensorboard", "inspect", "writing for TensorBoard")
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        for name, array in weights.items():
            tf.summary.histogram(f"weights/{name}", array)
    for step, picture in enumerate(pictures):
        with writer.as_default(step=step):
            tf.summary.text("picture", picture.name)
            for scene in picture.scenes:
                tf.summary.image(scene.name, np.asarray(scene.to_image())[None], description=scene.caption)
            for key, value in picture.figures.items():
                if isinstance(value, int | float):
                    tf.summary.scalar(key.replace(".", "/", 1), value)
            for key, array in picture.histograms.items():
                tf.summary.histogram(key, array)
            log_activations(picture.activations)
    writer.close()
