"""Targets of the heads: proposals matched to objects, with class, deltas and mask (Mask R-CNN, section 3.1)."""

from typing import NamedTuple

import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.configuration.model import BoxFrame, ModelConfig
from maskrcnn.roi_align import sparse_crops
from runtime.masks.edges import PasteMode

POSITIVE_IOU = 0.5
CROWD_IOU = 0.001


class HeadTargets(NamedTuple):
    """R rows per image: positives, then negatives, then padding; boxes are in the frame of the network.

    Attributes:
        rois: float32 [B, R, 4], zero in padding.
        valid: bool [B, R], False in padding.
        class_ids: int32 [B, R], 0 for background and padding.
        deltas: float32 [B, R, 4] in units of `box_std`, zero except for positives.
        masks: float32 [B, P, M, M] of 0 and 1, for the first P rows, the only ones that can be positive.
    """

    rois: tf.Tensor
    valid: tf.Tensor
    class_ids: tf.Tensor
    deltas: tf.Tensor
    masks: tf.Tensor


class GroundTruth(NamedTuple):
    """The objects of each image, padded with class 0.

    Attributes:
        class_ids: int32 [B, N]; negative for a crowd of that class.
        boxes: float32 [B, N, 4] in the frame of the network.
        masks: float32 [B, N or fewer, h, w], spanning each box if `mini_masks`, else the whole image.
    """

    class_ids: tf.Tensor
    boxes: tf.Tensor
    masks: tf.Tensor


def head_targets(
    proposals: tf.Tensor,
    truth: GroundTruth,
    seeds: tf.Tensor,
    rois_per_image: int,
    positive_ratio: float,
    original_bugs: bool,
    truth_as_proposals: bool = False,
) -> tuple[HeadTargets, tf.Tensor]:
    """Sample rows from the proposals; `masks` of the result is empty, see `mask_targets`.

    A proposal is positive if its IoU with an object is at least 0.5. Otherwise it is negative, unless its IoU with a
    crowd is 0.001 or more.

    Args:
        proposals: float32 [B, N, 4] in the frame of the network; zero rows are padding.
        truth: The objects.
        seeds: int32 [B, 2], random seed of each image.
        rois_per_image: R.
        positive_ratio: Largest share of positives; P = int(R * positive_ratio).
        original_bugs: Limit the negatives by the number of positives found and that ratio; no positives, no negatives.
        truth_as_proposals: Whether the boxes of objects are proposals, too.

    Returns:
        The targets, with unscaled deltas, and int32 [B, P], the object of each of the first P rows.
    """
    if truth_as_proposals:
        objects = tf.where(truth.class_ids[..., None] > 0, truth.boxes, 0.0)
        proposals = tf.concat([proposals, objects], axis=1)
    iou, crowd_iou = _overlaps(proposals, truth)
    best_iou, best_object = tf.reduce_max(iou, axis=2), tf.argmax(iou, axis=2, output_type=tf.int32)
    best_object = tf.minimum(best_object, tf.shape(truth.boxes)[1] - 1)  # the last column stands for no object
    real = tf.reduce_any(tf.not_equal(proposals, 0.0), axis=2)
    is_positive = real & (best_iou >= POSITIVE_IOU)
    is_negative = real & (best_iou < POSITIVE_IOU) & (tf.reduce_max(crowd_iou, axis=2) < CROWD_IOU)

    chance = _chance(seeds, tf.shape(proposals)[1])  # [B, N], 0 to 1
    most = int(rois_per_image * positive_ratio)
    positives, has_positive = _draw(is_positive, chance, most)
    negatives, has_negative = _draw(is_negative, chance, rois_per_image)
    num_positive = tf.reduce_sum(tf.cast(has_positive, tf.int32), axis=1, keepdims=True)
    wanted = rois_per_image - num_positive
    if original_bugs:
        wanted = tf.cast(1.0 / positive_ratio * tf.cast(num_positive, tf.float32), tf.int32) - num_positive
    has_negative &= tf.range(rois_per_image)[None, :] < wanted

    rows, valid = _compact(positives, has_positive, negatives, has_negative, rois_per_image)
    positive = tf.range(rois_per_image)[None, :] < num_positive
    rois = tf.where(valid[..., None], _take(proposals, rows), 0.0)
    objects = tf.gather(best_object, rows, batch_dims=1)
    class_ids = tf.where(positive, tf.gather(truth.class_ids, objects, batch_dims=1), 0)
    # Other rows get a safe box: the logarithm of a zero side would make gradients NaN.
    safe = tf.constant([0.0, 0.0, 1.0, 1.0])
    source = tf.where(positive[..., None], rois, safe)
    target = tf.where(positive[..., None], tf.gather(truth.boxes, objects, batch_dims=1), safe)
    deltas = box_ops.encode(source, target)
    empty = tf.zeros([tf.shape(rois)[0], 0, 0, 0])
    return HeadTargets(rois, valid, class_ids, deltas, empty), objects[:, :most]


