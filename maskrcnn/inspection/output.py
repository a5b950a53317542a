"""The files of an inspection: the page, its numbers, and the same images and numbers as events for TensorBoard."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maskrcnn.inspection.html import render
from maskrcnn.inspection.page_model import Section
from maskrcnn.inspection.scene import Scene
from maskrcnn.inspection.weights import Arrays
from runtime.atomic import atomic_write
from runtime.errors import MissingPackageError

PAGE, FIGURES, EVENTS = "index.html", "figures.json", "tensorboard"


class Events(Protocol):
    """What TensorBoard gets of one image, see `PictureReport`; activations are those of `log_activations`."""

    name: str
    figures: dict[str, Any]
    scenes: list[Scene]
    activations: list[Any]
    histograms: dict[str, npt.NDArray[np.floating]]


@dataclass(eq=False)
class Inspection:
    """The result of `inspect_pictures` or `inspect_dataset`.

    Attributes:
        facts: Short texts about the model or the dataset.
        pictures: Names of the images.
        figures: Every number: "pictures" in their order, and by section "summary", "result", "weights", "data",
            "artifact"; without a model "data" and "findings".
        reports: What the page shows of each image, for TensorBoard; empty without a model.
        arrays: The weights, for TensorBoard; empty without a checkpoint.
    """

    title: str
    facts: list[str]
    pictures: list[str]
    sections: list[Section]
    figures: dict[str, Any]
    reports: Sequence[Events] = ()
    arrays: Arrays = field(default_factory=dict)

    def to_html(self) -> str:
        """Return the page, one file that needs nothing else."""
        shown = [section for section in self.sections if section.common or section.of_picture]
        return render(self.title, self.facts, self.pictures, shown)

    def write(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write `index.html`, `figures.json` and, with a model, the folder `tensorboard` atomically.

        Args:
            overwrite: Whether to replace an older report; no other folder is ever replaced.

        Raises:
            OutputError: The folder exists and may not be replaced, or cannot be written.
            MissingPackageError: A package of the extra `inspect` is missing.
        """
        page = self.to_html()
        with atomic_write(folder, overwrite=overwrite, directory=True, marker=FIGURES) as temporary:
            (temporary / PAGE).write_text(page, encoding="utf-8")
            text = json.dumps(_without_infinities(self.figures), ensure_ascii=False, indent=1, allow_nan=False)
            (temporary / FIGURES).write_text(text + "\n", encoding="utf-8")
            if self.reports:
                write_tensorboard(temporary / EVENTS, self.reports, self.arrays)


def write_tensorboard(
    folder: Path,
    pictures: Sequence[Events],
    weights: Arrays,
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
    import tensorflow as tf  # noqa: PLC0415  (a page of a dataset alone needs none)

    from maskrcnn.intermediates.activations import log_activations  # noqa: PLC0415

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


def _without_infinities(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _without_infinities(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_infinities(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
