"""The whole inspection: pictures, weights, data set, artifact; as numbers and as one HTML page."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.data.records import Dataset, Record
from maskrcnn.errors import ConfigError
from maskrcnn.inspection.data_statistics import dataset_statistics
from maskrcnn.inspection.html import render
from maskrcnn.inspection.model_report import (
    artifact_blocks,
    dataset_blocks,
    history_blocks,
    mean_precision,
    weight_blocks,
)
from maskrcnn.inspection.page_model import Block, Section, Text
from maskrcnn.inspection.picture_report import PictureReport, report_picture
from maskrcnn.inspection.tensorboard import write_tensorboard
from maskrcnn.inspection.weights import Arrays
from maskrcnn.intermediates.artifact_run import ArtifactStages
from maskrcnn.intermediates.stage_run import ModelStages, StageRunner
from runtime.atomic import atomic_write
from runtime.one_line import printable_path

PAGE, FIGURES, EVENTS = "index.html", "figures.json", "tensorboard"

Progress = Callable[[str], None]

_SECTIONS = (
    (
        "anchors",
        "1 Anchors",
        "How anchors are matched to objects, and how the RPN sorts and filters them into proposals.",
    ),
    ("refinement", "2 Boxes", "Proposals that the box head takes for an object, and where it moves them."),
    ("masks", "3 Masks", "From probabilities to pixels."),
    ("activations", "4 Activations", "What the layers answer, and which channels say nothing."),
    ("weights", "5 Weights", "Every array of the checkpoint."),
    ("tensorboard", "6 TensorBoard", "Curves, and everything on this page over time."),
    ("result", "7 Result", "From proposals to detections, one filter after the other. The sliders repeat it here."),
    ("data", "Data", "What goes in: pictures, objects, and what training makes of them."),
    ("artifact", "Artifact", "The exported graph in its engine."),
)


class InspectedPicture(NamedTuple):
    """A picture to look into.

    Attributes:
        name: For the page.
        record: The picture, and its objects with the class ids of the model.
        annotated: Whether its objects are known.
    """

    name: str
    record: Record
    annotated: bool


@dataclass(eq=False)
class Inspection:
    """What `inspect_pictures` found.

    Attributes:
        title: What was inspected.
        facts: Short texts about the model.
        pictures: Their reports.
        sections: Of the page.
        figures: Every number: "pictures" in their order, and by section "weights", "data", "result", "artifact".
        arrays: The weights, for TensorBoard; none of an artifact.
    """

    title: str
    facts: list[str]
    pictures: list[PictureReport]
    sections: list[Section]
    figures: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)

    def to_html(self) -> str:
        """The page: one file that needs nothing else."""
        shown = [section for section in self.sections if section.common or section.of_picture]
        return render(self.title, self.facts, [picture.name for picture in self.pictures], shown)

    def write(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write `index.html`, `figures.json` and the folder `tensorboard`, all of them or nothing.

        Args:
            folder: Appears complete.
            overwrite: Whether an older report may be replaced; no other folder ever is.

        Raises:
            OutputError: Something else stands there, or the disk refuses.
            MissingPackageError: A package of the extra `inspect` is missing.
        """
        page = self.to_html()
        with atomic_write(folder, overwrite=overwrite, directory=True, marker=FIGURES) as temporary:
            (temporary / PAGE).write_text(page, encoding="utf-8")
            text = json.dumps(_without_infinities(self.figures), ensure_ascii=False, indent=1, allow_nan=False)
            (temporary / FIGURES).write_text(text + "\n", encoding="utf-8")
            rows = [(each.name, each.scenes, each.activations, each.figures) for each in self.pictures]
            write_tensorboard(temporary / EVENTS, rows, self.arrays)


