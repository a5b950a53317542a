"""The genuine model that a PyTorch checkpoint is of, run in a process of its own, and compared from image to masks."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import SourceError
from export.verify import source_worker
from export.verify.pictures import whole_pictures
from export.verify.tolerances import (
    SOURCE_BOX,
    SOURCE_MARGIN,
    SOURCE_MASK,
    SOURCE_MASK_NEAR,
    SOURCE_MASK_PIXELS,
    SOURCE_NEAR,
)
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.checkpoints.families.recognize import TITLES, Family
from maskrcnn.checkpoints.pytorch.torch_write import write_state
from runtime.artifact import Metadata
from runtime.detections import Detections
from runtime.one_line import count_of
from runtime.predictor import Predictor

PYTHON = "MASKRCNN_SOURCE_PYTHON"
NOT_WANTED = "none"
_PACKAGES: dict[Family, str] = {"torchvision": "torchvision", "detectron2": "detectron2", "mmdetection": "mmdet"}
_SURE = 0.5  # a detection with this score must be found

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SourceRows:
    """What the genuine model found in one image. Boxes are x1, y1, x2, y2 in image pixels; masks bool [N, H, W]."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int32]
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SourceCase:
    """One image.

    Attributes:
        image: Its name.
        expected: Detections of the genuine model; `found` are those of the artifact, `matched` the pairs of equal class
            and box.
        boxes: Largest difference of a pair in image pixels; `scores` likewise.
        masks: Largest part of a mask's area that differs in a pair.
        near: Rows of either side without a counterpart that a near decision explains.
        unexplained: Other rows without a counterpart; `sure` are those of them with a score of 0.5 or more.
        masks_within: Whether all masks agree, but for a few pixels that a near decision explains.
    """

    image: str
    expected: int
    found: int
    matched: int
    boxes: float
    scores: float
    masks: float
    near: int
    unexplained: int
    sure: int
    masks_within: bool

    @property
    def passed(self) -> bool:
        """Whether pairs agree, all sure detections have a counterpart, and few others have none."""
        alone = self.near + self.unexplained
        few = alone <= max(2, SOURCE_NEAR * (self.expected + self.found))
        return self.scores <= SOURCE_MARGIN and self.masks_within and not self.sure and few


def compare_written(
    path: Path,
    metadata: Metadata,
    source: FamilyFile,
    folder: str | Path | None,
    device: str = "cpu",
    progress: Say = say_nothing,
) -> dict[str, Any]:
    """Compare the artifact at `path` with the genuine model on `whole_pictures`; return the verdict's `source`."""
    pictures = whole_pictures(folder, metadata.image_channels, metadata.pixels)

    def detect() -> list[Detections]:
        # Its verdict is what is being made.
        threshold = source.config.detection.min_score
        with Predictor(path, device, score_threshold=threshold, require_verdict=False) as predictor:
            return [predictor(image) for _, image in pictures]

    return compare_with_source(source, pictures, detect, progress)


def compare_with_source(
    file: FamilyFile, pictures: Sequence[tuple[str, Image]], detect: Callable[[], list[Detections]], progress: Say
) -> dict[str, Any]:
    """Run the genuine model on images and compare what an artifact found in them; return the verdict's `source`.

    Args:
        file: The checkpoint.
        pictures: Names and images, uint8 [H, W, 3] RGB.
        detect: Returns the detections of the artifact in each.
        progress: Called with a sentence.

    Raises:
        SourceError: The package is there, and its model cannot be run.
    """
    package = _PACKAGES[file.found.family]
    python = os.environ.get(PYTHON) or sys.executable
    if python == NOT_WANTED:
        return _not_run(package, f"{PYTHON} is {NOT_WANTED}")
    reason = _why_not(file)
    if reason:
        return _not_run(package, reason)
    missing = f"{package} is not installed here; {PYTHON} can name a Python that has it"
    if python == sys.executable and find_spec(package) is None:
        return _not_run(package, missing)
    progress(f"running {TITLES[file.found.family]}'s own model on {count_of(len(pictures), 'image')}")
    with tempfile.TemporaryDirectory() as name:
        answer = _run(Path(name), python, file, pictures)
    if answer is None:
        return _not_run(package, missing if python == sys.executable else f"{python} has no {package}")
    facts, rows = answer
    detection = file.config.detection
    cases = [
        compare_image(name, theirs, ours, detection.min_score, detection.nms_threshold, detection.max_detections)
        for (name, _), theirs, ours in zip(pictures, rows, detect(), strict=True)
    ]
    return {
        "ran": True,
        "package": facts["package"],
        "weights": facts["weights"],
        "images": len(cases),
        "passed": _outcome(cases),
        "cases": [asdict(case) | {"passed": case.passed} for case in cases],
        "tolerances": {
            "boxes": SOURCE_BOX, "scores": SOURCE_MARGIN, "masks": SOURCE_MASK, "mask_pixels": SOURCE_MASK_PIXELS,
            "masks_near_half": SOURCE_MASK_NEAR, "rows_without_counterpart": SOURCE_NEAR,
        },
    }  # fmt: skip


