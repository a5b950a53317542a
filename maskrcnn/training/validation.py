"""After each epoch: losses and COCO average precision of the validation pictures."""

from functools import cached_property, partial

import keras

from maskrcnn.configuration.model import Config
from maskrcnn.data.batches import validation_batches
from maskrcnn.data.records import Dataset
from maskrcnn.errors import TrainingError
from maskrcnn.training.judging import Judge
from maskrcnn.training.progress import Logs
from maskrcnn.training.run import Run
from maskrcnn.training.strategies import spread


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
        config, strategy = self._run.config, self.model.distribute_strategy
        devices = strategy.num_replicas_in_sync
        size = max(devices, min(self._run.plan.batch_size, len(dataset)) // devices * devices)
        steps = min(config.training.validation_steps, len(dataset) // size)
        if not steps:
            raise TrainingError(
                f"{dataset.name} has {len(dataset)} pictures: a validation loss needs one for each of {devices} devices"
            )
        errors = self._run.batch_errors
        batches = spread(strategy, partial(validation_batches, config, dataset, size, errors=errors))
        with errors.raised():
            losses: Logs = self.model.evaluate(batches, steps=steps, verbose=0, return_dict=True)
        return losses


def measure_of(config: Config, validation: Dataset | None, every: int) -> str | None:
    """What decides which epoch is best, the same for all epochs of a run: mask AP, else the loss, else nothing.

    Args:
        config: Says whether there are validation losses.
        validation: Pictures to judge by.
        every: Epochs from one COCO evaluation to the next; 0 for none.

    Returns:
        Its name in the logs of an epoch.

    Raises:
        TrainingError: Average precision is wanted of pictures without objects, which have none.
    """
    if validation is None:
        return None
    if every and not any(not each.crowd for record in validation.records for each in record.load_instances()):
        raise TrainingError(
            f"{validation.name} has no objects to validate with, so that there is no average precision: give pictures "
            "that have some, or set run.evaluate_every=0 to judge by the loss"
        )
    if every:
        return "val_segm_ap"
    return "val_loss" if config.training.validation_steps else None


def score_of(logs: Logs, measure: str) -> float | None:
    """The score of an epoch, higher is better; None where it was not validated."""
    value = logs.get(measure)
    return -value if value is not None and measure.endswith("loss") else value
