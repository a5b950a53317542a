"""`maskrcnn predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import ADVANCED, Device, Model, ModelConfig, find_model, open_predictor
from maskrcnn.configuration.samples import find_config
from runtime.pictures.read import MAX_PIXELS


def predict(  # noqa: PLR0913  (one argument per option)
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Images, videos, folders of them, or patterns such as 'photos/**/*.jpg'."),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw the detections: a PNG per image, an MP4 per video.")
    ] = False,
    splash: Annotated[
        bool, typer.Option("--splash", help="Also write gray images with the objects in color: PNG or MP4.")
    ] = False,
    score_threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Lowest score of a detection.", show_default="the model's")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Keep only this class; may be repeated.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Predict every N-th video frame.")] = 1,
    config: ModelConfig = None,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace results that were made with other settings.")] = False,
    nms_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="IOU",
            help="Largest IoU of two detections of one class.",
            show_default="the model's",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Number of images of one input size to run together.", rich_help_panel=ADVANCED
        ),
    ] = 1,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Refuse larger images before decoding them.", rich_help_panel=ADVANCED),
    ] = MAX_PIXELS,
) -> None:
    """Find objects in images and videos, and write them as COCO JSON and CSV.

    To resume an interrupted run, repeat the command.
    """
    with failures("predict", "maskrcnn predict"):
        from maskrcnn.prediction.predict import PredictOptions, predict_paths  # noqa: PLC0415
        from maskrcnn.prediction.progress_bar import progress_bar  # noqa: PLC0415
        from maskrcnn.prediction.settings import model_digest  # noqa: PLC0415

        def open_model() -> tuple[Any, str]:
            predictor = open_predictor(model, config, device, score_threshold, nms_threshold, max_pixels)
            return predictor, model_digest(find_model(model), find_config(config).to_json() if config else "")

        options = PredictOptions(
            views=("overlay",) * overlay + ("splash",) * splash,
            classes=tuple(classes or ()),
            batch_size=batch_size,
            every=every,
            force=force,
        )
        with console.plain_warnings(), progress_bar(console.progress) as progress:
            result = predict_paths(paths, output, open_model, options, progress)
        code = console.prediction(result)
    raise typer.Exit(code)
