"""`maskrcnn train`."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from maskrcnn.checkpoints.pretrained import PRETRAINED
from maskrcnn.commands import console, shared
from maskrcnn.commands.completion import words, words_or_files
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import CONFIG_KINDS, DATASET_KINDS, advanced
from maskrcnn.commands.train_job import TrainJob
from maskrcnn.configuration.samples import SAMPLES
from maskrcnn.data.readers.options import Grouping, ReadOptions
from maskrcnn.errors import ArgumentError, DatasetError
from maskrcnn.runs.default_folder import folders, new_folder
from maskrcnn.training.cluster import TF_CONFIG, ClusterKind, join_cluster

if TYPE_CHECKING:
    from maskrcnn.data.split import SplitOptions

_MACHINES = "Several machines"


def train(  # noqa: PLR0913  (one argument per option)
    datasets: Annotated[
        list[Path], Argument(metavar="DATASET", help=f"Training data, one or more of: {DATASET_KINDS}.")
    ],
    *,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Run folder: checkpoints, history and state.",
            show_default="runs/train",
        ),
    ] = None,
    val: Annotated[
        list[str] | None,
        Option(
            metavar="DATASET|SHARE",
            help="Validation data, may be repeated; or the share of the images to set apart for it, such as 0.2.",
            show_default="the part of DATASET called val, if it has one",
        ),
    ] = None,
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
            autocompletion=words_or_files(*SAMPLES),
            help=f"Configuration: {CONFIG_KINDS}; for an initial PyTorch checkpoint also a YAML of Detectron2 or a "
            "Python file of MMDetection.",
            show_default="that of the resumed run or the --init checkpoint",
        ),
    ] = None,
    init: Annotated[
        str | None,
        Option(
            metavar="FILE|NAME",
            autocompletion=words_or_files(*shared.WORDS_OF_INIT, *PRETRAINED),
            help="Initial weights: one of our .weights.h5, a matterport .h5, a .pth, .pkl or .safetensors of "
            "torchvision, Detectron2 or MMDetection, a ResNet .h5 of Keras applications, or a name: "
            "imagenet, demo, coco or another of `maskrcnn weights list`.",
            show_default="random",
        ),
    ] = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    resume: Annotated[
        bool, Option("--resume", help="Resume the run in the output folder, or the newest in runs, if there is one.")
    ] = False,
    cluster: Annotated[
        ClusterKind | None,
        Option(
            metavar="auto",
            help="Train together with the workers in TF_CONFIG, else with the other tasks of this Slurm job step.",
            show_default="TF_CONFIG alone",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        Option(
            metavar="auto|local|HOST:PORT",
            autocompletion=words("auto", "local"),
            help="Train on a Ray cluster: of this machine, started on it, or elsewhere.",
            show_default="this process",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, metavar="N", help="Workers on the Ray cluster.", rich_help_panel=_MACHINES)
    ] = None,
    max_failures: Annotated[
        int | None,
        Option(
            min=0,
            metavar="N",
            help="Lost workers after which Ray gives up; until then it starts all again, and they resume.",
            show_default="3",
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
    augment_with: shared.AugmentWith = None,
    group: shared.GroupOfValidation = None,
    val_seed: Annotated[
        int | None, advanced(min=0, metavar="N", help="Seed of the split by --val SHARE.", show_default="0")
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
    with failures("train"), _run_folder(output, resume, several=cluster is not None) as (folder, begun):
        data, validation, split = _validation(datasets, val or [], group, val_seed)
        job = TrainJob(
            datasets=data,
            output=folder,
            validation=validation,
            images=tuple(images or ()),
            validation_images=tuple(val_images or (images or () if validation and not val else ())),
            config=config,
            init=init,
            family=family,
            class_names=class_names,
            resume=resume,
            settings=(*(settings or ()), *pixel_settings),
            layers=layers,
            epochs=epochs,
            format=format_,
            class_attribute=class_attribute,
            skip_bad=skip_bad,
            options=ReadOptions(by_name, boxes_as_masks, mask_values, encoding),
            augment_with=augment_with,
            split=split,
        )
        if ray is None:
            if workers is not None or max_failures is not None:
                raise ArgumentError("--workers and --max-failures are for a Ray cluster: add --ray local")
            if cluster is not None:
                join_cluster(os.environ)
            code = job.run(begun=begun)
        else:
            if workers is None or cluster is not None:
                raise ArgumentError("--ray needs --workers and replaces --cluster: give the number of workers")
            begun()
            code = _train_on_ray(job, ray, workers, 3 if max_failures is None else max_failures)
    raise Exit(code)


def _validation(
    datasets: list[Path], val: list[str], group: Grouping | None, seed: int | None
) -> "tuple[tuple[Path, ...], tuple[Path, ...], SplitOptions | None]":
    """Return the training data, the validation data, and how to split if that is to be set apart."""
    from maskrcnn.data.readers.parts import dataset_parts  # noqa: PLC0415
    from maskrcnn.data.split import TEST, TRAIN, VAL, SplitOptions  # noqa: PLC0415

    share = _share(val[0]) if len(val) == 1 else None
    if share is None and (group is not None or seed is not None):
        raise ArgumentError("--group and --val-seed are for a split: add --val 0.2, or another share of the images")
    parts = dataset_parts(datasets[0]) if len(datasets) == 1 else {}
    if parts and val:
        raise ArgumentError(
            f"{datasets[0]} has a part for validation, {parts[VAL]}: leave out --val, or train on {parts[TRAIN]}"
        )
    if parts:
        unused = f"; {parts[TEST]} is left for a test" if TEST in parts else ""
        console.progress(f"training on {parts[TRAIN]}, validation on {parts[VAL]}{unused}")
        return (parts[TRAIN],), (parts[VAL],), None
    if share is None:
        return tuple(datasets), tuple(map(Path, val)), None
    try:
        return tuple(datasets), (), SplitOptions(share, seed=seed or 0, group=group)
    except DatasetError as error:
        raise ArgumentError(f"--val {val[0]}: {error}") from error


def _share(text: str) -> float | None:
    """Return the share of images that --val is, or None if it is a dataset."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if os.path.lexists(text) and not 0 < number < 1 else number


