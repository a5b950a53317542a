"""Compare an artifact with its model: stage by stage on equal inputs, then as a whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export.verify.compare import compare_rows
from export.verify.pictures import LetterboxedPicture
from export.verify.reference import Difference, Reference, compare_stages
from export.verify.verdict import CaseResult, Verdict
from maskrcnn.callbacks import Say, say_nothing
from runtime import artifact as names
from runtime.engines.protocol import Arrays, Backend, StageCutter

NO_DETECTIONS = 2.0  # a score threshold above every score
MOST_DECISIONS = 12
NOTHING_NEAR = "rounding does not explain this: no close decision accounts for all of the difference"


def verify(
    reference: Reference,
    artifact: Backend,
    stages: StageCutter,
    pictures: Sequence[LetterboxedPicture],
    engine: str,
    progress: Say = say_nothing,
    kind: names.Thresholds = "inputs",
) -> Verdict:
    """Compare an artifact, loaded as an application would load it, with its model on at least one image.

    `stages` is the artifact's graph; `engine` names what runs it, for the verdict; `kind` is that of its thresholds.
    """
    detection = reference.model.config.detection
    thresholds = (detection.min_score, detection.nms_threshold)
    progress("comparing stage by stage")
    for picture in pictures:
        first = make_feeds([picture], thresholds)
        borders = reference.run(first)[1]
        if borders["num_detections"].any():
            break
    else:  # no image has detections at the model's own threshold
        if kind == "inputs":
            thresholds = (0.0, detection.nms_threshold)
        first = make_feeds(pictures[:1], thresholds)
        borders = reference.run(first)[1]
    stage_results = list(compare_stages(stages, borders | first, borders, reference.model.config.model))
    cases: list[CaseResult] = []
    for name, group, score_threshold in _cases(pictures, thresholds[0], kind):
        progress(f"comparing whole runs: {name}: {', '.join(picture.name for picture in group)}")
        feeds = make_feeds(group, (score_threshold, thresholds[1]))
        cases += compare_run(reference, artifact, stages, feeds, name, group)
    return Verdict(
        reference=f"keras {keras.__version__}, tensorflow {tf.__version__}",
        engine=engine,
        score_threshold=thresholds[0],
        nms_threshold=thresholds[1],
        stages=stage_results,
        cases=cases,
    )


def make_feeds(pictures: Sequence[LetterboxedPicture], thresholds: tuple[float, float]) -> Arrays:
    """Return graph inputs for images of one size; thresholds are those of score and non-maximum suppression."""
    return {
        names.IMAGES: np.stack([picture.image for picture in pictures]),
        names.WINDOWS: np.array([picture.window for picture in pictures], np.float32),
        names.SCORE_THRESHOLD: np.asarray(thresholds[0], np.float32),
        names.NMS_THRESHOLD: np.asarray(thresholds[1], np.float32),
    }


def _cases(
    pictures: Sequence[LetterboxedPicture], score_threshold: float, kind: names.Thresholds
) -> Iterator[tuple[str, Sequence[LetterboxedPicture], float]]:
    """Yield name, images and score threshold of runs: each image alone, images of one size, one without detections."""
    groups: dict[tuple[int, ...], list[LetterboxedPicture]] = {}
    for picture in pictures:
        groups.setdefault(picture.image.shape, []).append(picture)
        yield "alone", [picture], score_threshold
    largest = max(groups.values(), key=len)
    yield "batch", (largest if len(largest) > 1 else largest * 2), score_threshold
    if kind == "inputs":
        yield "no detections", pictures[:1], NO_DETECTIONS
    else:  # the nearest that a graph with constant thresholds has
        yield "blank", [replace(pictures[0], image=np.zeros_like(pictures[0].image))], score_threshold


def compare_run(
    reference: Reference,
    artifact: Backend,
    stages: StageCutter,
    feeds: Arrays,
    name: str,
    pictures: Sequence[LetterboxedPicture],
) -> Iterator[CaseResult]:
    """Run model and artifact on the same inputs and compare image by image.

    `stages` explains differences; `feeds` was made of `pictures`; `name` is the name of the run in the verdict.
    """
    expected, borders = reference.run(feeds)
    found = artifact(feeds)
    compared = [compare_rows(_at(expected, row), _at(found, row)) for row in range(len(pictures))]
    examined = None
    if not all(rows.identical for rows in compared):
        examined = Difference(reference, stages, feeds, borders)
    for row, (picture, rows) in enumerate(zip(pictures, compared, strict=True)):
        decisions, objections = [], []
        if not rows.identical and examined is not None:
            decisions = examined.decisions(row, rows)
            objections = examined.objections_to(_at(found, row), row) or ([] if decisions else [NOTHING_NEAR])
        yield CaseResult(
            case=f"{picture.name} ({name}, {len(pictures)})",
            **asdict(rows),
            passed=rows.identical or not objections,
            decisions=_shorten(decisions),
            objections=tuple(objections),
        )


def _shorten(decisions: Sequence[str]) -> tuple[str, ...]:
    """Keep the first few decisions: in an image with a uniform border, thousands of anchors are tied."""
    rest = len(decisions) - MOST_DECISIONS
    return tuple(decisions) if rest <= 0 else (*decisions[:MOST_DECISIONS], f"and {rest} more")


def _at(outputs: Mapping[str, npt.NDArray[Any]], row: int) -> Arrays:
    return {name: array[row] for name, array in outputs.items()}
