"""`maskrcnn evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import ClassAttribute, DatasetPath, Format, SkipBad, open_predictor


def evaluate(  # noqa: PLR0913  (one argument per option)
    model: Annotated[Path, typer.Argument(help="A .weights.h5 or matterport .h5, an .onnx file or SavedModel folder.")],
    dataset: DatasetPath,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for results.json, summary.json and worst.png.")
    ],
    config: Annotated[str | None, typer.Option("--config", help="What a checkpoint is that does not say it.")] = None,
    device: Annotated[str, typer.Option(help="Where an artifact runs: cpu, cuda, cuda:N, auto.")] = "auto",
    score_threshold: Annotated[float, typer.Option(help="Lowest score of a prediction.")] = 0.05,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")] = None,
    worst: Annotated[int, typer.Option(min=1, help="Pictures in worst.png.")] = 8,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of an earlier evaluation.")] = False,
) -> None:
    """Score a model on a data set: COCO average precision, speed, and the pictures it understands least."""
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