@contextmanager
def _run_folder(output: Path | None, resume: bool, *, several: bool) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Give the run folder, the one named, the newest for --resume, or a new one, and what says which it is."""
    if output is not None:
        yield output, lambda: None
        return
    if several or os.environ.get(TF_CONFIG):
        raise ArgumentError("several machines need one run folder, on a file system that they share: give it with -o")
    earlier = folders("train")[:1] if resume else []
    with nullcontext(earlier[0]) if earlier else new_folder("train") as folder:
        yield folder, partial(console.progress, f"{'resuming' if earlier else 'writing to'} {folder}")


def _train_on_ray(job: TrainJob, address: str, workers: int, max_failures: int) -> int:
    from maskrcnn.batch.cluster import StoppedError, connected, in_our_words, stopped_by_signals  # noqa: PLC0415
    from maskrcnn.training.on_ray import train_on_ray  # noqa: PLC0415
    from maskrcnn.training.run import RunFolder  # noqa: PLC0415

    with connected(address) as ray, stopped_by_signals():
        try:
            end = train_on_ray(ray, job.absolute(), workers, max_failures, exit_code, console.relay)
        except StoppedError as stopped:
            console.interrupted("interrupted: add --resume to the same command to resume from the state saved last")
            return 128 + int(stopped.args[0])
        except Exception as error:
            known = in_our_words(error, str(job.output))
            if known is error:
                raise
            raise known from error
    if end is None:
        folder = RunFolder(job.output)
        console.trained_elsewhere(folder, job.useful_next(folder))
        return 0
    console.error("TrainingError", end.sentence)
    return end.code
