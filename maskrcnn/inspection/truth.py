"""Compare detections with the annotated objects of their image: matches, misses, duplicates, overlaps, precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Instance, Record
from maskrcnn.evaluation.metrics import AveragePrecision, average_precision, average_precision_range, match_detections
from maskrcnn.intermediates.prepared import PreparedImage
from runtime.detections import Detections
from runtime.masks.rle import area, decode, mask_box

MATCH_IOU = 0.5

# "duplicate": on an object that a better detection matches; "wrong class": on an object of another class.
Outcome = Literal["match", "duplicate", "wrong class", "false", "crowd"]


@dataclass(frozen=True, eq=False)
class Truth:
    """The annotated objects of an image, with the class ids of the model.

    Attributes:
        class_ids: int32 [G].
        masks: bool [H, W, G] in image pixels.
        boxes: int32 [G, 4] y1, x1, y2, x2 in image pixels, from the masks.
        crowds: bool [H, W, M], groups annotated as one region. A detection of their class inside them does not count.
        crowd_ids: int32 [M], classes of the crowds.
    """

    class_ids: npt.NDArray[np.int32]
    masks: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.int32]
    crowds: npt.NDArray[np.bool_]
    crowd_ids: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`.

    Attributes:
        outcomes: Outcome of each detection, best score first.
        partners: Index of the object that each detection matches, -1 for none.
        found: bool [G], whether a detection matches the object.
        overlaps: float32 [N, G], mask IoU of each detection with each object.
        precision: The precision-recall curve at IoU 0.5 and the area under it.
        ap_range: Mean AP over IoU 0.5 to 0.95.
    """

    outcomes: tuple[Outcome, ...]
    partners: tuple[int, ...]
    found: npt.NDArray[np.bool_]
    overlaps: npt.NDArray[np.floating]
    precision: AveragePrecision
    ap_range: float

    @property
    def best_overlaps(self) -> npt.NDArray[np.floating]:
        """Largest IoU of each detection with an object, [N]; 0 without objects."""
        return np.asarray(self.overlaps.max(axis=1, initial=0))

    @property
    def numbers(self) -> dict[str, Any]:
        """Counts and average precision (None without objects), as JSON values."""
        return {
            "objects": len(self.found),
            "matches": self.outcomes.count("match"),
            "misses": int(np.sum(~self.found)),
            "duplicates": self.outcomes.count("duplicate"),
            "wrong_class": self.outcomes.count("wrong class"),
            "false": self.outcomes.count("false"),
            "in_crowd": self.outcomes.count("crowd"),
            "ap50": self.precision.ap if len(self.found) else None,
            "ap": self.ap_range if len(self.found) else None,
        }


def truth_of(record: Record, run: PreparedImage) -> Truth:
    """The objects of a record whose class ids are the configuration's; those without a pixel are left out.

    Raises:
        DatasetError: A mask does not have the size of its image.
    """
    size = run.picture.shape[:2]
    objects: list[Instance] = []
    crowds: list[Instance] = []
    for instance in record.instances_of_size(size):
        if area(instance.mask):  # what has no pixel can neither be found nor missed
            (crowds if instance.crowd else objects).append(instance)
    boxes = np.array([mask_box(instance.mask) for instance in objects], np.int32).reshape(-1, 4)[:, [1, 0, 3, 2]]
    class_ids = np.array([instance.class_id for instance in objects], np.int32)
    crowd_ids = np.array([instance.class_id for instance in crowds], np.int32)
    return Truth(class_ids, _stack(objects, size), boxes, _stack(crowds, size), crowd_ids)


def compare(detections: Detections, truth: Truth) -> Comparison:
    """Match detections to objects as `metrics.match_detections` does, and classify the others."""
    boxes = detections.pixel_boxes[:, [1, 0, 3, 2]]
    masks = np.moveaxis(detections.masks, 0, -1)
    given = (truth.boxes, truth.class_ids, truth.masks, boxes, detections.class_ids, detections.scores, masks)
    matches = match_detections(*given, MATCH_IOU)
    # The metrics take equal scores in reverse order; detections are sorted already.
    order = np.argsort(detections.scores, kind="stable")[::-1]
    partners = np.full(len(detections), -1)
    partners[order] = matches.pred_match
    overlaps = np.zeros((len(detections), len(truth)), np.float32)
    overlaps[order] = matches.overlaps
    crowd = _crowd_shares(masks, detections.class_ids, truth)
    outcomes = tuple(_outcome(row, partners, overlaps, detections, truth, crowd) for row in range(len(detections)))
    counted = np.array([outcome != "crowd" for outcome in outcomes], np.bool_)
    given = (*given[:3], boxes[counted], detections.class_ids[counted], detections.scores[counted], masks[..., counted])
    found = matches.gt_match > -1
    precision = average_precision(*given, MATCH_IOU)
    return Comparison(
        outcomes,
        tuple(int(partner) for partner in partners),
        found,
        overlaps,
        precision,
        average_precision_range(*given),
    )


def _outcome(
    row: int,
    partners: npt.NDArray[np.floating],
    overlaps: npt.NDArray[np.floating],
    detections: Detections,
    truth: Truth,
    crowd: npt.NDArray[np.floating],
) -> Outcome:
    if partners[row] > -1:
        return "match"
    near = overlaps[row] >= MATCH_IOU
    if np.any(near & (truth.class_ids == detections.class_ids[row])):
        return "duplicate"
    if np.any(near):
        return "wrong class"
    return "crowd" if crowd[row] >= 0.5 else "false"


def _crowd_shares(
    masks: npt.NDArray[np.bool_], class_ids: npt.NDArray[np.int32], truth: Truth
) -> npt.NDArray[np.floating]:
    """Return the largest share [N] of each mask [H, W, N] that lies in one crowd of its class."""
    pixels = np.maximum(masks.sum(axis=(0, 1)), 1)
    shares = np.zeros(masks.shape[-1])
    for column, class_id in enumerate(truth.crowd_ids):
        inside = (masks & truth.crowds[..., column, None]).sum(axis=(0, 1)) / pixels
        shares = np.maximum(shares, np.where(class_ids == class_id, inside, 0))
    return shares


def _stack(instances: Sequence[Instance], size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    if not instances:
        return np.zeros((*size, 0), np.bool_)
    return np.stack([decode(instance.mask) for instance in instances], axis=-1)
