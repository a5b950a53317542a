"""Mask R-CNN: the parts wired together. No mathematics here."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.anchors import model_anchors
from maskrcnn.backbone import batch_norm, build_backbone
from maskrcnn.box_head import build_box_head
from maskrcnn.configuration.model import BoxFrame, Config
from maskrcnn.detection import detect
from maskrcnn.errors import ConfigError
from maskrcnn.fpn import build_fpn
from maskrcnn.mask_head import build_mask_head, masks_of_class
from maskrcnn.nms import Tap
from maskrcnn.roi_align import Atlas, LevelSampler, Pyramid, build_atlas, pyramid_roi_align, pyramid_roi_align_zeros
from maskrcnn.rpn import apply_rpn, build_rpn, propose


class Stages(NamedTuple):
    """Every stage boundary tensor, in the order of computation.

    The batch axis comes first; boxes are y1, x1, y2, x2 in the frame of the network. `rois` are crops.
    """

    p2: tf.Tensor
    p3: tf.Tensor
    p4: tf.Tensor
    p5: tf.Tensor
    p6: tf.Tensor
    rpn_probs: tf.Tensor  # [B, A, 2]; or [B, A, 1] logits, if objectness is "sigmoid"
    rpn_deltas: tf.Tensor  # [B, A, 4]
    proposals: tf.Tensor  # [B, N, 4]
    box_rois: tf.Tensor  # [B * N, 7, 7, C]
    class_probs: tf.Tensor  # [B, N, K]
    box_deltas: tf.Tensor  # [B, N, K, 4]
    detected_boxes: tf.Tensor  # [B, D, 4]
    scores: tf.Tensor  # [B, D]
    class_ids: tf.Tensor  # [B, D]
    num_detections: tf.Tensor  # [B]
    mask_rois: tf.Tensor  # [R, S, S, C], for the rows in use or for all rows
    masks: tf.Tensor  # [B, D, M, M]


class MaskRCNN(keras.Model):
    """Mask R-CNN with a ResNet-FPN, for inference and training.

    Args:
        config: The configuration of the model.
        backbone: A Keras model from [B, H, W, C] to C2..C5, for a configuration with backbone "custom".

    Raises:
        ConfigError: The backbone does not fit the configuration.
    """

    def __init__(self, config: Config, backbone: keras.Model | None = None) -> None:
        super().__init__(name="mask_rcnn")
        if (backbone is not None) != (config.model.backbone == "custom"):
            raise ConfigError(
                f"backbone is {config.model.backbone!r} and a Keras backbone was "
                f"{'given' if backbone is not None else 'not given'}: give one if, and only if, it is 'custom'"
            )
        model, train_bn = config.model, config.training.train_batch_norm
        self.config = config
        self.backbone = backbone if backbone is not None else build_backbone(model, train_bn)
        outputs = self.backbone.outputs
        if len(outputs) != 4:
            raise ConfigError(f"the backbone has {len(outputs)} outputs: expected four, C2 to C5")
        normalize = partial(batch_norm, train=train_bn, epsilon=model.batch_norm_epsilon)
        self.fpn = build_fpn(
            [output.shape[-1] for output in outputs], model.fpn_channels, normalize if model.fpn_batch_norm else None
        )
        self.rpn = build_rpn(model)
        self.box_head = build_box_head(model, train_bn)
        self.mask_head = build_mask_head(model, train_bn)
        self.built = True  # every part has its weights from the start

    @property
    def parts(self) -> tuple[keras.Model, ...]:
        """The sub-models, which hold all weights."""
        return self.backbone, self.fpn, self.rpn, self.box_head, self.mask_head

    def mold(self, images: tf.Tensor, windows: tf.Tensor | None = None) -> tf.Tensor:
        """Subtract the mean from uint8 or float32 [B, H, W, C], divide by `pixel_std`, and clear the padding.

        Args:
            images: The mean is subtracted with one rounding, as in NumPy.
            windows: As for `stages`; needed if the padding is "mean".

        Returns:
            float32 [B, H, W, C].

        Raises:
            ConfigError: The padding is "mean", and there are no windows.
        """
        model = self.config.model
        molded = self._centered(images)
        if model.pixel_std:
            molded /= tf.constant(model.pixel_std, tf.float32)
        if model.padding == "mean":
            if windows is None:
                raise ConfigError("padding is 'mean': the positions of the images in the padding are needed (windows)")
            molded *= _inside(windows, tf.shape(images))
        return molded

    def _centered(self, images: tf.Tensor) -> tf.Tensor:
        means = self.config.model.mean_pixel
        if images.dtype == tf.float32:
            return images - tf.constant(means, tf.float32)
        parts = [split_mean(mean) for mean in means]
        if all(parts):
            coarse, fine = np.array(parts, np.float32).T
            return (tf.cast(images, tf.float32) - coarse) - fine
        mean = tf.constant(means, tf.float64)
        return tf.cast(tf.cast(images, tf.float64) - mean, tf.float32)

    def features(self, molded: tf.Tensor) -> list[tf.Tensor]:
        """Return P2..P6 of molded images; float32 even in mixed precision, because crops are sampled from them."""
        return [tf.cast(level, tf.float32) for level in self.fpn(self.backbone(molded))]

    def region_probs(self, features: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Return RPN probabilities [B, A, 2] and deltas [B, A, 4] of P2..P6.

        If objectness is "sigmoid", logits [B, A, 1] take the place of probabilities: anchors are ranked by them, and
        large ones have the same probability.
        """
        logits, deltas = apply_rpn(self.rpn, features)
        return (tf.nn.softmax(logits) if self.config.model.objectness == "softmax" else logits), deltas

    def proposals(
        self,
        probs: tf.Tensor,
        deltas: tf.Tensor,
        image_size: tf.Tensor,
        windows: tf.Tensor | None,
        training: bool = False,
        image_by_image: bool = False,
    ) -> tf.Tensor:
        """Return proposals [B, N, 4] from the output of the RPN; `windows` [B, 4] are in input pixels."""
        model = self.config.model
        area = box_ops.whole_input(image_size, model.box_frame)
        if self.config.proposals.clip == "window":
            if windows is None:
                raise ConfigError("proposals.clip is 'window', but where the images lie is not known: expected 'input'")
            area = box_ops.to_frame(windows, image_size, model.box_frame)[:, None, :]
        anchors = model_anchors(image_size, model)
        scores = probs[..., probs.shape[-1] - 1]  # of two, background and object, the second
        return propose(scores, deltas, anchors, self.config, area, training, image_by_image)

    def pyramid(self, levels: Sequence[tf.Tensor]) -> Pyramid:
        """Prepare P2..P5 for `crops`."""
        if self.config.model.roi_padding == "zeros":
            return levels
        policies = [self.config.resize, self.config.training.resize]
        return build_atlas(levels, narrow=any(policy and policy.mode == "short_side" for policy in policies))

    def crops(
        self,
        pyramid: Pyramid,
        boxes: tf.Tensor,
        image_size: tf.Tensor,
        pool_size: int,
        image_of: tf.Tensor | None = None,
        sampler: LevelSampler | None = None,
        every_level: bool = False,
    ) -> tf.Tensor:
        """Crop boxes [B, N, 4] to [B * N, pool_size, pool_size, C] from `pyramid`; see `roi_align` for the others."""
        model = self.config.model
        if isinstance(pyramid, Atlas):
            return pyramid_roi_align(pyramid, boxes, image_size, pool_size, model, image_of)
        return pyramid_roi_align_zeros(pyramid, boxes, image_size, pool_size, model, image_of, sampler, every_level)

    def classify(self, rois: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return class probabilities [B, N, K] and deltas [B, N, K, 4] of crops [B * N, ...]."""
        logits, deltas = self.box_head(rois)
        classes = self.config.model.num_classes
        probs = tf.reshape(tf.nn.softmax(logits), tf.stack([batch, -1, classes]))
        return probs, tf.reshape(deltas, tf.stack([batch, -1, classes, 4]))

    def segment(self, rois: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
        """Return mask probabilities [R, M, M] of crops [R, ...] and their classes [R]."""
        return masks_of_class(self.mask_head, rois, class_ids)

    def stages(
        self,
        images: tf.Tensor,
        windows: tf.Tensor,
        score_threshold: tf.Tensor | float,
        nms_threshold: tf.Tensor | float,
        tap: Tap = lambda _name, tensor: tensor,
        every_row: bool = False,
        nms_in_steps: bool = False,
        sampler: LevelSampler | None = None,
    ) -> Stages:
        """Run inference and return every stage boundary tensor.

        Args:
            images: [B, H, W, C] of the type and multiples of the configuration's `resize`.
            windows: float32 [B, 4] y1, x1, y2, x2 of the image inside the padding, in input pixels.
            score_threshold: Scalar, see `detection.detect`.
            nms_threshold: Scalar, see `detection.detect`.
            tap: Called with the name and value of each stage boundary tensor; later stages use what it returns.
            every_row: Whether the mask head runs on all B * D rows, used or not, and `sampler` on all levels: more
                work, but a fixed shape.
            nms_in_steps: Whether NMS of detections is `nms.suppress_in_steps` and, if the batch size is static, that of
                proposals `nms.suppress_one_class`.
            sampler: See `roi_align.pyramid_roi_align_zeros`.

        Returns:
            The stage boundary tensors.
        """
        model, detection = self.config.model, self.config.detection
        image_size, batch = box_ops.grid_size(images), tf.shape(images)[0]
        levels = self.features(self.mold(images, windows))
        levels = [tap(f"p{i}", level) for i, level in enumerate(levels, start=2)]
        rpn_probs, rpn_deltas = self.region_probs(levels)
        rpn_probs, rpn_deltas = tap("rpn_probs", rpn_probs), tap("rpn_deltas", rpn_deltas)
        one_by_one = nms_in_steps and images.shape[0] is not None
        proposals = self.proposals(rpn_probs, rpn_deltas, image_size, windows, image_by_image=one_by_one)
        proposals = tap("proposals", proposals)
        pyramid = self.pyramid(levels[:4])
        crops = partial(self.crops, pyramid, sampler=sampler, every_level=every_row)
        box_rois = tap("box_rois", crops(proposals, image_size, model.box_pool_size))
        class_probs, box_deltas = self.classify(box_rois, batch)
        class_probs, box_deltas = tap("class_probs", class_probs), tap("box_deltas", box_deltas)
        boxes, scores, class_ids, count = detect(
            proposals,
            class_probs,
            box_deltas,
            box_ops.to_frame(windows, image_size, model.box_frame),
            self.config,
            score_threshold,
            nms_threshold,
            tap if nms_in_steps else None,
        )
        boxes, scores = tap("detected_boxes", boxes), tap("scores", scores)
        class_ids, count = tap("class_ids", class_ids), tap("num_detections", count)
        used, ids = tf.reshape(boxes, [1, -1, 4]), tf.reshape(class_ids, [-1])
        total = batch * detection.max_detections
        rows = tf.range(total)
        if not every_row:
            rows = _rows_in_use(count, detection.max_detections)
            used, ids = tf.gather(used, rows, axis=1), tf.gather(ids, rows)
        mask_rois = crops(used, image_size, model.mask_pool_size, rows // detection.max_detections)
        mask_rois = tap("mask_rois", mask_rois)
        masks = self.segment(mask_rois, ids)
        if not every_row:
            masks = tf.scatter_nd(rows[:, None], masks, [total, model.mask_size, model.mask_size])
        masks = tf.reshape(masks, tf.concat([tf.shape(class_ids), [model.mask_size, model.mask_size]], 0))
        masks = tap("masks", masks)
        p2, p3, p4, p5, p6 = levels
        heads = (class_probs, box_deltas, boxes, scores, class_ids, count, mask_rois, masks)
        return Stages(p2, p3, p4, p5, p6, rpn_probs, rpn_deltas, proposals, box_rois, *heads)

    def detect(
        self,
        images: tf.Tensor,
        windows: tf.Tensor,
        score_threshold: tf.Tensor | float,
        nms_threshold: tf.Tensor | float,
    ) -> dict[str, tf.Tensor]:
        """Run `stages`, then `contract`. This is the function that every export traces.

        Args:
            images: [B, H, W, C] of the type and multiples of the configuration's `resize`.
            windows: float32 [B, 4] y1, x1, y2, x2 of the image inside the padding, in input pixels.
            score_threshold: Scalar, see `detection.detect`.
            nms_threshold: Scalar, see `detection.detect`.

        Returns:
            `num_detections` int32 [B]; `boxes` float32 [B, D, 4] x1, y1, x2, y2 in input pixels;
            `scores` float32 [B, D]; `class_ids` int32 [B, D]; `masks` float32 [B, D, M, M].
            Rows from `num_detections` on are zero.
        """
        return self.contract(self.stages(images, windows, score_threshold, nms_threshold), images)

    def contract(self, stages: Stages, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Convert stage boundary tensors to the outputs of an artifact; see `contract`."""
        return contract(stages, images, self.config.model.box_frame)


def contract(stages: Stages, images: tf.Tensor, frame: BoxFrame = "inclusive") -> dict[str, tf.Tensor]:
    """Convert stage boundary tensors, boxes in `frame`, to the outputs of an artifact. Only here y, x becomes x, y."""
    pixels = box_ops.to_pixels(stages.detected_boxes, box_ops.grid_size(images), frame)
    rows = tf.range(tf.shape(stages.scores)[1])[None, :]
    used = rows < stages.num_detections[:, None]  # [B, D]
    return {
        "num_detections": stages.num_detections,
        "boxes": tf.where(used[..., None], tf.gather(pixels, [1, 0, 3, 2], axis=-1), 0.0),
        "scores": stages.scores,
        "class_ids": stages.class_ids,
        "masks": tf.where(used[..., None, None], stages.masks, 0.0),
    }


def split_mean(mean: float) -> tuple[float, float] | None:
    """Split a mean into a and b so that, in float32, (x - a) - b is x - mean rounded once, for x = 0, 1, ..., 255.

    GPUs are slow in float64, and TensorRT has none. The first part has so few bits that x - a is exact. None if there
    is no such split, as for one mean in 20,000.
    """
    values = np.arange(256.0)
    wanted = (values - mean).astype(np.float32)
    for bits in range(16, 7, -1):
        coarse = np.round(mean * 2.0**bits) / 2.0**bits
        fine = mean - coarse
        if np.array_equal((np.float32(values) - np.float32(coarse)) - np.float32(fine), wanted):
            return float(coarse), float(fine)
    return None


def _inside(windows: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Return float32 [B, H, W, 1]: 1 for the pixels inside the windows [B, 4], else 0."""
    y1, x1, y2, x2 = tf.unstack(windows, axis=1)

    def along(size: tf.Tensor, first: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        at = tf.cast(tf.range(size), tf.float32)[None, :]
        return tf.cast((at >= first[:, None]) & (at < end[:, None]), tf.float32)

    return along(shape[1], y1, y2)[:, :, None, None] * along(shape[2], x1, x2)[:, None, :, None]


def _rows_in_use(count: tf.Tensor, rows: int) -> tf.Tensor:
    """Return the indices int32 [R] of the rows in use among B * `rows`, given their number [B] in each image.

    If none is in use, row 0 is returned, because engines treat a convolution of an empty batch differently.
    """
    used = tf.reshape(tf.range(rows)[None, :] < count[:, None], [-1])
    found = tf.cast(tf.where(used)[:, 0], tf.int32)
    return tf.concat([found, tf.zeros([tf.maximum(1 - tf.size(found), 0)], tf.int32)], axis=0)
