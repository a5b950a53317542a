"""After each epoch: losses and COCO average precision of the validation pictures."""

from functools import cached_property

import keras

from maskrcnn.data.batches import validation_batches
from maskrcnn.data.records import Dataset
from maskrcnn.training.judging import Judge
from maskrcnn.training.progress import Logs
from maskrcnn.training.run import Run

# What decides which epoch was best: the first of these that the epoch has; a loss counts negative.
SCORES = ("val_segm_ap", "val_loss")


class Validation(keras.callbacks.Callback):
    """Adds "val_..." to the logs of an epoch, of the weights that are kept.

    Args:
        run: With a data set to validate on.
        judge: Gives the scores.
        every: Epochs from one judgement to the next; 0 leaves the scores out. The last epoch is always judged.
    """

    def __init__(self, run: Run, judge: Judge, every: int) -> None:
        super().__init__()
        self._run, self._judge, self._every = run, judge, every

    @cached_property
    def _epochs(self) -> int:
        return sum(stage.epochs for stage in self._run.config.training.stages)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Validate; `logs` is shared with the callbacks that follow."""
        run = self._run
        if logs is None or run.validation is None:
            return
        due = self._every and ((epoch + 1) % self._every == 0 or epoch + 1 == self._epochs)
        with run.final_weights():
            if run.config.training.validation_steps:
                logs.update({f"val_{name}": value for name, value in self._losses(run.validation).items()})
            if due:
                logs.update({f"val_{name}": value for name, value in self._judge.scores(run.validation).items()})

    def _losses(self, dataset: Dataset) -> Logs:
        size = self._run.plan.batch_size
        batches = validation_batches(self._run.config, dataset, size)
        steps = min(self._run.config.training.validation_steps, max(1, len(dataset) // size))
        losses: Logs = self.model.evaluate(batches, steps=steps, verbose=0, return_dict=True)
        return losses


def score_of(logs: Logs) -> float | None:
    """What an epoch is judged by, higher is better; None where it was not validated."""
    for name in SCORES:
        if name in logs:
            return -logs[name] if name.endswith("loss") else logs[name]
    return None