def inspect_pictures(
    runner: StageRunner,
    pictures: Sequence[InspectedPicture],
    *,
    title: str,
    dataset: Dataset | None = None,
    other: Arrays | None = None,
    history: Sequence[dict[str, float]] = (),
    layers: Sequence[str] = (),
    progress: Progress = lambda _message: None,
) -> Inspection:
    """Look into a model on some pictures.

    Args:
        runner: `ModelStages` of a checkpoint's model, or `ArtifactStages`.
        pictures: At least one.
        title: What is inspected.
        dataset: For its statistics.
        other: Weights of another checkpoint to compare with.
        history: Losses and scores of each epoch of the training.
        layers: Further layers whose activations are shown.
        progress: Called with a sentence before each part.

    Raises:
        ImageError: A picture cannot be read.
        DatasetError: Objects do not fit their picture.
        ConfigError: There is no such layer, or an artifact shall show layers or be compared.
    """
    if not isinstance(runner, ModelStages) and (layers or other is not None):
        raise ConfigError("an artifact has no layers to show and no weights to compare: give its checkpoint")
    sections = {key: Section(key, name, intro) for key, name, intro in _SECTIONS}
    reports = []
    for number, (name, record, annotated) in enumerate(pictures):
        progress(f"picture {number + 1} of {len(pictures)}: {name}")
        report = report_picture(runner, name, record, annotated, tuple(layers))
        for key, blocks in report.blocks.items():
            sections[key].of_picture[number] = blocks
        reports.append(report)
    figures: dict[str, Any] = {"pictures": [{"name": each.name, **each.figures} for each in reports]}

    def add(key: str, blocks: Sequence[Block], numbers: object = None) -> None:
        sections[key].common += blocks
        if numbers is not None:
            figures[key] = numbers

    arrays: Arrays = {}
    if isinstance(runner, ModelStages):
        progress("weights")
        arrays = get_arrays(runner.model)
        add("weights", *weight_blocks(arrays, other))
    if isinstance(runner, ArtifactStages):
        progress("where the graph runs")
        record = pictures[0].record
        image = record.image() if callable(record.image) else record.image
        add("artifact", *artifact_blocks(runner.predictor.metadata, runner.predictor.explain(image)))
    if dataset is not None:
        progress("data set")
        add("data", *dataset_blocks(dataset_statistics(dataset)))
    add("tensorboard", [_tensorboard_text(), *history_blocks(history)])
    if any(picture.annotated for picture in pictures):
        add("result", *mean_precision([each.figures for each in reports]))
    names = [f"picture {pictures[0].name}"] if len(pictures) == 1 else []
    return Inspection(title, [*names, *_facts(runner)], reports, list(sections.values()), figures, arrays)


def _without_infinities(value: Any) -> Any:
    """JSON has no numbers for NaN and infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _without_infinities(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_infinities(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def first_records(dataset: Dataset, count: int) -> list[InspectedPicture]:
    """The first pictures of a data set."""
    return [_inspected(record) for record in islice(dataset.records, count)]


def _inspected(record: Record) -> InspectedPicture:
    name = str(record.image_id) if callable(record.image) else record.image.name
    return InspectedPicture(printable_path(name), record, True)


def _facts(runner: StageRunner) -> list[str]:
    config = runner.config
    names = config.model.class_names
    listed = ", ".join(names[1:6]) + (", ..." if len(names) > 6 else "")
    resize = config.resize
    size = f"input {resize.max_dim or resize.min_dim or 'as it is'} ({resize.mode})"
    return [
        f"configuration {config.name}",
        f"backbone {config.model.backbone}",
        size,
        f"classes ({len(names) - 1}): {listed}",
        f"ROI sampling {config.model.roi_sampling}",
    ]


def _tensorboard_text() -> Text:
    text = (
        "Beside this page lies the folder tensorboard with the pictures, activations, weights and numbers of this "
        "inspection; each picture is a step. A training writes its losses, rates, scores, weights, activations and "
        "predictions to the folder tensorboard of its run. Several folders can be compared."
    )
    return Text("Files for TensorBoard", text, ["tensorboard --logdir ."])
