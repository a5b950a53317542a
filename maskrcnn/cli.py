"""`maskrcnn`: parses, calls one function, prints. Decides nothing, and imports no engine before it must.

Exit codes: 0 done; 1 a data set has errors, or the loss is no number any more; 2 wrong usage; 3 a package or device is
missing; 4 a configuration, data set, checkpoint, artifact or run cannot be used; 5 a picture cannot be used; 6 the
output cannot be written; 130 and 143 training was interrupted by Ctrl-C or SIGTERM, and can be resumed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from maskrcnn import report
from maskrcnn.data.open import DatasetFormat
from maskrcnn.exit_codes import exit_code
from maskrcnn.quiet import import_tensorflow
from runtime.errors import MissingPackageError

app = typer.Typer(
    help="Train and evaluate a Mask R-CNN on your own pictures.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
data = typer.Typer(help="Look at data sets, and make one.", no_args_is_help=True)
app.add_typer(data, name="data")

_DATASET = "COCO JSON, VGG Image Annotator JSON, or a folder of labelme files or mask pictures"
DatasetPath = Annotated[Path, typer.Argument(help=f"{_DATASET}.", show_default=False)]
DatasetPaths = Annotated[list[Path], typer.Argument(help=f"Pictures to learn from: {_DATASET}.", show_default=False)]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="A JSON file with our or matterport's field names, or a sample (coco, balloon, nucleus, shapes, demo, "
        "small). Left out: that of the run or checkpoint.",
    ),
]
Format = Annotated[
    DatasetFormat | None, typer.Option("--format", help="Of the annotations. Left out: recognized.", show_default=False)
]
ClassAttribute = Annotated[
    str | None,
    typer.Option(help="VGG Image Annotator: the region attribute that names the class. Left out: one class."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out rows and pictures that cannot be used.")]


@app.command()
def train(  # noqa: PLR0913  (one argument per option)
    datasets: DatasetPaths,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    val: Annotated[list[Path] | None, typer.Option("--val", help="Pictures to judge by, as DATASETS.")] = None,
    config: ConfigFile = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="Weights to start from: a matterport .h5, our .weights.h5, a ResNet .h5 of Keras applications, "
            "imagenet, or demo. Left out: random ones.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if any.")] = False,
    layers: Annotated[
        str | None, typer.Option("--layers", help="One stage: heads, 3+, 4+, 5+, all, or a regular expression.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Length of the one stage.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another setting, such as training.learning_rate=0.01 or run.patience=10; may be repeated.",
        ),
    ] = None,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train on one or several data sets; the classes are theirs."""
    with _errors():
        report.progress("loading TensorFlow")
        import_tensorflow(touch_devices="TF_CONFIG" not in os.environ)
        from maskrcnn.data.open import open_datasets  # noqa: PLC0415
        from maskrcnn.training.plan import plan_run  # noqa: PLC0415
        from maskrcnn.training.train import train as run_training  # noqa: PLC0415

        chosen, options = plan_run(config, init, output if resume else None, layers, epochs, settings or [])
        read = partial(open_datasets, format=format_, class_attribute=class_attribute, skip_bad=skip_bad)
        pictures, judged = read(datasets), read(val) if val else None
        report.datasets(pictures, judged)
        result = run_training(
            chosen,
            pictures,
            judged,
            output=output,
            init=init,
            resume="auto" if resume else False,
            options=options(report.progress),
        )
        code = report.training(result)
    raise typer.Exit(code)


@app.command()
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
    with _errors():
        from maskrcnn.data.open import open_dataset  # noqa: PLC0415
        from maskrcnn.evaluation.evaluate import check_outputs  # noqa: PLC0415
        from maskrcnn.evaluation.evaluate import evaluate as run_evaluation  # noqa: PLC0415

        check_outputs(output, overwrite=force)
        pictures = open_dataset(dataset, None, format_, None, class_attribute, skip_bad=skip_bad)
        predictor = _predictor(model, config, device, score_threshold)
        found = run_evaluation(predictor, pictures, limit=limit, progress=report.pictures)
        found.write(output, worst=worst, overwrite=force)
        report.evaluation(found)
        report.written(output)


def _predictor(model: Path, config: str | None, device: str, score_threshold: float) -> Any:
    """What predicts: the Keras model of a checkpoint, or an artifact in its engine."""
    if model.suffix != ".h5":
        if model.is_dir():
            import_tensorflow()  # a SavedModel's engine
        from runtime.predictor import Predictor  # noqa: PLC0415

        return Predictor(model, device, score_threshold=score_threshold)
    report.progress("loading TensorFlow and the checkpoint")
    import_tensorflow()
    from maskrcnn.checkpoint import load_checkpoint  # noqa: PLC0415
    from maskrcnn.evaluation.predict import CheckpointPredictor  # noqa: PLC0415
    from maskrcnn.samples import find_config  # noqa: PLC0415

    network, _ = load_checkpoint(model, None if config is None else find_config(config))
    return CheckpointPredictor(network, score_threshold)


@data.command()
def check(
    dataset: DatasetPath,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the pictures.")] = None,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    rows: Annotated[bool, typer.Option("--all", help="Every finding, not the first of each kind.")] = False,
) -> None:
    """Find what is wrong with a data set, before hours are spent on it."""
    with _errors():
        from maskrcnn.data.check import check_dataset  # noqa: PLC0415

        code = report.findings(dataset, check_dataset(dataset, images, format_, None, class_attribute), rows)
    raise typer.Exit(code)


@data.command()
def shapes(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other pictures.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older folder of shapes.")] = False,
) -> None:
    """Write pictures of squares, circles and triangles with their annotations as COCO JSON."""
    with _errors():
        from maskrcnn.data.shapes import write_shapes  # noqa: PLC0415

        report.written(write_shapes(folder, count, seed, overwrite=force))


@contextmanager
def _errors() -> Iterator[None]:
    """One line on stderr and an exit code for every error raised on purpose."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).split(".")[0]
        _fail(MissingPackageError(package, "train", "training"), 3)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        _fail(error, code)


def _fail(error: Exception, code: int) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(code) from None
