"""`maskrcnn predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import find_model, open_predictor
from runtime.pictures.read import MAX_PIXELS


def predict(  # noqa: PLR0913  (one argument per option)
    model: Annotated[
        Path, typer.Argument(help="An .onnx file or SavedModel folder, a .weights.h5 or matterport .h5, or demo.")
    ],
    paths: Annotated[
        list[str], typer.Argument(help="Pictures and videos, folders of them, and patterns such as 'photos/**/*.jpg'.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; the same one goes on.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw what was found: PNG, or MP4.")] = False,
    splash: Annotated[bool, typer.Option("--splash", help="Gray, except for what was found: PNG, or MP4.")] = False,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Keep only this class; may be repeated.")
    ] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Lowest score. Left out: the model's.")] = None,
    nms_threshold: Annotated[float | None, typer.Option(help="Largest IoU in a class. Left out: the model's.")] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Refuse larger pictures, before they are decoded.")
    ] = MAX_PIXELS,
    device: Annotated[str, typer.Option(help="Where an artifact runs: cpu, cuda, cuda:N, auto.")] = "auto",
    config: Annotated[str | None, typer.Option("--config", help="What a checkpoint is that does not say it.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of one input size that run together.")] = 1,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of videos, predict each N-th frame.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace results of other settings.")] = False,
) -> None:
    """Find objects in pictures and videos: COCO JSON, CSV, and drawn on them. Goes on where it was cut off."""
    with failures("predict", "maskrcnn predict"):
        from maskrcnn.configuration.samples import find_config  # noqa: PLC0415
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
