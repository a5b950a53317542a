"""`train`: turn a configuration and a dataset into a run folder with checkpoints, using `keras.Model.fit`."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.checkpoints.open_weights import Weights
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import Precision, TrainingConfig
from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.balance import FACTOR_UNIT
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.records import Dataset, combine, require_objects
from maskrcnn.data.writers.coco import write_coco
from maskrcnn.errors import TrainingError
from maskrcnn.model import MaskRCNN
from maskrcnn.runs.folder_lock import locked
from maskrcnn.runs.interruption import Interruption, RunInterruptedError
from maskrcnn.training.average import WeightAverage
from maskrcnn.training.evaluator import Evaluator
from maskrcnn.training.initialize import initialize
from maskrcnn.training.model import TrainingModel
from maskrcnn.training.optimizer import short_phases
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.phases import run_phases
from maskrcnn.training.run import Logs, Run, RunCounters, RunFolder
from maskrcnn.training.saving import EpochFinisher, StateSaver, StepCounter
from maskrcnn.training.snapshot import restore_weights, run_facts
from maskrcnn.training.state import State, load_state
from maskrcnn.training.strategies import find_strategy
from maskrcnn.training.tensorboard import TensorBoardLog
from maskrcnn.training.validation import Validation, measure_of
from maskrcnn.training.workers import Fact, agree, losses_named, together, worker_count, worker_index
from runtime.atomic import atomic_write
from runtime.one_line import count_of

Ending = Literal["finished", "early stopping", "interrupted"]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        network: The network with the weights of the last step (their mean, if the configuration asks for one).
        folder: Paths of the files written.
        history: Losses and scores of each epoch.
        best_score: Highest validation score; None without one.
        best_epoch: Index of the epoch with that score.
        ended: Why the run ended.
        signal: Number of the signal that interrupted it.
    """

    network: MaskRCNN
    folder: RunFolder
    history: tuple[Logs, ...]
    best_score: float | None
    best_epoch: int | None
    ended: Ending
    signal: int | None = None


def train(  # noqa: PLR0913
    config: Config,
    dataset: Dataset,
    validation: Dataset | None = None,
    *,
    output: str | Path,
    init: str | Path | Weights | None = None,
    resume: bool | Literal["auto"] = False,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainOptions | None = None,
    augment: Callable[..., Any] | None = None,
) -> TrainingResult:
    """Train a Mask R-CNN.

    The classes are those of the dataset, in the order of the configuration if it has the same ones. All randomness
    follows from `config.training.seed`: on the CPU, a run that was interrupted (even killed) and resumed ends with the
    same weights as one that was not. Ctrl-C and SIGTERM end the run after the current step and save the state.

    Args:
        config: The model and how to train it.
        dataset: Training images.
        validation: Validation images, which choose the best checkpoint by mask AP. Without them, each checkpoint
            counts as better than the one before.
        output: The run folder, with `config.json`, `state.h5`, `last.weights.h5`, `best.weights.h5`, `history.json`
            and `tensorboard/`.
        init: Weights to start from, see `initialize`; opened ones for a PyTorch checkpoint with class names or a
            configuration of its own. Not read when a run is resumed.
        resume: True resumes the run in `output`; "auto" does so if there is one.
        strategy: Devices to train on; by default all GPUs of this machine, or the machines of `TF_CONFIG`. Each
            device takes `batch_size` images per step.
        options: How the run is monitored and saved.
        augment: Called in training with (image, boxes, masks) or (image, boxes, masks, class_ids); returns the same,
            changed. `image` is uint8 [H, W, C] as read; `boxes` float32 [N, 4] x1, y1, x2, y2 in image pixels;
            `masks` bool [N, H, W]; `class_ids` int32 [N], negative for crowds. A parameter named `rng` gets a NumPy
            generator that follows from the seed. All are copies. The image may have another size afterward, and an
            object without a pixel in its mask is dropped. Boxes are only checked, and may be None: training takes those
            of the masks. It is called from several threads, before `config.training.augmentation` is applied.

    Returns:
        The trained network and what the run wrote.

    Raises:
        TrainingError: The run cannot start, or cannot be resumed with these arguments; or `augment` failed.
        ArgumentError: `augment` cannot be called in this way.
        NonFiniteLossError: A loss became NaN or infinite.
        WorkerLostError: Another machine of the run is gone.
        DatasetError, ImageError: Annotations or an image cannot be used; the state saved last is kept.
        CheckpointError: `init` or the state cannot be used.
        ConfigError: Settings that contradict each other.
        OutputError: The folder cannot be written, or another run uses it.
    """
    options = options or TrainOptions()
    strategy = strategy or find_strategy()
    folder = RunFolder(Path(output))
    hook = augment if augment is None or isinstance(augment, AugmentHook) else AugmentHook(augment)
    names = _class_names(config, dataset)
    config = replace(config, model=replace(config.model, class_names=names))
    config.training.weights_of(names)
    dataset = combine((dataset,), names)
    _say_left_out(names, validation, options)
    validation = None if validation is None else combine((validation,), names)
    for sentence in short_phases(config.training):
        options.progress(sentence)
    writes = worker_index(strategy) == 0
    with losses_named(strategy), ExitStack() as stack:
        together(strategy, lambda: require_objects(dataset, *([] if validation is None else [validation])))
        state = together(strategy, lambda: _take_folder(folder, resume, stack, writes))
        plan = together(strategy, lambda: _plan_batches(config.training, dataset, strategy, hook))
        _say_repeats(plan, options)
        _say_coarse(config, options)
        several = worker_count(strategy) > 1
        if several:
            agree(strategy, _starting_facts(run_facts(config, plan, validation), folder, state))
        _make_repeatable(config.training.seed)
        with strategy.scope(), layer_precision(config.training.precision):
            run = _build(config, plan, validation, folder, options)
            run.writes, run.split = writes, options.split
            if state is None:
                report = together(strategy, lambda: initialize(run.network, init, config.training.seed))
                options.progress(f"weights: {report if report.loaded else 'random'}")
            if config.training.ema_momentum is not None:
                run.average = WeightAverage(run.network, config.training.ema_momentum)
        if several and state is None:
            agree(strategy, _initial_facts(run, init))
        if state is not None:
            restore_weights(run, state)
            options.progress(
                f"resuming after {count_of(run.counters.step, 'step')}, {count_of(run.counters.epochs, 'epoch')}"
            )
        elif run.writes:
            with atomic_write(folder.config, overwrite=True) as temporary:
                temporary.write_text(config.to_json(), encoding="utf-8")
            if options.split is not None and validation is not None:
                write_coco({"annotations": validation}, folder.validation, overwrite=True)
        return _fit(run, state, options)


