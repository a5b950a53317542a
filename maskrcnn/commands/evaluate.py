"""`maskrcnn evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import (
    ADVANCED,
    ClassAttribute,
    DatasetPath,
    Device,
    Force,
    Format,
    Model,
    ModelConfig,
    SkipBad,
    open_predictor,
)


def evaluate(  # noqa: PLR0913  (one argument per option)
    model: Model,
    dataset: DatasetPath,
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for results.json, summary.json and worst.png."),
    ],
    config: ModelConfig = None,
    device: Device = "auto",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N images.")] = None,
    force: Force = False,
    score_threshold: Annotated[
        float, typer.Option(metavar="SCORE", help="Lowest score of a detection.", rich_help_panel=ADVANCED)
    ] = 0.05,
    worst: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of images in worst.png.", rich_help_panel=ADVANCED)
    ] = 8,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
) -> None:
    """Measure a model on a dataset: COCO average precision, speed, and a sheet of the worst images."""
    with failures("train", "maskrcnn evaluate"):
        from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
        from maskrcnn.evaluation.evaluate import (  # noqa: PLC0415
            check_outputs,
            evaluate as run_evaluation,
        )

        check_outputs(output, overwrite=force)
        pictures = open_dataset(dataset, None, format_, None, class_attribute, skip_bad=skip_bad)
        predictor = open_predictor(model, config, device, score_threshold)
        found = run_evaluation(predictor, pictures, limit=limit, progress=console.pictures)
        found.write(output, worst=worst, overwrite=force)
        console.evaluation(found)
        console.written(output)
