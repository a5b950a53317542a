"""`maskrcnn predict`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option

from maskrcnn.commands import console, shared
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import advanced
from runtime.pictures.read import MAX_PIXELS


def predict(  # noqa: PLR0913  (one argument per option)
    model: shared.Model,
    paths: Annotated[
        list[str],
        Argument(metavar="PATH", help="Images, videos, folders of them, or patterns such as 'photos/**/*.jpg'."),
    ],
    *,
    output: Annotated[Path, Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")],
    overlay: Annotated[
        bool, Option("--overlay", help="Also draw the detections: a PNG per image, an MP4 per video.")
    ] = False,
    splash: Annotated[bool, Option("--splash", help="Also write gray images with the objects in color.")] = False,
    score_threshold: Annotated[
        float | None,
        Option(**shared.SCORE, show_default="the model's"),
    ] = None,
    classes: Annotated[
        list[str] | None, Option("--class", metavar="NAME", help="Keep only this class; may be repeated.")
    ] = None,
    every: Annotated[int, Option(min=1, metavar="N", help="Predict every N-th video frame.")] = 1,
    value_range: shared.ValueRange = None,
    bands: shared.Bands = None,
    config: shared.ModelConfig = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    settings: shared.Settings = None,
    device: shared.Device = "auto",
    force: Annotated[bool, Option("--force", help="Replace results that were made with other settings.")] = False,
    nms_threshold: Annotated[
        float | None,
        advanced(**shared.NMS, show_default="the model's"),
    ] = None,
    batch_size: Annotated[int, advanced(min=1, metavar="N", help="Images of one input size to run together.")] = 1,
    max_pixels: Annotated[
        int, advanced(min=1, metavar="N", help="Refuse larger images before decoding them.")
    ] = MAX_PIXELS,
) -> None:
    """Find objects in images and videos, and write them as COCO JSON and CSV.

    To resume an interrupted run, repeat the command.
    """
    channels = shared.band_numbers(bands)
    with failures("predict", "maskrcnn predict"):
        from maskrcnn.prediction.predict import PredictOptions, predict_paths  # noqa: PLC0415
        from maskrcnn.prediction.progress_bar import progress_bar  # noqa: PLC0415
        from maskrcnn.prediction.settings import model_digest  # noqa: PLC0415

        chosen, choices = shared.find_artifact(model), shared.choose(config, family, class_names, settings)

        shared.check_choices(chosen, choices)

        def open_model() -> tuple[Any, str]:
            predictor = shared.open_predictor(
                chosen, choices, device, score_threshold, nms_threshold, max_pixels, value_range, channels
            )
            return predictor, model_digest(chosen, shared.stated_config(predictor, chosen, choices))

        views = ("overlay",) * overlay + ("splash",) * splash
        options = PredictOptions(
            views=views, classes=tuple(classes or ()), batch_size=batch_size, every=every, force=force
        )
        with console.plain_warnings(), progress_bar(console.progress) as progress:
            result = predict_paths(paths, output, open_model, options, progress)
        code = console.prediction(result)
    raise Exit(code)
