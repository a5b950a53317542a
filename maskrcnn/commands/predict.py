"""`maskrcnn predict`, on this machine or on a cluster."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Exit, Option

from maskrcnn.checkpoints.pretrained import find_pretrained
from maskrcnn.commands import console, shared
from maskrcnn.commands.completion import words
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import advanced
from maskrcnn.errors import ArgumentError
from maskrcnn.runs.default_folder import not_input, resumed_or_new
from runtime.pictures.read import MAX_PIXELS
from runtime.tiles.tiling import LARGEST_OVERLAP, OVERLAP, SMALLEST_TILE, Tiling

if TYPE_CHECKING:
    from collections.abc import Mapping

_ON_RAY, _LARGE = "On many machines", "Videos and large images"


def predict(  # noqa: PLR0913  (one argument per option)
    model: shared.Model,
    paths: Annotated[
        list[str],
        Argument(
            metavar="PATH",
            help="Images, videos, folders of them, or patterns such as 'photos/**/*.jpg'; with --ray also lists of "
            "paths and URLs.",
        ),
    ],
    *,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the results; on a cluster, or its URL.",
            show_default="runs/predict",
        ),
    ] = None,
    overlay: Annotated[
        bool, Option("--overlay", help="Also draw the detections: a PNG per image, an MP4 per video.")
    ] = False,
    splash: Annotated[bool, Option("--splash", help="Also write gray images with the objects in color.")] = False,
    labelme: Annotated[
        bool, Option("--labelme", help="Also write a labelme file per image: polygons to correct and to train on.")
    ] = False,
    score_threshold: Annotated[
        float | None,
        Option(**shared.SCORE, show_default="the model's"),
    ] = None,
    classes: Annotated[
        list[str] | None, Option("--class", metavar="NAME", help="Keep only this class; may be repeated.")
    ] = None,
    every: Annotated[
        int, Option(min=1, metavar="N", help="Predict every N-th video frame.", rich_help_panel=_LARGE)
    ] = 1,
    track: Annotated[
        bool,
        Option(
            "--track",
            help="Give each object an id that it keeps through a video; for videos only.",
            rich_help_panel=_LARGE,
        ),
    ] = False,
    tile: Annotated[
        int | None,
        Option(
            min=SMALLEST_TILE,
            metavar="N",
            help="Predict large images in tiles of N pixels a side: best the size of the training images.",
            show_default="whole images",
            rich_help_panel=_LARGE,
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        Option(
            min=0,
            max=LARGEST_OVERLAP,
            metavar="X",
            help="Share of a tile that its neighbors show too.",
            show_default=f"{OVERLAP}",
            rich_help_panel=_LARGE,
        ),
    ] = None,
    value_range: shared.ValueRange = None,
    bands: shared.Bands = None,
    config: shared.ModelConfig = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    settings: shared.Settings = None,
    device: shared.Device = "auto",
    file_format: Annotated[
        Literal["coco", "parquet"] | None,
        advanced(
            "--format",
            metavar="coco|parquet",
            help="Write results.json and results.csv, or a row per image in Parquet.",
            show_default="coco; on a cluster parquet",
        ),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace results that were made with other settings.")] = False,
    ray: Annotated[
        str | None,
        Option(
            metavar="auto|local|HOST:PORT",
            autocompletion=words("auto", "local"),
            help="Predict images on a Ray cluster: of this machine, started on it, or elsewhere.",
            show_default="this process",
            rich_help_panel=_ON_RAY,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        Option(
            min=1, metavar="N", help="Workers on the cluster.", show_default="all that fit", rich_help_panel=_ON_RAY
        ),
    ] = None,
    threads: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Threads of each worker.", show_default="1", rich_help_panel=_ON_RAY),
    ] = None,
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
    with failures("predict"):
        if tile is None:
            _refuse({"--overlap": overlap is not None}, "without --tile: add it, as in --tile 1024")
        tiling = None if tile is None else Tiling(tile, OVERLAP if overlap is None else overlap)
        chosen = model if find_pretrained(model) is not None else shared.find_artifact(model)
        choices = shared.choose(config, family, class_names, settings)
        shared.check_choices(chosen, choices)
        if ray is not None:
            refused = {
                "--overlay": overlay, "--splash": splash, "--labelme": labelme, "--every": every != 1, "--track": track,
                "--tile": tile is not None, "--format coco": file_format == "coco", "--config": config is not None,
                "a checkpoint": shared.is_checkpoint(chosen),
            }  # fmt: skip
            _refuse(refused, "with --ray, which writes rows for images with an artifact: remove one of the two options")
            if output is None:
                raise ArgumentError("--ray needs a folder that all machines share: give it with -o")
            values: dict[str, Any] = {"workers": workers, "threads": threads or 1, "batch_size": batch_size}
            values |= {"device": device, "score_threshold": score_threshold, "nms_threshold": nms_threshold}
            values |= {"classes": tuple(classes or ()), "max_pixels": max_pixels, "value_range": value_range}
            raise Exit(_predict_on_ray(chosen, paths, output, ray, values | {"bands": channels, "force": force}))
        _refuse({"--workers": workers, "--threads": threads}, "without --ray: add --ray local")

        from maskrcnn.prediction.output_folder import RUN_FILE, is_finished  # noqa: PLC0415
        from maskrcnn.prediction.predict import PredictOptions, predict_paths  # noqa: PLC0415
        from maskrcnn.prediction.settings import model_digest  # noqa: PLC0415

        def open_model() -> tuple[Any, str]:
            file = shared.find_model(chosen, progress)
            predictor = shared.open_predictor(
                chosen, choices, device, score_threshold, nms_threshold, max_pixels, value_range, channels
            )
            return predictor, model_digest(file, shared.stated_config(predictor, chosen, choices))

        views = ("overlay",) * overlay + ("splash",) * splash + ("labelme",) * labelme
        options = PredictOptions(
            views,
            tuple(classes or ()),
            batch_size,
            every,
            force=force,
            tiling=tiling,
            parquet=file_format == "parquet",
            track=track,
        )
        made: dict[str, Any] = {"model": str(model), "paths": paths, "overlay": overlay, "splash": splash}
        made |= {"score_threshold": score_threshold, "nms_threshold": nms_threshold, "classes": classes, "every": every}
        made |= {"value_range": value_range, "bands": bands, "config": config, "family": family, "set": settings}
        made |= {"class_names": class_names, "format": file_format, "max_pixels": max_pixels}
        made |= {"track": track, "labelme": labelme}
        made |= {} if tiling is None else {"tile": tiling.tile, "overlap": tiling.overlap}
        opened = nullcontext(Path(output)) if output else resumed_or_new("predict", made, is_finished, "predict")
        with opened as folder, console.plain_warnings(), console.progress_bar() as progress:
            doing = "resuming" if (folder / RUN_FILE).exists() else "writing to"
            begun = partial(console.progress, f"{doing} {folder}") if output is None else lambda: None
            result = predict_paths(
                paths, folder, open_model, options, progress, progress.item, not_input(paths, folder), begun
            )
        code = console.prediction(result, views, parquet=options.parquet)
    raise Exit(code)


def _refuse(given: "Mapping[str, Any]", why: str) -> None:
    for name, value in given.items():
        if value:
            raise ArgumentError(f"{name} cannot be used {why}")


def _predict_on_ray(model: Path, paths: list[str], output: str, address: str, values: dict[str, Any]) -> int:
    from maskrcnn.batch.run import BatchOptions, predict_dataset  # noqa: PLC0415

    options = BatchOptions(**values)
    with console.progress_bar() as progress:
        result = predict_dataset(
            model, paths, output, address=address, options=options, progress=progress, say=console.progress
        )
    return console.batch(result)
