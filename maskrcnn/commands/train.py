"""`maskrcnn train`."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option

from maskrcnn.commands import console, shared
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import CONFIG_KINDS, DATASET_KINDS, advanced
from maskrcnn.runs.folder_lock import locked
from maskrcnn.tensorflow_import import import_tensorflow
from maskrcnn.training.cluster import TF_CONFIG, ClusterKind, join_cluster

_MACHINES = "Several machines"


def train(  # noqa: PLR0913  (one argument per option)
    datasets: Annotated[
        list[Path], Argument(metavar="DATASET", help=f"Training data, one or more of: {DATASET_KINDS}.")
    ],
    *,
    output: Annotated[
        Path, Option("--output", "-o", metavar="FOLDER", help="Run folder: checkpoints, history and state.")
    ],
    val: Annotated[list[Path] | None, Option(metavar="DATASET", help="Validation data; may be repeated.")] = None,
    images: Annotated[
        list[Path] | None,
        Option(
            metavar="FOLDER",
            help="Folder of the images: one for each training dataset, or one for all; may be repeated.",
            show_default="found",
        ),
    ] = None,
    val_images: Annotated[
        list[Path] | None,
        Option(metavar="FOLDER", help="The same for the validation data.", show_default="found"),
    ] = None,
    config: Annotated[
        str | None,
        Option(
            metavar="FILE|SAMPLE",
            help=f"Configuration: {CONFIG_KINDS}; for an initial PyTorch checkpoint also a YAML of Detectron2 or a "
            "Python file of MMDetection.",
            show_default="that of the resumed run or the --init checkpoint",
        ),
    ] = None,
    init: Annotated[
        str | None,
        Option(
            metavar="FILE|imagenet|demo",
            help="Initial weights: one of our .weights.h5, a matterport .h5, a .pth, .pkl or .safetensors of "
            "torchvision, Detectron2 or MMDetection, a ResNet .h5 of Keras applications, ImageNet's, or the demo's.",
            show_default="random",
        ),
    ] = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    resume: Annotated[bool, Option("--resume", help="Resume the run in the output folder if there is one.")] = False,
    cluster: Annotated[
        ClusterKind | None,
        Option(
            metavar="auto",
            help="Train together with the workers in TF_CONFIG, else with the other tasks of this Slurm job step.",
            show_default="TF_CONFIG alone",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a setting, such as training.learning_rate=0.01 or run.patience=10; may be repeated.",
        ),
    ] = None,
    value_range: shared.ValueRange = None,
    bands: shared.Bands = None,
    layers: Annotated[
        str | None,
        advanced(
            metavar="LAYERS",
            help="Train a single phase, with these layers: heads, 3+, 4+, 5+, all, or a regular expression.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, advanced(min=1, metavar="N", help="Epochs of the training phase, if there is only one.")
    ] = None,
    format_: shared.Format = None,
    class_attribute: shared.ClassAttribute = None,
    skip_bad: shared.SkipBad = False,
    by_name: shared.ByName = False,
    boxes_as_masks: shared.BoxesAsMasks = False,
    mask_values: shared.MaskKinds = None,
    encoding: shared.Encoding = None,
) -> None:
    """Train a model on one or more datasets, with the classes of the datasets."""
    chosen_pixels = {"value_range": value_range, "bands": shared.band_numbers(bands)}
    pixel_settings = [
        f"pixels.{name}={json.dumps(value)}" for name, value in chosen_pixels.items() if value is not None
    ]
    with failures("train", "maskrcnn train"):
        if cluster is not None:
            join_cluster(os.environ)
        several = bool(os.environ.get(TF_CONFIG))
        # With several workers, nothing is refused before they are connected, so that all hear of it.
        if not several and output.is_dir():
            with locked(output, "train"):  # a folder in use is refused at once, not after the data is read
                pass
        wanted = [*(settings or []), *pixel_settings]
        settings_of_model = [setting for setting in wanted if not setting.startswith(shared.RUN_PREFIX)]
        choices = shared.choose(config, family, class_names, settings_of_model)
        opened = shared.open_start(init, choices) if not several and not resume else None
        console.progress("loading TensorFlow")
        import_tensorflow(touch_devices=not several)
        from maskrcnn.data.readers.open import open_datasets  # noqa: PLC0415
        from maskrcnn.data.readers.options import ReadOptions  # noqa: PLC0415
        from maskrcnn.training.plan import plan_run  # noqa: PLC0415
        from maskrcnn.training.run import RunFolder  # noqa: PLC0415
        from maskrcnn.training.strategies import find_strategy  # noqa: PLC0415
        from maskrcnn.training.train import train as run_training  # noqa: PLC0415
        from maskrcnn.training.workers import losses_named, together  # noqa: PLC0415

        read = partial(
            open_datasets,
            format=format_,
            class_attribute=class_attribute,
            skip_bad=skip_bad,
            options=ReadOptions(by_name, boxes_as_masks, mask_values, encoding),
            report=console.dataset_report,
        )

        def prepare() -> Any:
            resumes = resume and RunFolder(output).state.exists()
            start = opened or (init if resumes else shared.open_start(init, choices))
            plan = plan_run(config, start, output if resume else None, layers, epochs, wanted, console.progress)
            return start, plan, read(datasets, images=images), read(val, images=val_images) if val else None

        strategy = find_strategy()
        with losses_named(strategy):
            start, (chosen, options), training, validation = together(strategy, prepare)
        console.datasets(training, validation)
        result = run_training(
            chosen,
            training,
            validation,
            output=output,
            init=start,
            resume="auto" if resume else False,
            strategy=strategy,
            options=options,
        )
        code = console.training(result)
    raise Exit(code)