def _plan_batches(
    training: TrainingConfig, dataset: Dataset, strategy: tf.distribute.Strategy, hook: AugmentHook | None
) -> BatchPlan:
    size = training.batch_size * strategy.num_replicas_in_sync
    return BatchPlan(dataset, size, training.seed, hook=hook, repeat_threshold=training.repeat_threshold)


def _say_repeats(plan: BatchPlan, options: TrainOptions) -> None:
    """Say how much more often the images with rare classes are used."""
    if plan.repeats is None:
        return
    names = plan.dataset.class_names
    rare = [f"{names[i]} {factor:.3g} times" for i, factor in plan.class_factors.items() if factor > 1]
    options.progress(
        f"balanced sampling: {', '.join(rare)} as often, "
        f"{plan.repeats.sum() / FACTOR_UNIT:.0f} images per pass instead of {len(plan.dataset)}"
        if rare
        else "balanced sampling: no class is rare enough to be repeated"
    )


def _say_coarse(config: Config, options: TrainOptions) -> None:
    """Say if the masks in memory are too coarse for the targets of a mask head with two transposed convolutions."""
    side, mini = config.model.mask_size, config.training.mini_mask_size
    if config.model.mask_head_deconvolutions == 2 and mini is not None and min(mini) < 2 * side:
        options.progress(
            f"objects are held as masks of {mini[0]} x {mini[1]}, coarse for targets of {side} x {side}: "
            f"training.mini_mask_size=[{2 * side},{2 * side}] keeps their detail"
        )


def _take_folder(folder: RunFolder, resume: bool | Literal["auto"], stack: ExitStack, writes: bool) -> State | None:
    """Lock the run folder, if this process writes to it, until `stack` ends; return the state to resume from."""
    check_state(folder, resume)  # before the lock, which makes the folder
    if writes:
        stack.enter_context(locked(folder.path, "train"))
    return load_state(folder.state) if check_state(folder, resume) else None


