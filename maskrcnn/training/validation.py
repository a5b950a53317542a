"""After each epoch: losses and COCO average precision on the validation images."""

from functools import partial

import keras

from maskrcnn.configuration.model import Config
from maskrcnn.data.batches import validation_batches
from maskrcnn.data.records import Dataset
from maskrcnn.errors import TrainingError
from maskrcnn.training.evaluator import Evaluator
from maskrcnn.training.run import Logs, Run
from maskrcnn.training.strategies import spread


class Validation(keras.callbacks.Callback):
    """Adds the entries "val_..." to the logs of an epoch, for the weights that are saved.

    Args:
        every: Epochs between two COCO evaluations; 0 leaves them out. The last epoch is always evaluated.
    """

    def __init__(self, run: Run, evaluator: Evaluator, every: int) -> None:
        super().__init__()
        self._run, self._evaluator, self._every = run, evaluator, every

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Validate; `logs` is shared with the callbacks that follow."""
        run = self._run
        if logs is None or run.validation is None:
            return
        last = sum(phase.epochs for phase in run.config.training.stages)
        due = self._every and ((epoch + 1) % self._every == 0 or epoch + 1 == last)
        with run.final_weights():
            if run.config.training.validation_steps:
                logs.update({f"val_{name}": value for name, value in self._losses(run.validation).items()})
            if due:
                logs.update({f"val_{name}": value for name, value in self._evaluator.scores(run.validation).items()})

    def _losses(self, dataset: Dataset) -> Logs:
        config, strategy = self._run.config, self.model.distribute_strategy
        size = min(self._run.plan.batch_size, len(dataset))
        steps = min(config.training.validation_steps, len(dataset) // size)
        errors = self._run.batch_errors
        batches = spread(strategy, partial(validation_batches, config, dataset, size, errors=errors))
        with errors.raised():
            losses: Logs = self.model.evaluate(batches, steps=steps, verbose=0, return_dict=True)
        return losses


def measure_of(config: Config, validation: Dataset | None, every: int) -> str | None:
    """Return the entry of the logs that decides which epoch is best: mask AP, else the validation loss, else None.

    Args:
        every: Epochs between two COCO evaluations; 0 for none.

    Raises:
        TrainingError: Average precision is asked for, but the validation images have no objects.
    """
    if validation is None:
        return None
    if every and not any(not each.crowd for record in validation.records for each in record.load_instances()):
        raise TrainingError(
            f"{validation.name} has no objects to validate with, so average precision is undefined: give images that "
            "have objects, or set run.evaluate_every=0 to choose the best epoch by its loss"
        )
    if every:
        return "val_segm_ap"
    return "val_loss" if config.training.validation_steps else None


def score_of(logs: Logs, measure: str) -> float | None:
    """Return the score of an epoch, higher is better; None if it was not validated."""
    value = logs.get(measure)
    return -value if value is not None and measure.endswith("loss") else value
