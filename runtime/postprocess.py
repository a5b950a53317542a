"""The graph's outputs back to the frame of the original picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import artifact as names
from runtime.detections import Detections
from runtime.letterbox import Letterbox
from runtime.paste import PasteMode


def to_detections(
    outputs: Mapping[str, npt.NDArray[Any]],
    letterbox: Letterbox,
    class_names: tuple[str, ...],
    paste_mode: PasteMode,
    device: str | None = None,
) -> Detections:
    """One picture's graph outputs (without the batch axis) in the frame of the original picture.

    Boxes that have no area after rounding to pixels are dropped.
    """
    count = int(outputs[names.NUM_DETECTIONS])
    detections = Detections(
        boxes=letterbox.boxes_to_image(outputs[names.BOXES][:count]).astype(np.float32),
        scores=outputs[names.SCORES][:count],
        class_ids=outputs[names.CLASS_IDS][:count],
        mask_probabilities=outputs[names.MASKS][:count],
        image_size=letterbox.image_size,
        class_names=class_names,
        paste_mode=paste_mode,
        device=device,
    )
    sides = detections.pixel_boxes[:, 2:] - detections.pixel_boxes[:, :2]
    return detections[np.all(sides > 0, axis=1)]
