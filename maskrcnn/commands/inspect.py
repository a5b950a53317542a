"""`maskrcnn inspect`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from maskrcnn.commands import console, shared
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import DATASET_KINDS, advanced
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.overrides import override_by_user, split_setting
from maskrcnn.configuration.samples import find_config
from maskrcnn.data.readers.findings import NO_PICTURES, Findings
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.records import Dataset
from maskrcnn.errors import ArgumentError, DatasetFormatError
from maskrcnn.runs.default_folder import folder_for
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.json_file import read_json_file
from runtime.pictures.header import PICTURE_SUFFIXES


def inspect(  # noqa: PLR0913  (one argument per option)
    model: Annotated[
        Path | None,
        Argument(
            metavar="MODEL|coco|demo",
            autocompletion=shared.MODELS,
            help=f"{shared.MODEL_KINDS} Without one, the page shows the data of --dataset alone.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        list[Path] | None, Argument(metavar="IMAGE", help="Images; with --dataset, paths or names of images in it.")
    ] = None,
    *,
    output: Annotated[
        Path | None,
        Option(
            "--output", "-o", metavar="FOLDER", help="Folder for the page, index.html.", show_default="runs/inspect"
        ),
    ] = None,
    dataset: Annotated[
        Path | None, Option(metavar="DATASET", help=f"Dataset with ground truth: {DATASET_KINDS}.")
    ] = None,
    dataset_images: shared.Images = None,
    limit: Annotated[
        int, Option(min=1, max=16, metavar="N", help="Number of images of the dataset, if none is named.")
    ] = 4,
    config: shared.ModelConfig = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    settings: shared.Settings = None,
    device: shared.Device = "auto",
    force: shared.Force = False,
    compare: Annotated[
        Path | None, advanced(metavar="CHECKPOINT", help="Checkpoint to compare the weights with.")
    ] = None,
    layer: Annotated[
        list[str] | None, advanced(metavar="NAME", help="Also show activations of this layer; may be repeated.")
    ] = None,
    score_threshold: Annotated[float | None, advanced(**shared.SCORE, show_default="the model's")] = None,
    nms_threshold: Annotated[float | None, advanced(**shared.NMS, show_default="the model's")] = None,
    augment_with: shared.AugmentWith = None,
    format_: shared.Format = None,
    class_attribute: shared.ClassAttribute = None,
    skip_bad: shared.SkipBad = False,
    by_name: shared.ByName = False,
    boxes_as_masks: shared.BoxesAsMasks = False,
    mask_values: shared.MaskKinds = None,
    encoding: shared.Encoding = None,
) -> None:
    """Write one HTML page that shows every step of detection, the weights and the data."""
    with failures("inspect"):
        choices = shared.choose(config, family, class_names, settings)
        options = ReadOptions(by_name, boxes_as_masks, mask_values, encoding)
        reading: dict[str, Any] = {
            "images": dataset_images,
            "format": format_,
            "class_attribute": class_attribute,
            "options": options,
        }
        if model is None:
            if dataset is None:
                raise ArgumentError("nothing to inspect: name a model, or a dataset with --dataset")
            _refuse_for_model(
                family=family,
                classes=class_names,
                compare=compare,
                layer=layer,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                device=None if device == "auto" else device,
                skip_bad=skip_bad or None,
            )
            _inspect_data(dataset, config, settings or [], limit, output, force, reading, augment_with)
            return
        if augment_with is not None:
            raise ArgumentError("--augment-with: for the page of a dataset alone, with --dataset and without a model")
        if model.suffix.lower() in PICTURE_SUFFIXES and not model.is_dir():
            raise ArgumentError(f"{model} is an image: name a model before the images")
        names = shared.check_model(model, choices)
        from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
        from maskrcnn.inspection.output import FIGURES, PAGE  # noqa: PLC0415
        from runtime.atomic import check_output  # noqa: PLC0415

        if output is not None:
            check_output(output, overwrite=force, directory=True, marker=FIGURES)
        opened = None
        if dataset is not None:
            opened = open_dataset(dataset, skip_bad=skip_bad, report=console.dataset_report, **reading)
        with folder_for(output, "inspect") as folder:
            import_tensorflow()
            from maskrcnn.checkpoints.named_weights import get_arrays  # noqa: PLC0415
            from maskrcnn.inspection.choose import choose_pictures, demo_pictures  # noqa: PLC0415
            from maskrcnn.inspection.report import inspect_pictures  # noqa: PLC0415

            own = shared.names_demo(model) and not images and opened is None
            pictures, adapted = demo_pictures(names) if own else choose_pictures(images or [], opened, names, limit)
            runner = _runner(shared.open_predictor(model, choices, device, score_threshold, nms_threshold))
            found = inspect_pictures(
                runner,
                pictures,
                title=f"Inside {model.name}",
                dataset=adapted,
                other=None if compare is None else get_arrays(shared.load_network(compare, choices)[0]),
                history=_history(shared.find_model(model)),
                layers=layer or [],
                progress=console.progress,
            )
            found.write(folder, overwrite=force or output is None)
        console.written(folder / PAGE)


def _refuse_for_model(**options: object) -> None:
    given = ", ".join(f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None)
    if given:
        raise ArgumentError(
            f"{given}: for a model, which comes before the options; the page of a dataset alone needs none, and leaves "
            "out what cannot be used"
        )


def _inspect_data(
    path: Path,
    config: str | None,
    settings: list[str],
    limit: int,
    output: Path | None,
    force: bool,
    reading: dict[str, Any],
    augment_with: str | None,
) -> None:
    """Write the page of a dataset alone, without TensorFlow."""
    from maskrcnn.data.augment_hook import find_hook  # noqa: PLC0415
    from maskrcnn.data.readers.check import check_scan  # noqa: PLC0415
    from maskrcnn.data.readers.open import scan_dataset  # noqa: PLC0415
    from maskrcnn.inspection.data_report import inspect_dataset  # noqa: PLC0415
    from maskrcnn.inspection.data_statistics import MOST_PICTURES  # noqa: PLC0415
    from maskrcnn.inspection.output import FIGURES, PAGE  # noqa: PLC0415
    from runtime.atomic import check_output  # noqa: PLC0415

    if output is not None:
        check_output(output, overwrite=force, directory=True, marker=FIGURES)
    chosen = override_by_user(Config() if config is None else find_config(config), settings)
    if any(split_setting(setting)[0] == "model.class_names" for setting in settings):
        raise ArgumentError("--set model.class_names: the classes are those of the dataset, if no model is named")
    hook = None if augment_with is None else find_hook(augment_with)
    scan = scan_dataset(path, **reading)
    first = scan.first(MOST_PICTURES)
    _require_usable(path, first.dataset, first.findings)
    with folder_for(output, "inspect") as folder:
        with console.progress_bar() as shown:
            shown("dataset check", 0, len(first.dataset))
            usable = check_scan(first, lambda done: shown("dataset check", done, len(first.dataset)))
        _require_usable(path, usable, first.findings)
        found = inspect_dataset(
            usable,
            chosen,
            findings=first.findings.items,
            listed=scan.listed,
            left_out=scan.listed - len(scan.dataset) + len(first.dataset) - len(usable),
            limit=limit,
            title=f"Inside {path.name}",
            progress=console.progress,
            hook=hook,
        )
        found.write(folder, overwrite=force or output is None)
    console.written(folder / PAGE)


def _require_usable(path: Path, dataset: Dataset, findings: Findings) -> None:
    """Refuse a dataset without an image."""
    if dataset.records:
        return
    first = next((item for item in findings.items if item.level == "error"), None)
    if first is not None and first.kind == NO_PICTURES:
        findings.refuse(path)
    reason = "" if first is None else f", first {first.where}: {first.message}"
    raise DatasetFormatError(f"{path} has no image that can be used{reason}")


def _runner(predictor: Any) -> Any:
    """Return what runs the stages one by one: the model of a checkpoint, or an artifact."""
    from maskrcnn.checkpoint_predictor import CheckpointPredictor  # noqa: PLC0415
    from maskrcnn.intermediates.artifact_run import ArtifactStages  # noqa: PLC0415
    from maskrcnn.intermediates.stage_run import ModelStages  # noqa: PLC0415

    if isinstance(predictor, CheckpointPredictor):
        return ModelStages(predictor.model, predictor.score_threshold, predictor.nms_threshold)
    return ArtifactStages(predictor)


def _history(checkpoint: Path) -> list[dict[str, float]]:
    """Read the history of the training run whose folder the checkpoint is in, if any."""
    path = checkpoint.parent / "history.json"
    if checkpoint.suffix != ".h5" or not path.is_file():
        return []
    try:
        history = read_json_file(path)
    except (OSError, ValueError):
        console.warning(f"{path} cannot be read: the page has no training curves")
        return []
    epochs = history if isinstance(history, list) else []
    numbers = (int, float)
    return [
        {name: value for name, value in epoch.items() if isinstance(value, numbers)}
        for epoch in epochs
        if isinstance(epoch, dict)
    ]
