"""ROIAlign over a feature pyramid with an atlas: all levels in one canvas, one operator for all boxes.

Sorting boxes by level would cost a gather, a scatter and a host synchronization per level. Here all four levels lie
side by side in one canvas, each box is moved to its level, and a single `crop_and_resize` samples every box of every
image. `export` lowers that operator to ONNX `RoiAlign`.

A gutter of one cell around each level repeats its edge. A sample that leaves the level by less than a cell, because of
rounding or by half a cell at the edge, therefore reads the edge value in every engine.
"""

from collections.abc import Sequence

import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.configuration.model import RoiSampling

GUTTER = 1
CANONICAL_SIDE = 224.0  # pixels; a box of this side belongs to P4 (FPN, arXiv 1612.03144, equation 1)
CANONICAL_LEVEL = 4
LEVELS = (2, 3, 4, 5)


def assign_levels(boxes: tf.Tensor, image_size: tf.Tensor) -> tf.Tensor:
    """Return the pyramid level of each box: FPN equation 1, but rounded half to even instead of down.

    Args:
        boxes: float32 [..., 4] normalized.
        image_size: int32 [2] height, width of the padded image.

    Returns:
        int32 [...] 2 to 5; 2 for boxes without area.
    """
    size = tf.cast(image_size, tf.float32)
    side = tf.sqrt(box_ops.areas(boxes))
    canonical = CANONICAL_SIDE / tf.sqrt(size[0] * size[1])
    level = CANONICAL_LEVEL + tf.round(tf.math.log(side / canonical) / tf.math.log(2.0))
    # Clipped before the cast, because log(0) is -inf, which is not an integer.
    return tf.cast(tf.clip_by_value(level, float(LEVELS[0]), float(LEVELS[-1])), tf.int32)


def build_atlas(features: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Lay P2..P5 out in one canvas: P2 | (P3 above (P4 | P5)).

    The right part is never taller than P2: (H_3 + 2) + (H_4 + 2) <= H_2 + 2 for images of at least 64 pixels.

    Args:
        features: Four float32 [B, H_l, W_l, C], each half the size of the one before.

    Returns:
        The atlas float32 [B, H_2 + 2, W_2 + W_3 + 4, C], and int32 [4, 4]: for each level the row and column of its
        first cell in the atlas, its height and its width.
    """
    p2, p3, p4, p5 = (tf.pad(feature, _GUTTERS, mode="SYMMETRIC") for feature in features)
    (h2, w2), (h3, w3), (h4, w4), (h5, w5) = (tf.unstack(box_ops.grid_size(p)) for p in (p2, p3, p4, p5))
    p5 = tf.pad(p5, [[0, 0], [0, h4 - h5], [0, w3 - w4 - w5], [0, 0]])
    below = tf.pad(tf.concat([p4, p5], axis=2), [[0, 0], [0, h2 - h3 - h4], [0, 0], [0, 0]])
    right = tf.concat([p3, below], axis=1)
    corners = [[0, 0], [0, w2], [h3, w2], [h3, w2 + w4]]
    sides = [[h2, w2], [h3, w3], [h4, w4], [h5, w5]]
    places = tf.concat([tf.stack(corners) + GUTTER, tf.stack(sides) - 2 * GUTTER], axis=1)
    return tf.concat([p2, right], axis=2), places


_GUTTERS = [[0, 0], [GUTTER, GUTTER], [GUTTER, GUTTER], [0, 0]]


def pyramid_roi_align(
    atlas: tuple[tf.Tensor, tf.Tensor],
    boxes: tf.Tensor,
    image_size: tf.Tensor,
    pool_size: int,
    sampling: RoiSampling,
    image_of: tf.Tensor | None = None,
) -> tf.Tensor:
    """Crop each box from its level.

    "crop_and_resize" takes one bilinear sample per bin, the first on y1 and the last on y2 of the level's grid
    0..H-1, as matterport's weights were trained. "roi_align" takes the mean of 2 x 2 samples per bin with half-pixel
    centers (Mask R-CNN, section 3; called `aligned` elsewhere).

    Args:
        atlas: From `build_atlas`.
        boxes: float32 [B, N, 4] normalized, within [0, 1].
        image_size: int32 [2] height, width of the padded image.
        pool_size: Side of the crops.
        sampling: As in the configuration.
        image_of: int32 [B * N], the image of each box; by default there are N boxes in each of B images.

    Returns:
        float32 [B * N, pool_size, pool_size, C].
    """
    canvas, places = atlas
    place = tf.cast(tf.gather(places, assign_levels(boxes, image_size) - LEVELS[0]), tf.float32)  # [B, N, 4]
    origin, size = place[..., :2], place[..., 2:]
    samples = pool_size if sampling == "crop_and_resize" else 2 * pool_size
    if sampling == "crop_and_resize":
        first, last = boxes[..., :2] * (size - 1.0), boxes[..., 2:] * (size - 1.0)
    else:
        first, last = _aligned_samples(boxes, image_size, size, samples)
    scale = tf.cast(box_ops.grid_size(canvas), tf.float32) - 1.0
    in_atlas = tf.concat([(first + origin) / scale, (last + origin) / scale], axis=-1)
    if image_of is None:
        image_of = tf.repeat(tf.range(tf.shape(boxes)[0]), tf.shape(boxes)[1])
    crops = tf.image.crop_and_resize(
        canvas,
        tf.stop_gradient(tf.reshape(in_atlas, [-1, 4])),
        image_of,
        [samples, samples],
    )
    return crops if sampling == "crop_and_resize" else tf.nn.avg_pool2d(crops, 2, 2, "VALID")


def _aligned_samples(
    boxes: tf.Tensor, image_size: tf.Tensor, size: tf.Tensor, samples: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first and last of `samples` evenly spaced positions in each box, on the level's grid.

    A box from y1 to y2 (pixels, exclusive) covers y1 / stride to y2 / stride, and cell i has its center at i + 0.5.
    Example: a box of 0..16 px at stride 4 covers cells 0..4, and 4 samples lie at 0.5, 1.5, 2.5, 3.5, the centers of
    cells 0, 1, 2, 3.
    """
    pixels = box_ops.denormalize(boxes, image_size)
    cells = tf.tile(size / tf.cast(image_size, tf.float32), [1, 1, 2])
    top_left, bottom_right = tf.split(pixels * cells, 2, axis=-1)
    half_step = (bottom_right - top_left) / (2.0 * samples)
    first, last = top_left + half_step - 0.5, bottom_right - half_step - 0.5
    return first, last
