"""Does the artifact compute what the model computes? Stage by stage on equal inputs, then whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export.verify.compare import compare_rows
from export.verify.pictures import LetterboxedPicture
from export.verify.reference import Difference, Reference, compare_stages
from export.verify.verdict import CaseResult, Verdict
from runtime import artifact as names
from runtime.engines.protocol import Backend, StageCutter

Arrays = dict[str, npt.NDArray[Any]]
Progress = Callable[[str], None]

NO_DETECTIONS = 2.0  # a score threshold above every score
MOST_DECISIONS = 12
NOTHING_NEAR = "that is more than rounding: no selection on less than the margin accounts for all of it"


def verify(
    reference: Reference,
    artifact: Backend,
    stages: StageCutter,
    pictures: Sequence[LetterboxedPicture],
    engine: str,
    progress: Progress = lambda _message: None,
) -> Verdict:
    """Compare an artifact with the model it was made from.

    Args:
        reference: The model.
        artifact: The artifact, loaded as an application would load it.
        stages: Its graph, cut at its borders.
        pictures: At least one.
        engine: Name and version, for the verdict.
        progress: Called with a sentence before each part.
    """
    detection = reference.model.config.detection
    thresholds = (detection.min_score, detection.nms_threshold)
    progress("comparing stage by stage")
    for picture in pictures:
        first = make_feeds([picture], thresholds)
        borders = reference.run(first)[1]
        if borders["num_detections"].any():
            break
    else:  # no picture has anything to compare at the model's own threshold
        thresholds = (0.0, detection.nms_threshold)
        first = make_feeds(pictures[:1], thresholds)
        borders = reference.run(first)[1]
    stage_results = list(compare_stages(stages, borders | first, borders))
    cases: list[CaseResult] = []
    for name, group, score_threshold in _cases(pictures, thresholds[0]):
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
    """Graph inputs for pictures of one size; thresholds are those of score and non-maximum suppression."""
    return {
        names.IMAGES: np.stack([picture.image for picture in pictures]),
        names.WINDOWS: np.array([picture.window for picture in pictures], np.float32),
        names.SCORE_THRESHOLD: np.asarray(thresholds[0], np.float32),
        names.NMS_THRESHOLD: np.asarray(thresholds[1], np.float32),
    }


def _cases(
    pictures: Sequence[LetterboxedPicture], score_threshold: float
) -> Iterator[tuple[str, Sequence[LetterboxedPicture], float]]:
    """Each picture alone, pictures of one size together, and a run without detections."""
    groups: dict[tuple[int, ...], list[LetterboxedPicture]] = {}
    for picture in pictures:
        groups.setdefault(picture.image.shape, []).append(picture)
        yield "alone", [picture], score_threshold
    largest = max(groups.values(), key=len)
    yield "batch", (largest if len(largest) > 1 else largest * 2), score_threshold
    yield "no detections", pictures[:1], NO_DETECTIONS


def compare_run(
    reference: Reference,
    artifact: Backend,
    stages: StageCutter,
    feeds: Arrays,
    name: str,
    pictures: Sequence[LetterboxedPicture],
) -> Iterator[CaseResult]:
    """Run model and artifact on the same inputs and compare picture by picture.

    Args:
        reference: The model.
        artifact: The artifact, loaded.
        stages: The artifact's graph, for examining a difference.
        feeds: Graph inputs.
        name: Of the run, for the verdict.
        pictures: What `feeds` was made of.
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
            expected=rows.expected,
            found=rows.found,
            boxes=rows.boxes,
            scores=rows.scores,
            masks=rows.masks,
            unmatched=rows.unmatched,
            swapped=rows.swapped,
            passed=rows.identical or not objections,
            decisions=_shorten(decisions),
            objections=tuple(objections),
        )


def _shorten(decisions: Sequence[str]) -> tuple[str, ...]:
    """A picture with even borders ties thousands of anchors; a verdict names the first few."""
    rest = len(decisions) - MOST_DECISIONS
    return tuple(decisions) if rest <= 0 else (*decisions[:MOST_DECISIONS], f"and {rest} more")


def _at(outputs: Mapping[str, npt.NDArray[Any]], row: int) -> Arrays:
    return {name: array[row] for name, array in outputs.items()}
