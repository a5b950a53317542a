"""What every part of a run is given."""

from collections.abc import Callable
from dataclasses import dataclass

from maskrcnn.prediction.output_folder import OutputFolder
from runtime.detections import Detections
from runtime.steps import PredictorSteps

# Called with what is counted ("pictures", "views", or the name of a video), how many are done, and of how many, or None
# if nobody knows; first with what was done before.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Job:
    """A run.

    Attributes:
        predictor: What predicts.
        folder: Where results go.
        run: Digest of the settings.
        classes: Kept; None keeps all.
        views: The kinds of views to make.
        batch_size: Most pictures of a run of the network.
        every: Of a video each so many-th frame is predicted.
        stopped: Whether somebody wants the run to end.
        progress: Told how far it is.
    """

    predictor: PredictorSteps
    folder: OutputFolder
    run: str
    classes: tuple[str, ...] | None
    views: tuple[str, ...]
    batch_size: int
    every: int
    stopped: Callable[[], bool]
    progress: Progress

    @property
    def device(self) -> str:
        """Where the predictor runs; a checkpoint runs wherever TensorFlow puts it."""
        return str(getattr(self.predictor, "device", "tensorflow"))

    def keep(self, detections: Detections) -> Detections:
        """Those of the classes that are asked for."""
        return detections if self.classes is None else detections.filter(classes=self.classes)
