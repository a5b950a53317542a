"""Does the artifact compute what the model computes? Stage by stage on equal inputs, then whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import tolerances
from export.compare import RowDifferences, compare_rows, difference
from export.decisions import explain
from export.graph import STAGES, Stage, border, trace
from export.pictures import LetterboxedPicture
from export.verdict import CaseResult, StageResult, Verdict
from maskrcnn.model import MaskRCNN, Stages
from runtime import artifact as names
from runtime.backends import Backend

Arrays = dict[str, npt.NDArray[Any]]
Progress = Callable[[str], None]

NO_DETECTIONS = 2.0  # a score threshold above every score


class StageRunner(Protocol):
    """The artifact's graph, cut at its borders."""

    def run_stage(self, stage: Stage, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute one stage from border tensors and graph inputs."""

    def run_borders(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the whole graph and return its border tensors."""


class Reference:
    """The Keras model, run eagerly compiled, with its border tensors."""

    def __init__(self, model: MaskRCNN) -> None:
        self.model = model
        self._function = trace(model, with_borders=True)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> tuple[Arrays, Arrays]:
        """Artifact outputs and border tensors."""
        results = self._function(**{name: tf.constant(array) for name, array in feeds.items()})
        outputs = {name: results[name].numpy() for name in names.OUTPUT_NAMES}
        return outputs, {name: results[border(name)].numpy() for name in Stages._fields}


def verify(
    reference: Reference,
    artifact: Backend,
    stages: StageRunner | None,
    pictures: Sequence[LetterboxedPicture],
    engine: str,
    progress: Progress = lambda _message: None,
) -> Verdict:
    """Compare an artifact with the model it was made from.

    Args:
        reference: The model.
        artifact: The artifact, loaded as an application would load it.
        stages: Its graph for the stage-wise part; None leaves that out.
        pictures: At least one.
        engine: Name and version, for the verdict.
        progress: Called with a sentence before each part.
    """
    detection = reference.model.config.detection
    thresholds = (detection.min_score, detection.nms_threshold)
    first = _feeds(pictures[:1], thresholds)
    progress("comparing stage by stage")
    borders = reference.run(first)[1]
    if not borders["num_detections"].any():  # nothing to compare at the model's own threshold
        thresholds = (0.0, detection.nms_threshold)
        first = _feeds(pictures[:1], thresholds)
        borders = reference.run(first)[1]
    stage_results = [] if stages is None else list(_compare_stages(stages, borders | first))
    cases = []
    for name, group, score_threshold in _cases(pictures, thresholds[0]):
        progress(f"comparing whole runs: {name}")
        feeds = _feeds(group, (score_threshold, thresholds[1]))
        cases += _compare_whole(reference, artifact, stages, feeds, name, group)
    return Verdict(
        reference=f"keras {keras.__version__}, tensorflow {tf.__version__}",
        engine=engine,
        score_threshold=thresholds[0],
        nms_threshold=thresholds[1],
        stages=stage_results,
        cases=cases,
    )


def _feeds(pictures: Sequence[LetterboxedPicture], thresholds: tuple[float, float]) -> Arrays:
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


def _compare_stages(stages: StageRunner, known: Arrays) -> Iterator[StageResult]:
    for stage in STAGES:
        results = stages.run_stage(stage, known)
        for name in stage.outputs:
            tolerance = tolerances.STAGES[name]
            worst = difference(known[name], results[name], tolerance)
            yield StageResult(stage.name, name, worst, *tolerance)


def _compare_whole(
    reference: Reference,
    artifact: Backend,
    stages: StageRunner | None,
    feeds: Arrays,
    name: str,
    pictures: Sequence[LetterboxedPicture],
) -> Iterator[CaseResult]:
    expected, borders = reference.run(feeds)
    found = artifact(feeds)
    other_borders: Arrays | None = None
    for row, picture in enumerate(pictures):
        rows = compare_rows(_at(expected, row), _at(found, row))
        decisions: list[str] = []
        if not rows.within or rows.swapped:
            # A difference is excused only where every stage agrees on equal inputs, on this very picture.
            if stages is not None and all(r.passed for r in _compare_stages(stages, borders | feeds)):
                other_borders = other_borders or stages.run_borders(feeds)
                decisions = _explain(reference, borders, other_borders, feeds, row)
        yield _case(f"{picture.name} ({name}, {len(pictures)})", rows, decisions)


def _case(name: str, rows: RowDifferences, decisions: list[str]) -> CaseResult:
    same = rows.within and not rows.swapped
    # Rows that have a counterpart must agree even where a decision made other rows differ.
    excused = bool(decisions) and rows.masks <= tolerances.MASKS.bound
    return CaseResult(
        case=name,
        expected=rows.expected,
        found=rows.found,
        boxes=rows.boxes,
        scores=rows.scores,
        masks=rows.masks,
        passed=same or excused,
        decisions=tuple(decisions),
    )


def _explain(reference: Reference, borders: Arrays, other: Arrays, feeds: Arrays, row: int) -> list[str]:
    model = reference.model
    anchors = model.anchors(tf.constant(feeds[names.IMAGES].shape[1:3])).numpy()
    thresholds = (float(feeds[names.SCORE_THRESHOLD]), float(feeds[names.NMS_THRESHOLD]))
    # Crops have rois, not pictures, on their first axis; no decision is made on them.
    sides = [
        {key: tensor[row] for key, tensor in side.items() if not key.endswith("rois")} for side in (borders, other)
    ]
    return explain(sides[0], sides[1], anchors, model.config, thresholds)


def _at(outputs: Mapping[str, npt.NDArray[Any]], row: int) -> Arrays:
    return {name: array[row] for name, array in outputs.items()}
