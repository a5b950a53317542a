"""`maskrcnn train`."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import ClassAttribute, ConfigFile, DatasetPaths, Format, SkipBad
from maskrcnn.tensorflow_import import import_tensorflow


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
    with failures("train", "maskrcnn train"):
        console.progress("loading TensorFlow")
        import_tensorflow(touch_devices="TF_CONFIG" not in os.environ)
        from maskrcnn.data.readers.open import open_datasets  # noqa: PLC0415
        from maskrcnn.training.plan import plan_run  # noqa: PLC0415
        from maskrcnn.training.train import train as run_training  # noqa: PLC0415

        chosen, options = plan_run(config, init, output if resume else None, layers, epochs, settings or [])
        read = partial(open_datasets, format=format_, class_attribute=class_attribute, skip_bad=skip_bad)
        pictures, judged = read(datasets), read(val) if val else None
        console.datasets(pictures, judged)
        result = run_training(
            chosen,
            pictures,
            judged,
            output=output,
            init=init,
            resume="auto" if resume else False,
            options=options(console.progress),
        )
        code = console.training(result)
    raise typer.Exit(code)
