"""Options that several commands share, and the predictor of a model argument."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from maskrcnn.commands import console
from maskrcnn.data.readers.open import DatasetFormat
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.pictures.read import MAX_PIXELS

DATASET_KINDS = "COCO JSON, VGG Image Annotator JSON, or a folder of labelme files or mask pictures"
DatasetPath = Annotated[Path, typer.Argument(help=f"{DATASET_KINDS}.", show_default=False)]
DatasetPaths = Annotated[
    list[Path], typer.Argument(help=f"Pictures to learn from: {DATASET_KINDS}.", show_default=False)
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="A JSON file with our or matterport's field names, or a sample (coco, balloon, nucleus, shapes, demo, "
        "small). Left out: that of the run or checkpoint.",
    ),
]
Format = Annotated[
    DatasetFormat | None, typer.Option("--format", help="Of the annotations. Left out: recognized.", show_default=False)
]
ClassAttribute = Annotated[
    str | None,
    typer.Option(help="VGG Image Annotator: the region attribute that names the class. Left out: one class."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out rows and pictures that cannot be used.")]


def names_demo(model: Path) -> bool:
    """Return whether a model argument is the word `demo`, and no model here has that name."""
    return model == Path("demo") and not model.is_file() and not (model / MANIFEST).is_file()


def find_model(model: Path) -> Path:
    """Return the path of a model argument; `demo` is the packaged checkpoint."""
    return Path(str(resources.files("maskrcnn").joinpath("demo.weights.h5"))) if names_demo(model) else model


def open_predictor(
    model: Path,
    config: str | None,
    device: str,
    score_threshold: float | None,
    nms_threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Any:
    """What predicts: the Keras model of a checkpoint, or an artifact in its engine.

    Args:
        model: As `find_model` takes it.
        config: What a checkpoint is that does not say it.
        device: Where an artifact runs.
        score_threshold: Lowest score of a detection; None takes the artifact's, or that of the configuration.
        nms_threshold: Largest IoU within a class; None as for `score_threshold`.
        max_pixels: Most pixels of a picture.
    """
    path = find_model(model)
    if path.suffix != ".h5":
        if path.is_dir():
            import_tensorflow()  # a SavedModel's engine
        from runtime.predictor import Predictor  # noqa: PLC0415

        return Predictor(
            path, device, score_threshold=score_threshold, nms_threshold=nms_threshold, max_pixels=max_pixels
        )
    console.progress("loading TensorFlow and the checkpoint")
    import_tensorflow()
    from maskrcnn.checkpoint_predictor import CheckpointPredictor  # noqa: PLC0415
    from maskrcnn.checkpoints.checkpoint import load_checkpoint  # noqa: PLC0415
    from maskrcnn.configuration.samples import find_config  # noqa: PLC0415

    network, _ = load_checkpoint(path, None if config is None else find_config(config))
    if score_threshold is None:
        score_threshold = network.config.detection.min_score
    return CheckpointPredictor(network, score_threshold, nms_threshold, max_pixels)
