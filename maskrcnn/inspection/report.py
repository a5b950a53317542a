"""The whole inspection of images, weights, dataset and artifact, as numbers and as one HTML page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.data.records import Dataset, Record
from maskrcnn.errors import ArgumentError
from maskrcnn.inspection.data_report import class_blocks, image_blocks, object_blocks
from maskrcnn.inspection.data_statistics import dataset_statistics
from maskrcnn.inspection.model_report import (
    artifact_blocks,
    history_blocks,
    mean_precision,
    summary_blocks,
    weight_blocks,
)
from maskrcnn.inspection.output import Inspection
from maskrcnn.inspection.page_model import Block, Section, Text
from maskrcnn.inspection.picture_report import report_picture
from maskrcnn.inspection.weights import Arrays
from maskrcnn.intermediates.artifact_run import ArtifactStages
from maskrcnn.intermediates.stage_run import ModelStages, StageRunner
from runtime.one_line import class_list

_SECTIONS = (
    ("summary", "Summary", ""),
    (
        "result",
        "Result",
        "How proposals are filtered into detections. Move the sliders to see the result at other thresholds.",
    ),
    (
        "anchors",
        "1 Anchors",
        "How training matches anchors to objects, and how the region proposal network (RPN) picks proposals.",
    ),
    ("refinement", "2 Boxes", "The proposals that the box head classifies as an object, and where it moves them."),
    ("masks", "3 Masks", "How predicted probabilities become the pixels of a mask."),
    ("activations", "4 Activations", "The output of each layer, and channels that carry no information."),
    ("weights", "5 Weights", "Every array of the checkpoint, with those that look wrong marked."),
    ("tensorboard", "6 Training", "Curves of the training run, and how to open this inspection in TensorBoard."),
    ("data", "Data", "The input images and their objects, and how training prepares them."),
    ("artifact", "Artifact", "Where the exported graph runs, how long each operator takes, and where it comes from."),
)


class InspectedPicture(NamedTuple):
    """An image to inspect.

    Attributes:
        name: Name on the page.
        record: The image and its objects, with the class ids of the model.
        annotated: Whether its objects are known.
    """

    name: str
    record: Record
    annotated: bool


def inspect_pictures(
    runner: StageRunner,
    pictures: Sequence[InspectedPicture],
    *,
    title: str,
    dataset: Dataset | None = None,
    other: Arrays | None = None,
    history: Sequence[dict[str, float]] = (),
    layers: Sequence[str] = (),
    progress: Say = say_nothing,
) -> Inspection:
    """Inspect a model on one or more images.

    Args:
        runner: `ModelStages` of a checkpoint's model, or `ArtifactStages`.
        title: Heading of the page.
        dataset: Dataset for the statistics.
        other: Weights of another checkpoint to compare with.
        history: Losses and scores of each epoch of the training run.
        layers: Additional layers whose activations are shown.
        progress: Called with a sentence before each part.

    Raises:
        ArgumentError: There is no such layer, or an artifact is asked for layers or weights.
    """
    if not isinstance(runner, ModelStages) and (layers or other is not None):
        raise ArgumentError("an artifact has no layers to show and no weights to compare: give its checkpoint")
    sections = {key: Section(key, name, intro) for key, name, intro in _SECTIONS}
    reports = []
    for number, (name, record, annotated) in enumerate(pictures):
        progress(f"image {number + 1} of {len(pictures)}: {name}")
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
        progress("placement of the graph")
        image = pictures[0].record.load_image(runner.config.model.image_channels, runner.config.pixels)
        add("artifact", *artifact_blocks(runner.predictor.metadata, runner.predictor.explain(image)))
    if dataset is not None:
        progress("dataset")
        statistics = dataset_statistics(dataset, runner.config)
        described = class_blocks(statistics), image_blocks(statistics), object_blocks(statistics, runner.config)
        add("data", [block for blocks in described for block in blocks], statistics.numbers)
    add("tensorboard", [*history_blocks(history), _tensorboard_text()])
    if any(picture.annotated for picture in pictures):
        figures["result"] = mean_precision([each.figures for each in reports])
    add("summary", *summary_blocks(figures))
    names = [f"image {pictures[0].name}"] if len(pictures) == 1 else []
    shown = [*names, *_facts(runner)]
    return Inspection(title, shown, [each.name for each in reports], list(sections.values()), figures, reports, arrays)


def _facts(runner: StageRunner) -> list[str]:
    config = runner.config
    resize = config.resize
    size = f"input size {resize.max_dim or resize.min_dim or 'as given'} (resize mode {resize.mode})"
    return [
        f"configuration {config.name}",
        f"backbone {config.model.backbone}",
        size,
        class_list(config.model.class_names),
        f"ROIAlign sampling {config.model.roi_sampling}",
    ]


def _tensorboard_text() -> Text:
    text = (
        "The folder tensorboard next to this page has the images, activations, weights and numbers of this "
        "inspection; each image is a step. A training run writes its losses, learning rates, scores, weights, "
        "activations and predictions to the same folder in its run folder. TensorBoard can compare several folders."
    )
    return Text("Files for TensorBoard", text, ["tensorboard --logdir ."])
