"""After each epoch: judge it, note it in the history, write the checkpoints, and remove those too many."""

import json

import keras

from maskrcnn.checkpoints.checkpoint import save_checkpoint
from maskrcnn.training.progress import Logs
from maskrcnn.training.run import Run
from maskrcnn.training.validation import score_of
from runtime.atomic import atomic_write


class EpochKeeper(keras.callbacks.Callback):
    """Closes an epoch: from here on it counts as finished.

    Args:
        run: Its progress and folder are changed.
        measure: What an epoch is judged by; None where nothing judges, and later counts as better.
        patience: Validated epochs without a better score after which the run ends; None never ends it.
        keep: Checkpoints of single epochs to keep, beside the last and the best.
    """

    def __init__(self, run: Run, measure: str | None, patience: int | None, keep: int) -> None:
        super().__init__()
        self._run, self._measure, self._patience, self._keep = run, measure, patience, keep

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Judge and write."""
        run, progress, logs = self._run, self._run.progress, dict(logs or {})
        if self._measure is None:
            best, progress.best_epoch = True, epoch
        else:
            best = progress.judge(score_of(logs, self._measure), self._patience)
        progress.history.append(logs)
        self.model.stop_training = progress.stopped
        if run.writes:
            self._write(best)

    def _write(self, best: bool) -> None:
        run, folder = self._run, self._run.folder
        with run.final_weights():
            save_checkpoint(run.network, folder.last, overwrite=True)
            if best:
                save_checkpoint(run.network, folder.best, overwrite=True)
            if self._keep:
                save_checkpoint(run.network, folder.epoch(run.progress.epochs), overwrite=True)
        if self._keep:
            for path in sorted(folder.path.glob("epoch-*.weights.h5"))[: -self._keep]:
                path.unlink(missing_ok=True)
        with atomic_write(folder.history, overwrite=True) as temporary:
            temporary.write_text(json.dumps(run.progress.history, indent=2) + "\n", encoding="utf-8")
