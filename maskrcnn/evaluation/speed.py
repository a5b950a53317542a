"""How long a prediction takes, and where."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np

from runtime.detections import Detections
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

TOTAL = "total"
STEPS = ("pre", "model", "post", TOTAL)

Used = TypeVar("Used")


class PicturePredictor(Protocol):
    """What can be evaluated: `runtime.Predictor`, `CheckpointPredictor`, or any other model behind this."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id; 0 is the background."""

    def __call__(self, image: Any, /) -> Detections:
        """Detections in one picture: a path, or uint8 [H, W, C]."""


@dataclass(frozen=True)
class Speed:
    """Milliseconds per picture, one picture at a time.

    `pre` is reading, decoding and letterboxing; `model` is the network, with its transfers; `post` is the way back to
    the picture, masks pasted. A predictor without these steps has `total` only.

    Attributes:
        pictures: How many were timed: all but the first one, which warms the engine up, unless it is the only one.
        mean: By step, and `total`.
        median: As `mean`.
    """

    pictures: int
    mean: Mapping[str, float]
    median: Mapping[str, float]

    @classmethod
    def of(cls, times: list[dict[str, float]]) -> "Speed":
        """From the milliseconds of each picture by step, as `predict_timed` gives them."""
        timed = times[1:] or times
        columns = {name: [each[name] for each in timed] for name in (timed[0] if timed else ())}
        return cls(
            len(timed),
            {name: float(np.mean(column)) for name, column in columns.items()},
            {name: float(np.median(column)) for name, column in columns.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON serialisable, milliseconds with 3 decimals."""
        steps = {name: {"mean": round(self.mean[name], 3), "median": round(self.median[name], 3)} for name in self.mean}
        return {"pictures": self.pictures, "milliseconds": steps}


def predict_timed(predictor: PicturePredictor, image: ImageSource) -> tuple[Detections, dict[str, float]]:
    """Predict one image and paste its masks.

    Returns:
        The detections, and milliseconds by step; see `Speed`.

    Raises:
        ImageError: The image cannot be used.
    """
    if isinstance(predictor, PredictorSteps):
        (detections,), times = run_timed(predictor, [image], _paste)
        return detections, times
    begin = perf_counter()
    detections = _paste(predictor(image))
    return detections, {TOTAL: 1000 * (perf_counter() - begin)}


def run_timed(
    predictor: PredictorSteps, images: Sequence[ImageSource], use: Callable[[Detections], Used]
) -> tuple[list[Used], dict[str, float]]:
    """Predict one batch step by step.

    Args:
        predictor: Runs the three steps.
        images: Images whose network inputs have one size.
        use: Called with the detections of each image; its time is part of the last step.

    Returns:
        The results of `use`, and milliseconds by step, with the total.
    """
    marks = [perf_counter()]
    prepared = [predictor.prepare(image) for image in images]
    batch = np.stack([pixels for _, pixels in prepared])
    windows = np.array([letterbox.window for letterbox, _ in prepared], np.float32)
    marks.append(perf_counter())
    outputs = predictor.run(batch, windows)
    marks.append(perf_counter())
    used = [
        use(predictor.finish({name: array[row] for name, array in outputs.items()}, letterbox))
        for row, (letterbox, _) in enumerate(prepared)
    ]
    marks.append(perf_counter())
    times = [1000 * float(step) for step in np.diff(marks)]
    return used, dict(zip(STEPS, [*times, sum(times)], strict=True))


def _paste(detections: Detections) -> Detections:
    """Paste the masks now: that happens when they are first asked for."""
    _ = detections.mask_crops
    return detections
