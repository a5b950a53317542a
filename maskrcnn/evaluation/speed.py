"""How long a prediction takes, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from runtime.detections import Detections
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

TOTAL = "total"


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
    """Predict one picture.

    Returns:
        The detections, masks pasted, and milliseconds by step; see `Speed`.

    Raises:
        ImageError: The picture cannot be used.
    """
    if not isinstance(predictor, PredictorSteps):
        begin = perf_counter()
        detections = predictor(image)
        _ = detections.mask_crops
        return detections, {TOTAL: 1000 * (perf_counter() - begin)}
    marks = [perf_counter()]
    letterbox, prepared = predictor.prepare(image)
    marks.append(perf_counter())
    outputs = predictor.run(prepared[None], np.array([letterbox.window], np.float32))
    marks.append(perf_counter())
    detections = predictor.finish({name: array[0] for name, array in outputs.items()}, letterbox)
    _ = detections.mask_crops  # pasted when first asked for, and kept
    marks.append(perf_counter())
    pre, model, post = (1000 * float(step) for step in np.diff(marks))
    return detections, {"pre": pre, "model": model, "post": post, TOTAL: pre + model + post}
