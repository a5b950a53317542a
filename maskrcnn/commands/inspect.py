"""`maskrcnn inspect`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import (
    DATASET_KINDS,
    ClassAttribute,
    Format,
    SkipBad,
    find_model,
    open_predictor,
)
from maskrcnn.tensorflow_import import import_tensorflow


def inspect(  # noqa: PLR0913  (one argument per option)
    model: Annotated[
        Path, typer.Argument(help="A .weights.h5 or matterport .h5, an .onnx file, a SavedModel folder, or demo.")
    ],
    images: Annotated[list[Path] | None, typer.Argument(help="Pictures; with --dataset, of it.")] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report; open its index.html.")],
    dataset: Annotated[Path | None, typer.Option(help=f"Annotated pictures: {DATASET_KINDS}.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Another checkpoint, to compare the weights with.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="What a checkpoint is that does not say it.")] = None,
    device: Annotated[str, typer.Option(help="Where an artifact runs: cpu, cuda, cuda:N, auto.")] = "auto",
    limit: Annotated[int, typer.Option(min=1, max=16, help="Pictures of the data set where none is named.")] = 4,
    layer: Annotated[list[str] | None, typer.Option(help="A further layer to show; may be repeated.")] = None,
    score_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Left out: the model's.")] = None,
    nms_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Left out: the model's.")] = None,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an older console.")] = False,
) -> None:
    """Look inside: every step of detection, weights and data, as one HTML page."""
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
        own = model == Path("demo") and not images and opened is None
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
    """What runs stage by stage: the model of a checkpoint, or an artifact."""
    from maskrcnn.checkpoint_predictor import CheckpointPredictor  # noqa: PLC0415
    from maskrcnn.intermediates.artifact_run import ArtifactStages  # noqa: PLC0415
    from maskrcnn.intermediates.stage_run import ModelStages  # noqa: PLC0415

    if isinstance(predictor, CheckpointPredictor):
        return ModelStages(predictor.model, predictor.score_threshold, predictor.nms_threshold)
    return ArtifactStages(predictor)


def _weights(checkpoint: Path, config: str | None) -> Any:
    from maskrcnn.checkpoints.checkpoint import load_checkpoint  # noqa: PLC0415
    from maskrcnn.checkpoints.named_weights import get_arrays  # noqa: PLC0415
    from maskrcnn.configuration.samples import find_config  # noqa: PLC0415

    described = None if config is None else find_config(config)
    return get_arrays(load_checkpoint(find_model(checkpoint), described)[0])


def _history(checkpoint: Path) -> list[dict[str, float]]:
    """The epochs of the run that the checkpoint lies in, if it lies in one."""
    path = checkpoint.parent / "history.json"
    if checkpoint.suffix != ".h5" or not path.is_file():
        return []
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        console.progress(f"{path} cannot be read: the curves of the training are left out")
        return []
    epochs = history if isinstance(history, list) else []
    numbers = (int, float)
    return [
        {name: value for name, value in epoch.items() if isinstance(value, numbers)}
        for epoch in epochs
        if isinstance(epoch, dict)
    ]
