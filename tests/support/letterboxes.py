"""Boxes of a picture in the frame of the network input: the inverse of `Letterbox.boxes_to_image`."""

import numpy as np


def boxes_to_input(letterbox, boxes):
    """Boxes [N, 4] x1, y1, x2, y2 from picture pixels to input pixels; the first and last pixels map to each other."""
    ends = np.array([0, 0, 1, 1])
    offset = np.tile(letterbox.offset[::-1], 2)
    sizes = [np.tile(size[::-1], 2).astype(float) for size in (letterbox.image_size, letterbox.resized_size)]
    image, resized = sizes
    with np.errstate(divide="ignore", invalid="ignore"):
        stretched = (np.asarray(boxes, float) - ends) / (image - 1) * (resized - 1) + ends
    return np.where(image > 1, stretched, boxes * resized) + offset
