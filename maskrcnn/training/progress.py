"""How far a run has come: what is not in its weights."""

from dataclasses import asdict, dataclass, field
from typing import Any

Logs = dict[str, float]


@dataclass
class Progress:
    """Counters of a run, over all its stages.

    Attributes:
        step: Batches that have been learnt from.
        stage: Index of the stage that the optimizer belongs to.
        history: Means of each finished epoch; their number is the number of finished epochs.
        best: Highest score so far.
        best_epoch: Index of its epoch.
        waited: Epochs with a score since then.
        stopped: The score has not risen for too long: the run is over.
    """

    step: int = 0
    stage: int = 0
    history: list[Logs] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    stopped: bool = False

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def judge(self, score: float | None, patience: int | None) -> bool:
        """Take an epoch's score into account; None for an epoch that has none.

        Args:
            score: Higher is better.
            patience: Epochs with a score, but without a better one, after which the run ends; None never ends it.

        Returns:
            Whether it is the best so far.
        """
        if score is None:
            return False
        if self.best is None or score > self.best:
            self.best, self.best_epoch, self.waited = score, self.epochs, 0
            return True
        self.waited += 1
        self.stopped = patience is not None and self.waited >= patience
        return False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `Progress(**values)` is the inverse."""
        return asdict(self)
