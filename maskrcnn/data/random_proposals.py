"""Proposals drawn around the objects of an image, to train the heads without the RPN."""

import numpy as np
import numpy.typing as npt

_SHARE_AT_OBJECTS = 0.9


def random_proposals(
    boxes: npt.NDArray[np.number], input_size: tuple[int, int], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw boxes as matterport's `generate_random_rois` does.

    Nine in ten are spread evenly over the objects: each side lies within one side length of the object's. The others,
    and all of them without objects, lie anywhere.

    Args:
        boxes: Objects, [N, 4] y1, x1, y2, x2 in input pixels.
        input_size: (height, width).
        count: Number of proposals.

    Returns:
        float32 [count, 4] y1, x1, y2, x2 normalized, of whole input pixels, at least one pixel wide and high.
    """
    size = np.array(input_size, np.int64)
    low, high = np.zeros((count, 2), np.int64), np.tile(size, (count, 1))
    if len(boxes):
        whole = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).astype(np.int64)
        corners = np.resize(whole, (int(_SHARE_AT_OBJECTS * count), 4))  # the objects in turn
        sides = corners[:, 2:] - corners[:, :2]
        low[: len(corners)] = np.maximum(corners[:, :2] - sides, 0)
        high[: len(corners)] = np.minimum(corners[:, 2:] + sides, size)
    # Two different of the edges low..high: the second is drawn from those that the first one leaves.
    first = rng.integers(low, high, endpoint=True)
    second = rng.integers(low, high)
    second += second >= first
    pixels = np.concatenate([np.minimum(first, second), np.maximum(first, second) - 1], axis=1)
    return (pixels / np.tile(size - 1, 2)).astype(np.float32)
