"""What the callbacks of a run share: its files, its counters, its model and its images."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras

from maskrcnn.configuration.model import Config
from maskrcnn.data.batch_errors import BatchErrors
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.records import Dataset
from maskrcnn.model import MaskRCNN
from maskrcnn.training.average import WeightAverage

Logs = dict[str, float]


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files in a run folder.

    Attributes:
        path: The folder.
        config: The configuration, which resuming reads.
        state: Everything else that resuming needs.
        last: Checkpoint of the last finished epoch.
        best: Checkpoint of the epoch with the highest score.
        history: Losses and scores of each epoch.
        tensorboard: Folder of the logs for TensorBoard.
        validation: Folder of the validation data that were set apart from the training data, as a dataset.
    """

    path: Path
    config: Path = field(init=False)
    state: Path = field(init=False)
    last: Path = field(init=False)
    best: Path = field(init=False)
    history: Path = field(init=False)
    tensorboard: Path = field(init=False)
    validation: Path = field(init=False)

    def __post_init__(self) -> None:
        names = ("config.json", "state.h5", "last.weights.h5", "best.weights.h5", "history.json", "tensorboard", "val")
        for each, name in zip(fields(self)[1:], names, strict=True):
            object.__setattr__(self, each.name, self.path / name)

    def epoch(self, epoch: int) -> Path:
        """Return the checkpoint of one epoch, counted from 1."""
        return self.path / f"epoch-{epoch:04d}.weights.h5"


@dataclass
class RunCounters:
    """How far a run has come, counted over all its phases. Stored in the state; `RunCounters(**dict)` reads it back.

    Attributes:
        step: Batches trained on.
        phase: Index of the training phase that the optimizer was made for.
        history: Mean losses and scores of each finished epoch.
        best: Highest score so far.
        best_epoch: Index of the epoch with that score.
        waited: Scored epochs since then.
        stopped: Whether early stopping has ended the run.
    """

    step: int = 0
    phase: int = 0
    history: list[Logs] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    stopped: bool = False

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def add_score(self, score: float | None, patience: int | None) -> bool:
        """Count an epoch's score (higher is better; None if it has none) and return whether it is the best so far."""
        if score is None:
            return False
        if self.best is None or score > self.best:
            self.best, self.best_epoch, self.waited = score, self.epochs, 0
            return True
        self.waited += 1
        self.stopped = patience is not None and self.waited >= patience
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return asdict(self)


@dataclass
class Run:
    """Everything that belongs to a run in progress.

    Attributes:
        network: The model whose weights are trained.
        model: The same network with its losses, as `fit` takes it.
        plan: The images of each step.
        average: Running mean of the weights, if the configuration asks for one.
        writes: Whether this process writes the files; with several workers, only one does.
        batch_errors: Errors raised while batches are made.
        split: How the validation images were set apart, see `TrainOptions`.
    """

    config: Config
    network: MaskRCNN
    model: keras.Model
    plan: BatchPlan
    validation: Dataset | None
    folder: RunFolder
    counters: RunCounters
    average: WeightAverage | None = None
    writes: bool = True
    batch_errors: BatchErrors = field(default_factory=BatchErrors)
    split: str | None = None

    @contextmanager
    def final_weights(self) -> Iterator[None]:
        """Give the network the weights to evaluate and save: their mean, if there is one."""
        with self.average.applied() if self.average is not None else nullcontext():
            yield
