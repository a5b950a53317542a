"""`train`: from a configuration and pictures to a run folder with checkpoints, on `keras.Model.fit`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from maskrcnn.configuration.model import Config
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.records import Dataset, combine
from maskrcnn.errors import TrainingError
from maskrcnn.interruption import Interruption, RunInterruptedError
from maskrcnn.model import MaskRCNN
from maskrcnn.training.average import WeightAverage
from maskrcnn.training.determinism import make_repeatable
from maskrcnn.training.initialize import initialize
from maskrcnn.training.judging import Judge
from maskrcnn.training.keeping import EpochKeeper
from maskrcnn.training.model import TrainingModel
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.progress import Logs, Progress
from maskrcnn.training.run import Run, RunFolder
from maskrcnn.training.saving import StateSaver
from maskrcnn.training.snapshot import restore_progress
from maskrcnn.training.stages import run_stages
from maskrcnn.training.state import State, load_state
from maskrcnn.training.steps import StepCallback
from maskrcnn.training.strategies import find_strategy, writes_files
from maskrcnn.training.tensorboard import TensorBoardLog
from maskrcnn.training.validation import Validation, measure_of
from runtime.atomic import atomic_write

Ending = Literal["finished", "early stopping", "interrupted"]


@dataclass(frozen=True)
class TrainingResult:
    """What a run has come to.

    Attributes:
        network: With the weights of the last step (their mean, where the configuration asks for one).
        folder: Paths of what was written.
        history: Losses and scores of each epoch.
        best_score: Highest validation score; None without one.
        best_epoch: Its index.
        ended: Why the run is over.
        signal: Number of the signal that interrupted it.
    """

    network: MaskRCNN
    folder: RunFolder
    history: tuple[Logs, ...]
    best_score: float | None
    best_epoch: int | None
    ended: Ending
    signal: int | None = None


def train(
    config: Config,
    dataset: Dataset,
    validation: Dataset | None = None,
    *,
    output: str | Path,
    init: str | Path | None = None,
    resume: bool | Literal["auto"] = False,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainOptions | None = None,
) -> TrainingResult:
    """Train a Mask R-CNN.

    The classes are those of the data set, in the order of the configuration if it has the same. All randomness follows
    from `config.training.seed`: on the CPU a run that was stopped, even by a kill, and resumed ends with the weights
    of one that was not. Ctrl-C and SIGTERM end the run after its step, with the state saved.

    Args:
        config: What to train, and how.
        dataset: Pictures to learn from.
        validation: Pictures to judge by, by mask AP; without them each checkpoint counts as better than the one before.
        output: The run's folder: `config.json`, `state.h5`, `last.weights.h5`, `best.weights.h5`, `history.json`,
            `tensorboard/`.
        init: What to start from, see `initialize`. Not read when a run is resumed.
        resume: True goes on with the run in `output`, "auto" does so if there is one.
        strategy: Devices; by default all GPUs of this machine, or the machines of `TF_CONFIG`. Each learns from
            `batch_size` pictures per step.
        options: How the run is watched and kept.

    Raises:
        TrainingError: The run cannot start, or is not the one to be resumed.
        NonFiniteLossError: A loss became NaN or infinite.
        DatasetError, ImageError: Annotations or a picture cannot be used; the state that was saved last is kept.
        CheckpointError: `init` or the state cannot be used.
        ConfigError: Settings that contradict each other.
        OutputError: The folder cannot be written.
    """
    options = options or TrainOptions()
    strategy = strategy or find_strategy()
    folder = RunFolder(Path(output))
    state = _find_state(folder, resume)
    names = _class_names(config, dataset)
    config = replace(config, model=replace(config.model, class_names=names))
    dataset = combine((dataset,), names)
    validation = None if validation is None else combine((validation,), names)
    make_repeatable(config.training.seed)
    with strategy.scope(), _precision(config.training.precision):
        run = _build(config, dataset, validation, folder, options)
        run.writes = writes_files(strategy)
        if state is None:
            report = initialize(run.network, init, config.training.seed)
            options.progress(f"weights: {report if report.loaded else 'random'}")
        if config.training.ema_momentum is not None:
            run.average = WeightAverage(run.network, config.training.ema_momentum)
    if state is not None:
        restore_progress(run, state)
        options.progress(f"resuming after {run.progress.step} steps, {run.progress.epochs} epochs")
    elif run.writes:
        with atomic_write(folder.config, overwrite=True) as temporary:
            temporary.write_text(config.to_json(), encoding="utf-8")
    return _fit(run, state, options)


def _find_state(folder: RunFolder, resume: bool | Literal["auto"]) -> State | None:
    exists = folder.state.exists()
    if exists and not resume:
        raise TrainingError(
            f"{folder.path} holds a run already: go on with --resume (resume=True), or give another folder"
        )
    if resume is True and not exists:
        raise TrainingError(f"there is no run to resume in {folder.path}: it has no {folder.state.name}")
    return load_state(folder.state) if exists else None


def _class_names(config: Config, dataset: Dataset) -> tuple[str, ...]:
    ours, theirs = config.model.class_names, dataset.class_names
    return ours if set(ours) == set(theirs) else theirs


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Make layers compute in `name` while they are built."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build(
    config: Config, dataset: Dataset, validation: Dataset | None, folder: RunFolder, options: TrainOptions
) -> Run:
    backbone = None if options.build_backbone is None else options.build_backbone()
    network = MaskRCNN(config, backbone)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    plan = BatchPlan(dataset, config.training.batch_size * replicas, config.training.seed)
    return Run(config, network, TrainingModel(network), plan, validation, folder, Progress())


def _fit(run: Run, state: State | None, options: TrainOptions) -> TrainingResult:
    interruption, judge = Interruption(), Judge(run.network)
    measure = measure_of(run.config, run.validation, options.evaluate_every)
    log = TensorBoardLog(run, judge, options.log_steps) if options.tensorboard and run.writes else None
    callbacks = [
        StepCallback(run),
        Validation(run, judge, options.evaluate_every),
        *([] if log is None else [log]),
        *options.callbacks,
        EpochKeeper(run, measure, options.patience, options.keep),
        StateSaver(run, interruption, options.state_steps),
    ]
    ended: Ending = "finished"
    try:
        with interruption.watched():
            run_stages(run, callbacks, state, options.verbose if run.writes else 0)
    except RunInterruptedError:
        ended = "interrupted"
    finally:
        if log is not None:
            log.close()
    progress = run.progress
    if progress.stopped:
        ended = "early stopping"
    if run.average is not None:
        run.average.overwrite()
    history = tuple(progress.history)
    return TrainingResult(
        run.network, run.folder, history, progress.best, progress.best_epoch, ended, interruption.signal
    )
