"""Step 3: from crops to mask probabilities to pixels of the image."""

import numpy as np
from PIL import Image

from maskrcnn.intermediates.color_map import color_map
from maskrcnn.intermediates.stage_run import StageRun
from maskrcnn.intermediates.strips import cell, cut, strip
from runtime.detections import Detections
from runtime.masks.paste import place_crops


def mask_strip(run: StageRun, detections: Detections, row: int) -> Image.Image:
    """Return the image inside a detection's box, its mask probabilities and its mask, side by side."""
    mask = place_crops([detections.mask_crops[row]], detections.image_size)[0]
    plain = cut(run.picture, detections.boxes[row])
    tinted = run.picture.copy()
    tinted[~mask] = tinted[~mask] // 4
    return strip([plain, cell(color_map(detections.mask_probabilities[row])), cut(tinted, detections.boxes[row])])


def strip_facts(detections: Detections, row: int) -> dict[str, str]:
    """Return class, score, area and unsure share of a detection's mask as texts."""
    probabilities = detections.mask_probabilities[row]
    return {
        "class": detections.names[row],
        "score": f"{detections.scores[row]:.3f}",
        "area": f"{detections.areas[row]} px",
        "unsure": f"{np.mean(np.abs(probabilities - 0.5) < 0.4):.0%}",
    }