def check_state(folder: RunFolder, resume: bool | Literal["auto"]) -> bool:
    """Return whether there is a state to resume from."""
    exists = folder.state.exists()
    if exists and not resume:
        raise TrainingError(
            f"{folder.path} already holds a run: resume it with --resume (resume=True), or give another folder"
        )
    if resume is True and not exists:
        raise TrainingError(f"there is no run to resume in {folder.path}: it has no {folder.state.name}")
    return exists


def _starting_facts(facts: Mapping[str, Any], folder: RunFolder, state: State | None) -> dict[str, Fact]:
    """Return what all machines must have in common before anything is built."""
    images = ", ".join(f"{name}: {value}" for name, value in facts["images"].items())
    step = "no state" if state is None else f"step {state.facts['counters']['step']}, SHA-256 {state.digest()}"
    has = (
        "does not exist" if state is None else f"is the state after {count_of(state.facts['counters']['step'], 'step')}"
    )
    return {
        "state": Fact(
            step,
            f"{folder.state} {has}, and worker 0 does not start from the same: all workers need one run folder, on a "
            "file system that they share",
        ),
        "configuration": Fact(
            json.dumps(facts["config"], sort_keys=True),
            "its configuration is not that of worker 0: start all workers with the same command",
        ),
        "augmentation": Fact(
            json.dumps(facts["augmentation"]),
            f"its augmentation ({facts['augmentation']}) is not that of worker 0: give all the same",
        ),
        "list of images": Fact(images, f"its images ({images}) are not those of worker 0: give all the same datasets"),
    }


def _initial_facts(run: Run, init: str | Path | Weights | None) -> dict[str, Fact]:
    """Return a digest of the initial weights, which each machine has read from a file of its own."""
    name = init.path if isinstance(init, Weights) else init
    differs = f"its initial weights ({name or 'random'}) are not those of worker 0: give all the same file"
    return {"set of initial weights": Fact(State(get_arrays(run.network), {}).digest(), differs)}


def _say_left_out(names: tuple[str, ...], validation: Dataset | None, options: TrainOptions) -> None:
    other = [] if validation is None else [name for name in validation.class_names if name not in names]
    if other:
        options.progress(f"validation: the classes {', '.join(other)} are not in the training data and are left out")


def _class_names(config: Config, dataset: Dataset) -> tuple[str, ...]:
    ours, theirs = config.model.class_names, dataset.class_names
    return ours if set(ours) == set(theirs) else theirs


def _make_repeatable(seed: int) -> None:
    """Set every global seed; on the CPU, also make TensorFlow's operations repeatable until the process ends.

    Without the latter, the gradient of sampled features is summed in an order that sometimes changes the last bit. On
    the CPU it costs nothing measurable. On a GPU some operations would become slow or be refused, so runs on a GPU
    repeat up to such rounding.
    """
    keras.utils.set_random_seed(seed)
    if not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


@contextmanager
def layer_precision(name: Precision) -> Iterator[None]:
    """Give this precision to layers that are built inside a `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build(
    config: Config, plan: BatchPlan, validation: Dataset | None, folder: RunFolder, options: TrainOptions
) -> Run:
    backbone = None if options.build_backbone is None else options.build_backbone()
    network = MaskRCNN(config, backbone)
    return Run(config, network, TrainingModel(network), plan, validation, folder, RunCounters())


def _fit(run: Run, state: State | None, options: TrainOptions) -> TrainingResult:
    interruption, evaluator = Interruption(), Evaluator(run.network)
    measure = measure_of(run.config, run.validation, options.evaluate_every)
    log = TensorBoardLog(run, evaluator, options.log_steps) if options.tensorboard and run.writes else None
    callbacks = [
        StepCounter(run),
        Validation(run, evaluator, options.evaluate_every),
        *([] if log is None else [log]),
        *options.callbacks,
        EpochFinisher(run, measure, options.patience, options.keep),
        StateSaver(run, interruption, options.state_steps),
    ]
    ended: Ending = "finished"
    try:
        with interruption.watched():
            run_phases(run, callbacks, state, options.verbose if run.writes else 0)
    except RunInterruptedError:
        ended = "interrupted"
    finally:
        if log is not None:
            log.close()
    counters = run.counters
    if counters.stopped:
        ended = "early stopping"
    if run.average is not None:
        run.average.overwrite()
    history = tuple(counters.history)
    return TrainingResult(
        run.network, run.folder, history, counters.best, counters.best_epoch, ended, interruption.signal
    )
