"""Timing of predictions, by step."""

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
    """A predictor that can be evaluated, such as `runtime.Predictor` or `CheckpointPredictor`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id; 0 is the background."""

    def __call__(self, image: Any, /) -> Detections:
        """Return the detections in one image, given as a path or as uint8 [H, W, C]."""


@dataclass(frozen=True)
class Speed:
    """Milliseconds per image, one image at a time.

    The steps are `pre` (reading, decoding and letterboxing), `model` (the network with its transfers) and `post`
    (conversion to image pixels, with pasted masks). A predictor without these steps has only `total`.

    Attributes:
        pictures: Number of timed images. The first one warms up the engine and is left out unless it is the only one.
        mean: Means by step, and of the total.
        median: Medians by step, and of the total.
    """

    pictures: int
    mean: Mapping[str, float]
    median: Mapping[str, float]

    @classmethod
    def of(cls, times: list[dict[str, float]]) -> "Speed":
        """Summarize the milliseconds of each image by step, from `predict_timed`."""
        timed = times[1:] or times
        columns = {name: [each[name] for each in timed] for name in (timed[0] if timed else ())}
        return cls(
            len(timed),
            {name: float(np.mean(column)) for name, column in columns.items()},
            {name: float(np.median(column)) for name, column in columns.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, milliseconds with 3 decimals."""
        steps = {name: {"mean": round(self.mean[name], 3), "median": round(self.median[name], 3)} for name in self.mean}
        return {"pictures": self.pictures, "milliseconds": steps}


def predict_timed(predictor: PicturePredictor, image: ImageSource) -> tuple[Detections, dict[str, float]]:
    """Predict one image and paste its masks; return the detections and milliseconds by step, see `Speed`."""
    if isinstance(predictor, PredictorSteps):
        (detections,), times = run_timed(predictor, [image], _paste)
        return detections, times
    begin = perf_counter()
    detections = _paste(predictor(image))
    return detections, {TOTAL: 1000 * (perf_counter() - begin)}


def run_timed(
    predictor: PredictorSteps, images: Sequence[ImageSource], use: Callable[[Detections], Used]
) -> tuple[list[Used], dict[str, float]]:
    """Predict one batch step by step; return the results of `use`, and milliseconds by step, with the total.

    The network inputs of all images must have the same size. `use` is called with the detections of each image; its
    time is part of the last step.
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
    """Paste the masks now; they are pasted when first used."""
    _ = detections.mask_crops
    return detections
