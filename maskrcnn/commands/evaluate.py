"""`maskrcnn evaluate`."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from maskrcnn.commands import console, shared
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import advanced
from maskrcnn.runs.default_folder import folder_for


def evaluate(  # noqa: PLR0913  (one argument per option)
    model: shared.Model,
    dataset: shared.DatasetPath,
    *,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for results.json, summary.json and worst.png.",
            show_default="runs/evaluate",
        ),
    ] = None,
    images: shared.Images = None,
    config: shared.ModelConfig = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    settings: shared.Settings = None,
    device: shared.Device = "auto",
    limit: Annotated[int | None, Option(min=1, metavar="N", help="Use only the first N images.")] = None,
    force: shared.Force = False,
    score_threshold: Annotated[float, advanced(**shared.SCORE)] = 0.05,
    worst: Annotated[int, advanced(min=1, metavar="N", help="Number of images in worst.png.")] = 8,
    format_: shared.Format = None,
    class_attribute: shared.ClassAttribute = None,
    skip_bad: shared.SkipBad = False,
    by_name: shared.ByName = False,
    boxes_as_masks: shared.BoxesAsMasks = False,
    mask_values: shared.MaskKinds = None,
    encoding: shared.Encoding = None,
) -> None:
    """Measure a model on a dataset: COCO average precision, speed, and a sheet of the worst images."""
    with failures("evaluate"):
        from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
        from maskrcnn.data.readers.options import ReadOptions  # noqa: PLC0415
        from maskrcnn.data.records import require_objects  # noqa: PLC0415
        from maskrcnn.evaluation import evaluate as evaluation  # noqa: PLC0415
        from maskrcnn.evaluation.results import match_classes  # noqa: PLC0415

        choices = shared.choose(config, family, class_names, settings)
        class_names_of_model = shared.check_model(model, choices)
        if output is not None:
            evaluation.check_outputs(output, overwrite=force)
        options = ReadOptions(by_name, boxes_as_masks, mask_values, encoding)
        pictures = open_dataset(
            dataset,
            images,
            format_,
            None,
            class_attribute,
            skip_bad=skip_bad,
            options=options,
            report=console.dataset_report,
        )
        require_objects(pictures)
        match_classes(class_names_of_model, pictures)
        with folder_for(output, "evaluate") as folder:
            predictor = shared.open_predictor(model, choices, device, score_threshold)
            with console.progress_bar() as bar:
                found = evaluation.evaluate(predictor, pictures, limit=limit, progress=partial(bar, "images"))
            found.write(folder, worst=worst, overwrite=force)
        console.evaluation(found)
        console.written(folder)
        if shared.is_checkpoint(model):
            of_checkpoint = {"config": config, "family": family, "classes": class_names, "set": settings}
            console.useful_next(shared.export_command(model, **of_checkpoint))
        else:
            of_dataset = {"images": images, "format": format_, "class_attribute": class_attribute, "by_name": by_name}
            of_dataset |= {"skip_bad": skip_bad, "boxes_as_masks": boxes_as_masks, "mask_values": mask_values}
            of_dataset |= {"encoding": encoding, "dataset": dataset}
            console.useful_next(console.command("maskrcnn", "inspect", model, **of_dataset))
