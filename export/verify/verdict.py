"""The verdict of a verification: what was compared, how far apart it was, and whether that is accepted."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from export.verify import tolerances


@dataclass(frozen=True)
class StageResult:
    """One border tensor of one stage, which was fed the reference's inputs.

    Attributes:
        stage: Name of the stage.
        tensor: Name of the border tensor.
        worst: Largest difference, on the first picture that gives detections.
        tolerance: Largest allowed.
        relative: Whether both are relative to the tensor's scale.
    """

    stage: str
    tensor: str
    worst: float
    tolerance: float
    relative: bool

    @property
    def passed(self) -> bool:
        """Within tolerance."""
        return self.worst <= self.tolerance


@dataclass(frozen=True)
class CaseResult:
    """One picture of one whole run.

    Attributes:
        case: Which picture, in which batch.
        expected: Detections of the model.
        found: Detections of the artifact.
        boxes: Largest difference in input pixels.
        scores: Largest difference.
        masks: Largest difference of a probability.
        passed: Within tolerance, or different for a named reason.
        unmatched: Rows of either side without a counterpart of the same class and box.
        swapped: Rows that have one at another rank.
        decisions: The reasons, where rows differ or changed places.
        objections: Why the reasons do not excuse it.
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
        reference: What the artifact was compared with.
        engine: What ran the artifact.
        score_threshold: Of the whole runs.
        nms_threshold: Of the whole runs.
        stages: Per border tensor.
        cases: Per picture of the whole runs.
        graph: Facts about the graph.
        precision: In lower precision, what that costs, see `export.precision.gate`; the rest is about float32 then.
    """

    reference: str
    engine: str
    score_threshold: float
    nms_threshold: float
    stages: Sequence[StageResult]
    cases: Sequence[CaseResult]
    graph: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)

    @property
    def detections(self) -> int:
        """Detections compared, over all cases."""
        return sum(case.expected for case in self.cases)

    @property
    def passed(self) -> bool:
        """Every stage and case passed, and there was something to compare."""
        return (
            all(stage.passed for stage in self.stages)
            and all(case.passed for case in self.cases)
            and self.detections > 0
        )

    def failures(self) -> list[str]:
        """What did not pass, one sentence each."""
        sentences = [
            f"stage {s.stage!r}: {s.tensor} differs by {s.worst:.2e}, allowed are {s.tolerance:.0e}"
            for s in self.stages
            if not s.passed
        ]
        sentences += [
            f"{c.case}: {c.expected} detections became {c.found}; boxes differ by {c.boxes:.2e} px, "
            f"scores by {c.scores:.2e}, masks by {c.masks:.2e}, {c.unmatched} rows have no counterpart"
            for c in self.cases
            if not c.passed
        ]
        if self.detections == 0:
            sentences.append(
                "no verification picture gave a detection, so nothing was proven: "
                "give pictures with objects (--verify-images DIR)"
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = asdict(self)
        values["passed"] = self.passed
        values["tolerances"] = {
            "boxes": tolerances.BOXES.bound,
            "scores": tolerances.SCORES.bound,
            "masks": tolerances.MASKS.bound,
            "decision_margin": tolerances.DECISION_MARGIN,
        }
        # Tuples become lists here, so that a verdict read back equals the one written.
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain
