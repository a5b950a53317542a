"""The verdict of a verification: what was compared, how much it differs, and whether that is accepted."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from export.verify import tolerances

_MASKS_ALLOWED = (
    f"{tolerances.SOURCE_MASK:.1%} may differ, or {tolerances.SOURCE_MASK_NEAR:.0%} where probabilities are within "
    f"{tolerances.SOURCE_MARGIN} of 0.5"
)


@dataclass(frozen=True)
class StageResult:
    """One stage boundary tensor of a stage that was fed the reference's inputs.

    Attributes:
        worst: Largest difference, on the first image with detections.
        tolerance: Largest allowed difference.
        relative: Whether both are relative to the tensor's scale.
    """

    stage: str
    tensor: str
    worst: float
    tolerance: float
    relative: bool

    @property
    def passed(self) -> bool:
        """Whether the difference is within tolerance."""
        return self.worst <= self.tolerance


@dataclass(frozen=True)
class CaseResult:
    """One image of one whole run.

    Attributes:
        case: Names of the image and of the run.
        expected: Number of detections of the model; `found` is that of the artifact.
        boxes: Largest difference in input pixels.
        scores: Largest difference.
        masks: Largest difference of a probability.
        passed: Whether the run is within tolerance, or differs for a named reason.
        unmatched: Number of rows on either side without a counterpart of the same class and box.
        swapped: Number of rows whose counterpart has another rank.
        decisions: Close decisions that explain the differences.
        objections: What rounding cannot explain.
    """

    case: str
    expected: int
    found: int
    boxes: float
    scores: float
    masks: float
    passed: bool
    unmatched: int = 0
    swapped: int = 0
    decisions: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Everything a verification found.

    Attributes:
        reference: Packages and versions that ran the model.
        engine: Engine, version and device that ran the artifact.
        stages: One result per stage boundary tensor.
        cases: One result per image of each whole run, which used `score_threshold` and `nms_threshold`.
        graph: Node counts of an ONNX graph: `nodes`, and `operators` by type.
        precision: For an artifact in lower precision, its loss of accuracy, see `export.precision.gate`. The rest of
            the verdict is then about the float32 graph.
        source: For a PyTorch checkpoint, the comparison with its genuine model, see `export.verify.source`.
        graph_sha256: Digest of the artifact's graph, which binds the verdict to it; empty before it is published.
    """

    reference: str
    engine: str
    score_threshold: float
    nms_threshold: float
    stages: Sequence[StageResult]
    cases: Sequence[CaseResult]
    graph: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    graph_sha256: str = ""
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def detections(self) -> int:
        """Number of detections compared in all cases."""
        return sum(case.expected for case in self.cases)

    @property
    def passed(self) -> bool:
        """Whether every stage and case passed, there were detections to compare, and no genuine model disagrees."""
        return (
            all(stage.passed for stage in self.stages)
            and all(case.passed for case in self.cases)
            and self.detections > 0
            and self.source.get("passed") is not False  # None: there was nothing to compare
        )

    def failures(self) -> list[str]:
        """Return one sentence for each thing that did not pass."""
        sentences = [
            f"stage {s.stage!r}: {s.tensor} differs by {s.worst:.2e}; the tolerance is {s.tolerance:.0e}"
            for s in self.stages
            if not s.passed
        ]
        sentences += [
            f"{c.case}: {c.expected} detections became {c.found}; boxes differ by {c.boxes:.2e} px, "
            f"scores by {c.scores:.2e}, masks by {c.masks:.2e}, {c.unmatched} rows have no counterpart"
            for c in self.cases
            if not c.passed
        ]
        sentences += [
            f"{self.source['package']} finds other detections in {case['image']}: {case['matched']} of "
            f"{case['expected']} have a counterpart, {case['near'] + case['unexplained']} rows have none (of "
            f"{case['sure']}, the score is 0.5 or more); pairs differ by {case['boxes']:.1e} px, {case['scores']:.1e} "
            f"in score and {case['masks']:.2%} of a mask" + ("" if case["masks_within"] else f" ({_MASKS_ALLOWED})")
            for case in self.source.get("cases", ())
            if not case["passed"]
        ]
        if self.detections == 0:
            sentences.append(
                "the model detects nothing in the verification images, so nothing could be compared: "
                "give images with objects (--verify-images DIR)"
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; tuples are lists, so that a verdict read back equals the one written."""
        values = asdict(self)
        values["passed"] = self.passed
        if not self.source:
            del values["source"]
        values["tolerances"] = {
            "boxes": tolerances.BOXES.bound,
            "scores": tolerances.SCORES.bound,
            "masks": tolerances.MASKS.bound,
            "decision_margin": tolerances.DECISION_MARGIN,
        }
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


@dataclass(frozen=True)
class PrecisionGate:
    """Result of the comparison of accuracy.

    Attributes:
        precision: "fp16", "int8" or "bf16".
        against: "annotations" or "float32 detections".
        measure: "mask AP".
        pictures: Number of images that were compared; none of them gave the ranges of activations.
        objects: Number of objects in the ground truth.
        reference: The measure of the float32 model, 0 to 1; `found` is that of the artifact.
        allowed: Largest allowed drop.
        classes: By class name, the measure of both; None for a class without objects.
        left_in_float: Parts of the network that stay in float32.
        calibrated: Number of images that gave the ranges of activations; 0 where there are none, as for fp16 and bf16.
    """

    precision: str
    against: str
    measure: str
    pictures: int
    objects: int
    reference: float
    found: float
    allowed: float
    classes: dict[str, tuple[float | None, float | None]]
    left_in_float: tuple[str, ...] = ()
    calibrated: int = 0

    @property
    def drop(self) -> float:
        """How much worse the artifact is."""
        return self.reference - self.found

    @property
    def passed(self) -> bool:
        """Whether the drop is allowed, of a reference so high that finding nothing would be refused."""
        return self.objects > 0 and self.reference > self.allowed and self.drop <= self.allowed

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; tuples are lists, so that a verdict read back equals the one written."""
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self), "drop": self.drop, "passed": self.passed}))
        return plain
