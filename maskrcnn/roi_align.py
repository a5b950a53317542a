"""ROIAlign over a feature pyramid with an atlas: all levels in one canvas, one operator for all boxes.

Sorting boxes by level would cost a gather, a scatter and a host synchronization per level. Here all four levels lie
side by side in one canvas, each box is moved to its level, and a single `crop_and_resize` samples every box of every
image. `export` lowers that operator to ONNX `RoiAlign`.

A gutter of one cell around each level repeats its edge. A sample that leaves the level by less than a cell, because of
rounding or by half a cell at the edge, therefore reads the edge value in every engine.

Samples that are zero outside (`roi_padding` "zeros") cannot share a canvas. There, each bin is the sum of a few cells
of its level, and all bins of all boxes are the rows of one sparse matrix.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.configuration.model import STRIDES, ModelConfig

GUTTER = 1
CANONICAL_SIDE = 224.0  # pixels; a box of this side belongs to P4 (FPN, arXiv 1612.03144, equation 1)
CANONICAL_LEVEL = 4
LEVELS = (2, 3, 4, 5)

# From a level [B, H, W, C], boxes [N, 4] in input pixels, the image [N] of each, the bins per axis and the level's
# stride to crops [N, C, bins, bins]. `export` has one that stands for an operator of ONNX, whose layout this is.
LevelSampler = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, int, int], tf.Tensor]


class Atlas(NamedTuple):
    """From `build_atlas`.

    Attributes:
        canvas: float32 [B, H_2 + 2, W_2 + W_3 + 4, C].
        places: int32 [4, 4], for each level the row and column of its first cell, its height and its width.
    """

    canvas: tf.Tensor
    places: tf.Tensor


# What boxes are cropped from: `pyramid_roi_align` takes the first, `pyramid_roi_align_zeros` the second.
Pyramid = Atlas | Sequence[tf.Tensor]

# A side that is shorter than the border of a level by less than rounding counts as longer; in octaves, as in
# torchvision. Detectron2 and MMDetection differ by less than this.
_LEVEL_MARGIN = 1e-6


def assign_levels(boxes: tf.Tensor, image_size: tf.Tensor, config: ModelConfig | None = None) -> tf.Tensor:
    """Return the pyramid level of each box: FPN equation 1, rounded half to even, or down (`roi_level` "floor").

    Args:
        boxes: float32 [..., 4] in the frame of the network.
        image_size: int32 [2] height, width of the padded image.
        config: The fields `roi_level` and `box_frame` count.

    Returns:
        int32 [...] 2 to 5; 2 for boxes without area.
    """
    config = config or ModelConfig()
    size = tf.cast(image_size, tf.float32)
    if config.roi_level == "floor":  # compared, because engines differ in the last bit of a logarithm
        side = tf.sqrt(box_ops.areas(box_ops.to_pixels(boxes, image_size, config.box_frame)))
        borders = [CANONICAL_SIDE * 2.0 ** (level - CANONICAL_LEVEL - _LEVEL_MARGIN) for level in LEVELS[1:]]
        above = tf.cast(side[..., None] >= tf.constant(borders, tf.float32), tf.int32)
        return LEVELS[0] + tf.reduce_sum(above, axis=-1)
    if config.box_frame == "continuous":
        boxes = boxes / tf.concat([size, size], axis=0)
    side = tf.sqrt(box_ops.areas(boxes))
    canonical = CANONICAL_SIDE / tf.sqrt(size[0] * size[1])
    level = CANONICAL_LEVEL + tf.round(tf.math.log(side / canonical) / tf.math.log(2.0))
    # Clipped before the cast, because log(0) is -inf, which is not an integer.
    return tf.cast(tf.clip_by_value(level, float(LEVELS[0]), float(LEVELS[-1])), tf.int32)


def build_atlas(features: Sequence[tf.Tensor], narrow: bool = False) -> Atlas:
    """Lay P2..P5 out in one canvas: P2 | (P3 above (P4 | P5)).

    The right part is never taller than P2: (H_3 + 2) + (H_4 + 2) <= H_2 + 2 for images of at least 64 pixels.

    Args:
        features: Four float32 [B, H_l, W_l, C], each half the size of the one before.
        narrow: Whether images may be 32 pixels wide: there, P4 and P5 together are wider than P3.
    """
    p2, p3, p4, p5 = (tf.pad(feature, _GUTTERS, mode="SYMMETRIC") for feature in features)
    (h2, w2), (h3, w3), (h4, w4), (h5, w5) = (tf.unstack(box_ops.grid_size(p)) for p in (p2, p3, p4, p5))
    if narrow:
        wider = tf.maximum(w4 + w5 - w3, 0)
        p3, w3 = tf.pad(p3, [[0, 0], [0, 0], [0, wider], [0, 0]]), w3 + wider
    p5 = tf.pad(p5, [[0, 0], [0, h4 - h5], [0, w3 - w4 - w5], [0, 0]])
    below = tf.pad(tf.concat([p4, p5], axis=2), [[0, 0], [0, h2 - h3 - h4], [0, 0], [0, 0]])
    right = tf.concat([p3, below], axis=1)
    corners = [[0, 0], [0, w2], [h3, w2], [h3, w2 + w4]]
    sides = [[h2, w2], [h3, w3 - wider if narrow else w3], [h4, w4], [h5, w5]]
    places = tf.concat([tf.stack(corners) + GUTTER, tf.stack(sides) - 2 * GUTTER], axis=1)
    return Atlas(tf.concat([p2, right], axis=2), places)


_GUTTERS = [[0, 0], [GUTTER, GUTTER], [GUTTER, GUTTER], [0, 0]]


def pyramid_roi_align(
    atlas: Atlas,
    boxes: tf.Tensor,
    image_size: tf.Tensor,
    pool_size: int,
    config: ModelConfig,
    image_of: tf.Tensor | None = None,
) -> tf.Tensor:
    """Crop each box from its level, of which samples repeat the edges.

    "crop_and_resize" takes one bilinear sample per bin, the first on y1 and the last on y2 of the level's grid
    0..H-1, as matterport's weights were trained. "roi_align" takes the mean of 2 x 2 samples per bin with half-pixel
    centers (Mask R-CNN, section 3; called `aligned` elsewhere).

    Args:
        atlas: From `build_atlas`.
        boxes: float32 [B, N, 4] in the frame of the network, within the image.
        image_size: int32 [2] height, width of the padded image.
        pool_size: Side of the crops.
        config: The fields `roi_sampling`, `roi_level` and `box_frame` count.
        image_of: int32 [B * N], the image of each box; by default there are N boxes in each of B images.

    Returns:
        float32 [B * N, pool_size, pool_size, C].
    """
    canvas, places = atlas
    sampling = config.roi_sampling
    levels = assign_levels(boxes, image_size, config)
    if config.box_frame == "continuous":
        boxes = box_ops.normalize(boxes, image_size)
    places = tf.pad(tf.cast(places, tf.float32), [[LEVELS[0], 0], [0, 0]])  # row 2 is that of level 2
    place = tf.gather(places, levels)  # [B, N, 4]
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


def pyramid_roi_align_zeros(
    levels: Sequence[tf.Tensor],
    boxes: tf.Tensor,
    image_size: tf.Tensor,
    pool_size: int,
    config: ModelConfig,
    image_of: tf.Tensor | None = None,
    sampler: LevelSampler | None = None,
    every_level: bool = False,
) -> tf.Tensor:
    """Crop each box from its level, of which samples beyond one cell outside are zero, as in PyTorch's packages.

    Args:
        levels: Four float32 [B, H_l, W_l, C].
        boxes: float32 [B, N, 4] in the frame of the network.
        image_size: int32 [2] height, width of the padded image.
        pool_size: Side of the crops.
        config: The fields `roi_*` and `box_frame` count.
        image_of: int32 [B * N], the image of each box; by default there are N boxes in each of B images.
        sampler: Crops from one level; by default, one sparse product crops from all.
        every_level: With `sampler`: crop each box from every level, which is more work, but has a fixed shape.

    Returns:
        float32 [B * N, pool_size, pool_size, C].
    """
    if image_of is None:
        image_of = tf.repeat(tf.range(tf.shape(boxes)[0]), tf.shape(boxes)[1])
    index = tf.reshape(assign_levels(boxes, image_size, config) - LEVELS[0], [-1])
    pixels = tf.stop_gradient(tf.reshape(box_ops.to_pixels(boxes, image_size, config.box_frame), [-1, 4]))
    if sampler is None:
        return sparse_crops(levels, pixels, index, image_of, pool_size, config)
    numbered = list(enumerate(zip(levels, STRIDES[: len(levels)], strict=True)))
    if every_level:
        chosen = tf.constant(0.0)
        for number, (level, stride) in numbered:
            here = tf.equal(index, number)[:, None]  # others become points, which have few samples
            crops = sampler(level, tf.where(here, pixels, 0.0), image_of, pool_size, stride)
            chosen = tf.where(here[..., None, None], crops, chosen)
        return tf.transpose(chosen, [0, 2, 3, 1])
    rows = [tf.where(tf.equal(index, number))[:, 0] for number, _ in numbered]
    crops = [
        sampler(level, tf.gather(pixels, rows[number]), tf.gather(image_of, rows[number]), pool_size, stride)
        for number, (level, stride) in numbered
    ]
    # In int64 throughout: OpenVINO takes the largest possible sum of four unknown numbers, which int32 cannot hold.
    order = tf.concat(rows, axis=0)
    place = tf.scatter_nd(order[:, None], tf.range(tf.size(order, tf.int64)), tf.shape(order, tf.int64))
    # Gathered, not scattered, so that ONNX infers the sides: where they are known, the heads get faster operators.
    return tf.transpose(tf.gather(tf.concat(crops, axis=0), place), [0, 2, 3, 1])


def sparse_crops(
    levels: Sequence[tf.Tensor],
    pixels: tf.Tensor,
    index: tf.Tensor,
    image_of: tf.Tensor,
    bins: int,
    config: ModelConfig,
    strides: Sequence[int] = STRIDES,
) -> tf.Tensor:
    """Multiply the cells of all levels by a sparse matrix of one row per bin, which has the mean of its samples.

    Args:
        levels: float32 [B_l, H_l, W_l, C].
        pixels: float32 [N, 4] boxes.
        index: int32 [N], the level of each box.
        image_of: int32 [N], the image of each box in its level.
        bins: Side of the crops.
        config: The fields `roi_aligned` and `roi_sampling_ratio` count.
        strides: Pixels per cell of each level.

    Returns:
        float32 [N, bins, bins, C].
    """
    channels = levels[0].shape[-1]
    grids = tf.stack([box_ops.grid_size(level) for level in levels])  # [4, 2]
    counts = tf.stack([tf.reduce_prod(tf.shape(level)[:3]) for level in levels])
    cells = tf.concat([tf.reshape(level, [-1, channels]) for level in levels], axis=0)
    grid = tf.gather(grids, index)  # [N, 2]
    stride = tf.gather(tf.constant(strides[: len(levels)], tf.float32), index)[:, None]
    first, last = tf.split(pixels / stride - (0.5 if config.roi_aligned else 0.0), 2, axis=1)
    side = last - first if config.roi_aligned else tf.maximum(last - first, 1.0)
    ratio = config.roi_sampling_ratio
    samples = tf.fill(tf.shape(side), ratio) if ratio else tf.cast(tf.math.ceil(side / float(bins)), tf.int32)
    samples = tf.maximum(samples, 0)
    weights, begins, lengths = zip(
        *(_axis_weights(first[:, k], side[:, k], grid[:, k], samples[:, k], bins) for k in range(2)), strict=True
    )
    # One entry for each box, bin y, bin x, cell y and cell x, in this order.
    per_bin = lengths[0] * lengths[1]
    box, rest = _enumerate(bins * bins * per_bin)
    bin_, cell = rest // tf.gather(per_bin, box), rest % tf.gather(per_bin, box)
    width = tf.gather(lengths[1], box)
    weight, place = tf.ones_like(tf.gather(pixels[:, 0], box)), []
    for k, (bin_k, cell_k) in enumerate(((bin_ // bins, cell // width), (bin_ % bins, cell % width))):
        weight *= tf.gather_nd(weights[k], tf.stack([box, bin_k, cell_k], axis=1))
        begin = tf.gather_nd(begins[k], tf.stack([box, bin_k], axis=1))
        place.append(tf.minimum(begin + cell_k, tf.gather(grid[:, k], box) - 1))
    before = tf.gather(tf.cumsum(counts, exclusive=True), tf.gather(index, box))
    in_image = tf.gather(image_of, box) * tf.gather(grid[:, 0], box) + place[0]
    column = before + in_image * tf.gather(grid[:, 1], box) + place[1]
    rows = tf.size(index) * bins * bins
    matrix = tf.SparseTensor(
        tf.cast(tf.stack([box * bins * bins + bin_, column], axis=1), tf.int64),
        tf.stop_gradient(weight),
        tf.cast(tf.stack([rows, tf.shape(cells)[0]]), tf.int64),
    )
    return tf.reshape(tf.sparse.sparse_dense_matmul(matrix, cells), [-1, bins, bins, channels])


def _axis_weights(
    first: tf.Tensor, side: tf.Tensor, grid: tf.Tensor, samples: tf.Tensor, bins: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what each cell along one axis counts in the mean of the samples of each bin.

    Args:
        first: float32 [N], where the box begins, in cells.
        side: float32 [N], how long it is.
        grid: int32 [N], cells of its level.
        samples: int32 [N] per bin; a box without samples gets zeros.
        bins: P.

    Returns:
        Weights float32 [N, P, m], the cell int32 [N, P] of the first of them, and how many, int32 [N], can be used.
    """
    step, last = side / float(bins), tf.cast(grid - 1, tf.float32)
    share = tf.cast(tf.maximum(samples, 1), tf.float32)
    span = tf.maximum(step * (share - 1.0) / share, 0.0)  # from the first sample of a bin to its last
    length = tf.where(samples > 0, tf.cast(tf.math.ceil(span), tf.int32) + 2, 0)
    start = first[:, None] + tf.range(float(bins)) * step[:, None] + 0.5 * (step / share)[:, None]
    begin = tf.cast(tf.minimum(tf.floor(tf.maximum(start, 0.0)), last[:, None]), tf.int32)

    box, rest = _enumerate(bins * samples)
    bin_, sample = rest // tf.gather(samples, box), rest % tf.gather(samples, box)
    step, share, last = (tf.gather(value, box) for value in (step, share, last))
    position = tf.gather(first, box) + tf.cast(bin_, tf.float32) * step
    position += (tf.cast(sample, tf.float32) + 0.5) * step / share
    counted = tf.cast((position >= -1.0) & (position <= last + 1.0), tf.float32) / share
    position = tf.maximum(position, 0.0)
    low = tf.minimum(tf.floor(position), last)
    high_share = tf.where(low >= last, 0.0, position - low)
    # Rounding could place a sample one cell further than `length` allows, with a share that is rounding too.
    cell = tf.cast(low, tf.int32) - tf.gather_nd(begin, tf.stack([box, bin_], axis=1))
    most = tf.gather(length, box) - 1
    places = [tf.stack([box, bin_, tf.clip_by_value(at, 0, most)], axis=1) for at in (cell, cell + 1)]
    shares = [counted * (1.0 - high_share), counted * high_share]
    shape = tf.stack([tf.size(first), bins, tf.reduce_max(tf.concat([length, [1]], axis=0))])
    return tf.scatter_nd(tf.concat(places, axis=0), tf.concat(shares, axis=0), shape), begin, length


def _enumerate(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return (row, 0), (row, 1), ... for each row of int32 counts [N], as two tensors."""
    row = tf.repeat(tf.range(tf.size(counts)), counts)
    return row, tf.range(tf.reduce_sum(counts)) - tf.gather(tf.cumsum(counts, exclusive=True), row)
