"""A run while it lasts: what its callbacks share."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import keras

from maskrcnn.checkpoints.matterport_h5 import Arrays
from maskrcnn.configuration.model import Config
from maskrcnn.data.batch_errors import BatchErrors
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.records import Dataset
from maskrcnn.model import MaskRCNN
from maskrcnn.training.average import WeightAverage
from maskrcnn.training.progress import Progress


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration, for people and for `resume`."""
        return self.path / "config.json"

    @property
    def state(self) -> Path:
        """What the run goes on from."""
        return self.path / "state.h5"

    @property
    def last(self) -> Path:
        """Checkpoint of the last finished epoch."""
        return self.path / "last.weights.h5"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the highest score."""
        return self.path / "best.weights.h5"

    @property
    def history(self) -> Path:
        """Losses and scores of each epoch."""
        return self.path / "history.json"

    @property
    def tensorboard(self) -> Path:
        """Folder for TensorBoard."""
        return self.path / "tensorboard"

    def epoch(self, epoch: int) -> Path:
        """Checkpoint of one epoch, counted from 1."""
        return self.path / f"epoch-{epoch:04d}.weights.h5"


@dataclass
class Run:
    """What a run consists of.

    Attributes:
        config: What is trained, and how.
        network: Whose weights learn.
        model: The same with its losses, as `fit` takes it.
        plan: Pictures of each step.
        validation: Pictures to judge by.
        folder: Where it is kept.
        progress: How far it has come.
        average: Mean of the weights, where the configuration asks for one.
        writes: Whether this process writes the files; of several workers only one does.
        batch_errors: What its batches failed with.
    """

    config: Config
    network: MaskRCNN
    model: keras.Model
    plan: BatchPlan
    validation: Dataset | None
    folder: RunFolder
    progress: Progress
    average: WeightAverage | None = None
    writes: bool = True
    batch_errors: BatchErrors = field(default_factory=BatchErrors)

    @contextmanager
    def final_weights(self) -> Iterator[None]:
        """Put those weights into the network that are judged and kept: the mean, where there is one."""
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def mean_arrays(self) -> Arrays:
        """The mean of the weights by name; empty without one."""
        return {} if self.average is None else self.average.get()