def _outcome(cases: Sequence[SourceCase]) -> bool | None:
    """Return whether all images passed; None if there was no pair of detections to compare."""
    if not all(case.passed for case in cases):
        return False
    return True if any(case.matched for case in cases) else None


def _not_run(package: str, reason: str) -> dict[str, Any]:
    return {"ran": False, "package": package, "reason": reason, "reference": "the Keras model"}


def _why_not(file: FamilyFile) -> str:
    """Return why the genuine package cannot build this network, or nothing."""
    model, sizes = file.config.model, file.found.settings
    fixed = {"backbone_width": 64, "fpn_channels": 256, "rpn_channels": 256, "box_head_channels": 1024}
    fixed |= {"mask_head_channels": 256, "image_channels": 3}
    for name, size in fixed.items():
        if sizes.get(f"model.{name}", size) != size:
            return f"it builds no network with {name} {sizes[f'model.{name}']}"
    if model.batch_norm_epsilon != 1e-5 and file.found.family != "torchvision":
        return f"its epsilon is 1e-05, and here it is {model.batch_norm_epsilon}"
    return ""


def _request(file: FamilyFile) -> dict[str, Any]:
    """Return what the worker needs to build the model, from the configuration that we use."""
    config = file.config
    model, proposals, detection, resize = config.model, config.proposals, config.detection, config.resize
    return {
        "family": file.found.family,
        "version": file.found.version,
        "checkpoint": str(file.path.resolve()),
        "names": list(file.tensors),
        "classes": file.found.classes,
        "backbone": model.backbone,
        "groups": model.backbone_groups,
        "group_width": model.backbone_group_width,
        "stride_in_1x1": model.stride_in_1x1,
        "epsilon": model.batch_norm_epsilon,
        "bgr": file.bgr,
        "mean": list(model.mean_pixel),
        "deviation": list(model.pixel_std) or [1.0, 1.0, 1.0],
        "anchor_scales": list(model.anchor_scales),
        "anchor_ratios": [1 / ratio for ratio in model.anchor_ratios],
        "rpn_box_std": _x_first(model.rpn_box_std),
        "box_std": _x_first(model.box_std),
        "box_pool_size": model.box_pool_size,
        "mask_pool_size": model.mask_pool_size,
        "sampling_ratio": model.roi_sampling_ratio,
        "aligned": model.roi_aligned,
        "pre_nms_limit": proposals.pre_nms_limit,
        "post_nms": proposals.post_nms_inference,
        "proposal_nms": proposals.nms_threshold,
        "proposal_min_side": proposals.min_side or 0,
        "min_score": detection.min_score,
        "nms": detection.nms_threshold,
        "max_detections": detection.max_detections,
        "short_side": resize.short_side,
        "long_side": resize.long_side,
    }


def _x_first(values: Sequence[float]) -> list[float]:
    y, x, height, width = values
    return [x, y, width, height]


def _run(
    folder: Path, python: str, file: FamilyFile, pictures: Sequence[tuple[str, Image]]
) -> tuple[dict[str, str], list[SourceRows]] | None:
    """Run the worker in a folder; None if the package is missing."""
    (folder / "request.json").write_text(json.dumps(_request(file)), encoding="utf-8")
    images: dict[str, Any] = {f"image{number}": image for number, (_, image) in enumerate(pictures)}
    np.savez(folder / "images.npz", **images)
    write_state(folder / "state.pth", file.tensors)
    title = TITLES[file.found.family]
    try:
        done = subprocess.run(  # noqa: S603  (the user's own interpreter)
            [python, str(Path(source_worker.__file__).resolve()), str(folder)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONSAFEPATH": "1"},
        )
    except OSError as error:
        raise SourceError(f"{python}, which {PYTHON} names, cannot be started: {error.strerror}") from error
    if done.returncode == source_worker.NOT_INSTALLED:
        return None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SourceError(
            f"the model of {title} cannot be run by {python}: {lines[-1]}; set {PYTHON} to another Python, or to "
            f"{NOT_WANTED} to go without it"
        )
    try:
        return _read(folder, pictures)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"the model of {title}, run by {python}, gave no result that can be read: {error}") from error