def _overlaps(proposals: tf.Tensor, truth: GroundTruth) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the IoU [B, N, M + 1] with objects, and with crowds; the last column stands for no object and is 0."""
    top_left = tf.maximum(proposals[:, :, None, :2], truth.boxes[:, None, :, :2])  # [B, N, M, 2]
    bottom_right = tf.minimum(proposals[:, :, None, 2:], truth.boxes[:, None, :, 2:])
    sides = tf.maximum(bottom_right - top_left, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_ops.areas(proposals)[:, :, None] + box_ops.areas(truth.boxes)[:, None, :] - intersection
    iou = tf.math.divide_no_nan(intersection, union)
    ids = truth.class_ids[:, None, :]
    nothing = tf.zeros_like(iou[:, :, :1])
    objects = tf.concat([tf.where(ids > 0, iou, -1.0), nothing], axis=2)
    return objects, tf.concat([tf.where(ids < 0, iou, 0.0), nothing], axis=2)


def _chance(seeds: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Return uniform numbers [B, count] from each image's own seed: the same on any device and in any batch."""
    draw = lambda seed: tf.random.stateless_uniform([count], seed)  # noqa: E731
    return tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec([None], tf.float32))


def _draw(wanted: tf.Tensor, chance: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw up to `count` of the wanted columns per row in random order: indices, and whether there is one."""
    # If there are fewer columns than `count`, the rest is padding.
    missing = tf.maximum(count - tf.shape(wanted)[1], 0)
    keys = tf.pad(tf.where(wanted, chance, -1.0), [[0, 0], [0, missing]], constant_values=-1.0)
    values, index = tf.math.top_k(keys, k=count)
    found = values >= 0.0
    return tf.where(found, index, 0), found


def _compact(
    positives: tf.Tensor, has_positive: tf.Tensor, negatives: tf.Tensor, has_negative: tf.Tensor, count: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Join positives and negatives without gaps: proposal index [B, count] and whether the row is in use."""
    rows = tf.concat([positives, negatives], axis=1)
    used = tf.concat([has_positive, has_negative], axis=1)
    order = tf.argsort(tf.cast(~used, tf.int32), axis=1, stable=True)[:, :count]
    return tf.gather(rows, order, batch_dims=1), tf.gather(used, order, batch_dims=1)


def _take(boxes: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.gather(boxes, rows, batch_dims=1)


def mask_targets(
    rois: tf.Tensor,
    truth: GroundTruth,
    objects: tf.Tensor,
    image_size: tf.Tensor,
    mask_size: int,
    paste: PasteMode,
    mini_masks: bool,
    box_frame: BoxFrame = "inclusive",
) -> tf.Tensor:
    """Crop the masks of objects to their ROIs, at the output size of the mask head.

    "matterport" puts the first and the last sample on the ROI's edges (`crop_and_resize`), as its weights were
    trained. "aligned" puts each sample at the center of its bin, where the pasting of the same name expects it.
    "torchvision" and "detectron2" take the mean of as many samples per bin as there are cells, and Detectron2 (like
    MMDetection) rounds it.

    Args:
        rois: float32 [B, P, 4] in `box_frame`, as the boxes of `truth`.
        truth: The objects.
        objects: int32 [B, P], the object of each ROI.
        image_size: int32 [2] height, width of the padded image.
        mask_size: M.
        paste: How predicted masks will be pasted into the image.
        mini_masks: Whether `truth.masks` span the boxes.
        box_frame: That of the network.

    Returns:
        float32 [B, P, M, M] of 0 and 1; 0.5 becomes 0, or 1 for "detectron2". For "torchvision" means, 0 to 1.
    """
    whole = box_ops.whole_input(image_size, box_frame)
    frame = tf.gather(truth.boxes, objects, batch_dims=1) if mini_masks else whole
    if box_frame == "continuous":  # masks consist of whole pixels, see `maskrcnn.data.mask_crops.letterbox_crop`
        frame = tf.math.ceil(frame - 1e-3) if paste == "torchvision" else tf.round(frame)
    frame = tf.broadcast_to(frame, tf.shape(rois))
    batch, per_image = tf.shape(truth.masks)[0], tf.shape(truth.masks)[1]
    height, width = tf.shape(truth.masks)[2], tf.shape(truth.masks)[3]
    objects = tf.minimum(objects, per_image - 1)  # of rows without an object
    index = tf.reshape(objects + per_image * tf.range(batch)[:, None], [-1])
    canvas = tf.reshape(truth.masks, [-1, height, width, 1])
    size = [mask_size, mask_size]
    shape = tf.concat([tf.shape(objects), size], axis=0)
    if paste in _MASK_SAMPLING:
        relative = _relative(*(box_ops.to_pixels(boxes, image_size, box_frame) for boxes in (rois, frame)))
        cells = tf.reshape(relative, [-1, 4]) * tf.cast(tf.stack([height, width, height, width]), tf.float32)
        nothing = tf.zeros_like(index)
        means = sparse_crops([canvas], cells, nothing, index, mask_size, _MASK_SAMPLING[paste], strides=(1,))
        return tf.reshape(means if paste == "torchvision" else tf.cast(means >= 0.5, tf.float32), shape)
    if paste == "matterport":
        relative = tf.reshape(_relative(rois, frame), [-1, 4])
        samples = tf.image.crop_and_resize(canvas, relative, index, size)[..., 0]
    else:
        pixels, frame_pixels = (box_ops.to_pixels(boxes, image_size, box_frame) for boxes in (rois, frame))
        samples = _aligned_samples(canvas, pixels, frame_pixels, index, mask_size)
    return tf.reshape(tf.round(samples), shape)


_MASK_SAMPLING = {
    "torchvision": ModelConfig(roi_sampling="roi_align", roi_aligned=False, roi_padding="zeros", roi_sampling_ratio=0),
    "detectron2": ModelConfig(roi_sampling="roi_align", roi_padding="zeros", roi_sampling_ratio=0),
}


def _relative(rois: tf.Tensor, frame: tf.Tensor) -> tf.Tensor:
    """Return ROIs in units of their frames, 0 to 1."""
    sides = frame[..., 2:] - frame[..., :2]
    origin = tf.concat([frame[..., :2], frame[..., :2]], axis=-1)
    return tf.math.divide_no_nan(rois - origin, tf.concat([sides, sides], axis=-1))


def _aligned_samples(
    canvas: tf.Tensor, pixels: tf.Tensor, frame_pixels: tf.Tensor, index: tf.Tensor, mask_size: int
) -> tf.Tensor:
    """Return bilinear samples [N, M, M] at bin centers: 0 outside the frame, the edge cell's value near its edge.

    Cell i of a mask of n cells over a frame of s pixels has its center at (i + 0.5) * s / n. Example: if the ROI
    equals its frame, M = 28 and n = 56, bin 0 has its center at 1 / 56 of the side, between cells 0 and 1.
    """
    relative = tf.reshape(_relative(pixels, frame_pixels), [-1, 4])
    cells = tf.cast(tf.shape(canvas)[1:3], tf.float32)
    step = (relative[:, 2:] - relative[:, :2]) / mask_size
    first = (relative[:, :2] + 0.5 * step) * cells - 0.5  # in cells, [N, 2]
    last = (relative[:, 2:] - 0.5 * step) * cells - 0.5
    padded = tf.pad(canvas, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    scale = cells + 1.0
    boxes = tf.concat([(first + 1.0) / scale, (last + 1.0) / scale], axis=-1)
    samples = tf.image.crop_and_resize(padded, boxes, index, [mask_size, mask_size])[..., 0]
    share = tf.linspace(0.0, 1.0, mask_size)[None, :, None]
    position = first[:, None] + share * (last - first)[:, None]  # [N, M, 2]
    inside = tf.cast((position >= -0.5) & (position <= cells - 0.5), tf.float32)
    return samples * inside[:, :, None, 0] * inside[:, None, :, 1]
