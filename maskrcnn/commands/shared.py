"""Options that several commands share, and the predictor of a model argument."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from maskrcnn.commands import console
from maskrcnn.configuration.samples import SAMPLES, find_config
from maskrcnn.data.readers.open import DatasetFormat
from maskrcnn.distribution import NAME, own_version
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.pictures.read import MAX_PIXELS

ADVANCED = "Advanced"  # title of the help panel for the options that few people need
CONFIG_KINDS = f"a JSON file with our or matterport's field names, or a sample ({', '.join(SAMPLES)})"
DATASET_KINDS = "COCO JSON, VGG Image Annotator JSON, or a folder of labelme files or mask images"

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL|demo",
        help="An .onnx file, a SavedModel folder, a .weights.h5, a matterport .h5, or demo for the demo model.",
    ),
]
ModelConfig = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE|SAMPLE",
        help=f"Model configuration for checkpoints that do not store one: {CONFIG_KINDS}.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="Device for an artifact: auto, cpu, cuda, cuda:N or tensorrt.")
]
DatasetPath = Annotated[Path, typer.Argument(metavar="DATASET", help=f"{DATASET_KINDS}.")]
Format = Annotated[
    DatasetFormat | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"Format of the annotations: {', '.join(get_args(DatasetFormat))}.",
        show_default="detected",
        rich_help_panel=ADVANCED,
    ),
]
ClassAttribute = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Region attribute that holds the class in VGG Image Annotator files.",
        show_default="one class for all regions",
        rich_help_panel=ADVANCED,
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip annotations and images that cannot be used.", rich_help_panel=ADVANCED)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {own_version()}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
]


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
    """Open a model argument: the Keras model of a checkpoint, or an artifact in its engine.

    Args:
        model: As `find_model` takes it.
        config: Configuration of a checkpoint that does not store one, as `find_config` takes it.
        device: Device of an artifact.
        score_threshold: Lowest score of a detection; None takes that of the artifact or of the configuration.
        nms_threshold: Largest IoU within a class; None as for `score_threshold`.
        max_pixels: Largest number of pixels of an image.
    """
    path = find_model(model)
    if path.suffix != ".h5":
        if path.is_dir():
            import_tensorflow()  # the engine of a SavedModel
        from runtime.predictor import Predictor  # noqa: PLC0415

        return Predictor(
            path, device, score_threshold=score_threshold, nms_threshold=nms_threshold, max_pixels=max_pixels
        )
    console.progress("loading TensorFlow and the checkpoint")
    import_tensorflow()
    from maskrcnn.checkpoint_predictor import CheckpointPredictor  # noqa: PLC0415
    from maskrcnn.checkpoints.checkpoint import load_checkpoint  # noqa: PLC0415

    network, _ = load_checkpoint(path, None if config is None else find_config(config))
    if score_threshold is None:
        score_threshold = network.config.detection.min_score
    return CheckpointPredictor(network, score_threshold, nms_threshold, max_pixels)