def _read(folder: Path, pictures: Sequence[tuple[str, Image]]) -> tuple[dict[str, str], list[SourceRows]]:
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    rows = []
    with np.load(folder / "found.npz") as arrays:
        for number, (_, image) in enumerate(pictures):
            boxes = np.asarray(arrays[f"boxes{number}"], np.float32).reshape(-1, 4)
            size = image.shape[0] * image.shape[1]
            bits = np.unpackbits(arrays[f"masks{number}"], axis=1, count=size) if len(boxes) else np.zeros((0, size))
            masks = bits.astype(bool).reshape(len(boxes), *image.shape[:2])
            scores = np.asarray(arrays[f"scores{number}"], np.float32)
            rows.append(SourceRows(boxes, scores, np.asarray(arrays[f"class_ids{number}"], np.int32), masks))
    return {"package": str(facts["package"]), "weights": str(facts["weights"])}, rows


def compare_image(
    name: str, theirs: SourceRows, ours: Detections, min_score: float, nms_threshold: float, most: int
) -> SourceCase:
    """Compare the detections in one image; thresholds and `most` rows are those that both models ran with."""
    pairs = _pair(theirs, ours)
    boxes, scores, masks = 0.0, 0.0, 0.0
    pasted = ours.masks
    masks_within = True
    for row, partner in pairs.items():
        boxes = max(boxes, float(np.abs(theirs.boxes[row] - ours.boxes[partner]).max()))
        scores = max(scores, float(abs(theirs.scores[row] - ours.scores[partner])))
        expected, found = theirs.masks[row], pasted[partner]
        area, differing = max(int(expected.sum()), int(found.sum()), 1), int((expected != found).sum())
        masks = max(masks, differing / area)
        allowed = max(SOURCE_MASK_PIXELS, SOURCE_MASK * area)
        near_half = max(SOURCE_MASK_PIXELS, SOURCE_MASK_NEAR * area)
        masks_within &= differing <= allowed or (
            differing <= near_half and _surely_differing(expected, ours[partner]) <= allowed
        )
    sides = (theirs.boxes, theirs.scores, theirs.class_ids), (ours.boxes, ours.scores, ours.class_ids)
    matched = set(pairs), set(pairs.values())
    near = unexplained = sure = 0
    for side in (0, 1):
        own_scores = sides[side][1]
        for row in sorted(set(range(len(own_scores))) - matched[side]):
            if _is_near(row, sides[side], sides[1 - side], matched[1 - side], (min_score, nms_threshold), most):
                near += 1
            else:
                unexplained += 1
                sure += int(own_scores[row] >= _SURE)
    return SourceCase(
        name, len(theirs.boxes), len(ours), len(pairs), boxes, scores, masks, near, unexplained, sure, masks_within
    )


def _surely_differing(expected: npt.NDArray[np.bool_], ours: Detections) -> int:
    """Return how many pixels of a mask differ whose probability is not near the threshold."""
    low, high = (
        replace(ours, mask_probabilities=np.clip(ours.mask_probabilities + np.float32(shift), 0, 1)).masks[0]
        for shift in (-SOURCE_MARGIN, SOURCE_MARGIN)
    )
    return int((low & ~expected).sum() + (expected & ~high).sum())


def _pair(theirs: SourceRows, ours: Detections) -> dict[int, int]:
    """Return the artifact's row of each row of the genuine model that has the same class and box."""
    free, pairs = set(range(len(ours))), {}
    for row in range(len(theirs.boxes)):
        distances = {
            partner: float(np.abs(theirs.boxes[row] - ours.boxes[partner]).max())
            for partner in free
            if ours.class_ids[partner] == theirs.class_ids[row]
        }
        best = min(distances, key=distances.__getitem__, default=None)
        if best is not None and distances[best] <= SOURCE_BOX:
            pairs[row] = best
            free.remove(best)
    return pairs


_Side = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]  # boxes, scores, class ids


def _is_near(row: int, own: _Side, other: _Side, matched: set[int], thresholds: tuple[float, float], most: int) -> bool:
    """Return whether a row has no counterpart because of a decision that rounding can turn."""
    score = float(own[1][row])
    if score - thresholds[0] < SOURCE_MARGIN:
        return True
    lengths = len(own[1]), len(other[1])
    if most in lengths and score - float(own[1].min()) < SOURCE_MARGIN:
        return True
    for partner in np.flatnonzero(other[2] == own[2][row]):
        overlap = _iou(own[0][row], other[0][partner])
        if abs(overlap - thresholds[1]) < SOURCE_MARGIN:
            return True
        beaten = partner not in matched and abs(score - float(other[1][partner])) < SOURCE_MARGIN
        if beaten and overlap > thresholds[1]:
            return True
    return False


def _iou(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return shared / max(areas - shared, 1e-9)
