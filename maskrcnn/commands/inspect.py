"""`maskrcnn inspect`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import (
    ADVANCED,
    DATASET_KINDS,
    ClassAttribute,
    Device,
    Force,
    Format,
    Model,
    ModelConfig,
    SkipBad,
    find_model,
    names_demo,
    open_predictor,
)
from maskrcnn.configuration.samples import find_config
from maskrcnn.tensorflow_import import import_tensorflow


def inspect(  # noqa: PLR0913  (one argument per option)
    model: Model,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE", help="Images; with --dataset, paths or names of images in it."),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the page; open its index.html.")
    ],
    dataset: Annotated[
        Path | None, typer.Option(metavar="DATASET", help=f"Dataset with ground truth: {DATASET_KINDS}.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=16, metavar="N", help="Number of images of the dataset, if none is named.")
    ] = 4,
    config: ModelConfig = None,
    device: Device = "auto",
    force: Force = False,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Checkpoint to compare the weights with.", rich_help_panel=ADVANCED),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Also show the activations of this layer; may be repeated.", rich_help_panel=ADVANCED
        ),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SCORE",
            help="Lowest score of a detection.",
            show_default="the model's",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    nms_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="IOU",
            help="Largest IoU of two detections of one class.",
            show_default="the model's",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write one HTML page that shows every step of detection, the weights and the data."""
    with failures("inspect", "maskrcnn inspect"):
        import_tensorflow()
        from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
        from maskrcnn.inspection.choose import choose_pictures, demo_pictures  # noqa: PLC0415
        from maskrcnn.inspection.report import FIGURES, PAGE, inspect_pictures  # noqa: PLC0415
        from runtime.atomic import check_output  # noqa: PLC0415

        check_output(output, overwrite=force, directory=True, marker=FIGURES)
        opened = (
            None if dataset is None else open_dataset(dataset, None, format_, None, class_attribute, skip_bad=skip_bad)
        )
        predictor = open_predictor(model, config, device, score_threshold, nms_threshold)
        runner = _runner(predictor)
        names = predictor.class_names
        own = names_demo(model) and not images and opened is None
        pictures, adapted = demo_pictures(names) if own else choose_pictures(images or [], opened, names, limit)
        found = inspect_pictures(
            runner,
            pictures,
            title=f"Inside {model.name}",
            dataset=adapted,
            other=None if compare is None else _weights(compare, config),
            history=_history(find_model(model)),
            layers=layer or [],
            progress=console.progress,
        )
        found.write(output, overwrite=force)
        console.written(output / PAGE)


def _runner(predictor: Any) -> Any:
    """Return what runs the stages one by one: the model of a checkpoint, or an artifact."""
    from maskrcnn.checkpoint_predictor import CheckpointPredictor  # noqa: PLC0415
    from maskrcnn.intermediates.artifact_run import ArtifactStages  # noqa: PLC0415
    from maskrcnn.intermediates.stage_run import ModelStages  # noqa: PLC0415

    if isinstance(predictor, CheckpointPredictor):
        return ModelStages(predictor.model, predictor.score_threshold, predictor.nms_threshold)
    return ArtifactStages(predictor)


def _weights(checkpoint: Path, config: str | None) -> Any:
    from maskrcnn.checkpoints.checkpoint import load_checkpoint  # noqa: PLC0415
    from maskrcnn.checkpoints.named_weights import get_arrays  # noqa: PLC0415

    described = None if config is None else find_config(config)
    return get_arrays(load_checkpoint(find_model(checkpoint), described)[0])


def _history(checkpoint: Path) -> list[dict[str, float]]:
    """Read the history of the training run whose folder the checkpoint is in, if any."""
    path = checkpoint.parent / "history.json"
    if checkpoint.suffix != ".h5" or not path.is_file():
        return []
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        console.progress(f"{path} cannot be read: the page has no training curves")
        return []
    epochs = history if isinstance(history, list) else []
    numbers = (int, float)
    return [
        {name: value for name, value in epoch.items() if isinstance(value, numbers)}
        for epoch in epochs
        if isinstance(epoch, dict)
    ]
