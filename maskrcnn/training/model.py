"""The network with its losses and one training step, as `keras.Model.fit` drives it."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maskrcnn import boxes as box_ops
from maskrcnn.configuration.training import LOSS_NAMES
from maskrcnn.head_targets import GroundTruth, HeadTargets, head_targets, mask_targets
from maskrcnn.losses import (
    LossSum,
    mrcnn_bbox_loss,
    mrcnn_class_loss,
    mrcnn_mask_loss,
    rpn_bbox_loss,
    rpn_class_loss,
    weight_penalty,
)
from maskrcnn.model import MaskRCNN
from maskrcnn.rpn import apply_rpn

Batch = dict[str, tf.Tensor]


class RegionOutputs(NamedTuple):
    """Output of the first stage: features P2..P6, and the RPN's logits [B, A, 2 or 1] and deltas [B, A, 4], float32."""

    features: list[tf.Tensor]
    logits: tf.Tensor
    deltas: tf.Tensor


class HeadOutputs(NamedTuple):
    """Output of the heads, float32: logits [B, R, K], deltas [B, R, K, 4], masks [N, M, M] of the rows `mask_rows` [N].

    `mask_rows` indexes the first P rows of all images, concatenated. `mask_used` float32 [N] is 0 for the placeholder
    row of a batch without positive rows.
    """

    logits: tf.Tensor
    deltas: tf.Tensor
    masks: tf.Tensor
    mask_rows: tf.Tensor
    mask_used: tf.Tensor


class TrainingModel(keras.Model):
    """A network with its losses; its configuration says how it is trained."""

    def __init__(self, network: MaskRCNN) -> None:
        # Boxes and targets are float32 whatever the precision of the layers.
        super().__init__(name="training", dtype="float32")
        self.network = network
        self._class_weights = network.config.training.weights_of(network.config.model.class_names)
        names = ("loss", *LOSS_NAMES, "l2_loss", "gradient_norm")
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Running means of the losses and of the gradient norm; Keras resets them at each epoch."""
        return list(self._means.values())

    def regions(self, images: tf.Tensor, windows: tf.Tensor | None = None) -> RegionOutputs:
        """Run the backbone, the FPN and the RPN on images [B, H, W, C]; `windows` as in `MaskRCNN.stages`."""
        features = self.network.features(self.network.mold(images, windows))
        logits, deltas = apply_rpn(self.network.rpn, features)
        return RegionOutputs(features, logits, deltas)

    def proposals(self, regions: RegionOutputs, image_size: tf.Tensor, windows: tf.Tensor | None = None) -> tf.Tensor:
        """Return proposals [B, N, 4]; no gradient flows through their coordinates."""
        one_logit = self.network.config.model.objectness == "sigmoid"
        probs = regions.logits if one_logit else tf.nn.softmax(regions.logits)
        return tf.stop_gradient(self.network.proposals(probs, regions.deltas, image_size, windows, training=True))

    def targets(self, proposals: tf.Tensor, batch: Batch, image_size: tf.Tensor) -> HeadTargets:
        """Sample the rows for the heads from the proposals."""
        config, training = self.network.config, self.network.config.training
        boxes = box_ops.to_frame(batch["boxes"], image_size, config.model.box_frame)
        truth = GroundTruth(batch["class_ids"], boxes, tf.cast(batch["masks"], tf.float32))
        found, objects = head_targets(
            proposals,
            truth,
            batch["seeds"],
            training.rois_per_image,
            training.roi_positive_ratio,
            training.original_bugs,
            training.truth_as_proposals,
        )
        masks = mask_targets(
            found.rois[:, : objects.shape[1]],
            truth,
            objects,
            image_size,
            config.model.mask_size,
            config.detection.mask_paste,
            training.mini_mask_size is not None,
            config.model.box_frame,
        )
        found = found._replace(deltas=found.deltas / tf.constant(config.model.box_std, tf.float32), masks=masks)
        return HeadTargets(*(tf.stop_gradient(tensor) for tensor in found))

    def heads(self, regions: RegionOutputs, targets: HeadTargets, image_size: tf.Tensor) -> HeadOutputs:
        """Run both heads; the mask head on positive rows only."""
        network, model = self.network, self.network.config.model
        pyramid = network.pyramid(regions.features[:4])
        logits, deltas = network.box_head(network.crops(pyramid, targets.rois, image_size, model.box_pool_size))
        shape = tf.shape(targets.rois)[:2]
        most = targets.masks.shape[1]
        rois, class_ids = tf.reshape(targets.rois[:, :most], [-1, 4]), tf.reshape(targets.class_ids[:, :most], [-1])
        rows = tf.cast(tf.where(class_ids > 0)[:, 0], tf.int32)
        # Without a positive row, the first row is used with weight 0: batch statistics of nothing are NaN.
        rows = tf.concat([rows, tf.zeros([tf.maximum(1 - tf.size(rows), 0)], tf.int32)], axis=0)
        crops = network.crops(pyramid, tf.gather(rois, rows)[None], image_size, model.mask_pool_size, rows // most)
        masks = tf.transpose(network.mask_head(crops), [0, 3, 1, 2])
        masks = tf.gather(masks, tf.gather(class_ids, rows), batch_dims=1)
        return HeadOutputs(
            tf.reshape(logits, [shape[0], shape[1], model.num_classes]),
            tf.reshape(deltas, [shape[0], shape[1], model.num_classes, 4]),
            masks,
            rows,
            tf.cast(tf.gather(class_ids, rows) > 0, tf.float32),
        )

    def region_losses(self, regions: RegionOutputs, batch: Batch) -> list[LossSum]:
        """Return the two losses of the RPN."""
        match, training = batch["rpn_match"], self.network.config.training
        box_options = training.smooth_l1_beta, training.box_loss_average
        return [
            rpn_class_loss(match, regions.logits),
            rpn_bbox_loss(batch["rpn_bbox"], match, regions.deltas, *box_options),
        ]

    def head_losses(self, heads: HeadOutputs, targets: HeadTargets, active: tf.Tensor) -> list[LossSum]:
        """Return the three losses of the heads."""
        training, side = self.network.config.training, self.network.config.model.mask_size
        box_options = training.smooth_l1_beta, training.box_loss_average
        masks = tf.gather(tf.reshape(targets.masks, [-1, side, side]), heads.mask_rows)
        return [
            mrcnn_class_loss(
                targets.class_ids, heads.logits, active, targets.valid, training.original_bugs, self._class_weights
            ),
            mrcnn_bbox_loss(targets.deltas, targets.class_ids, heads.deltas, targets.valid, *box_options),
            mrcnn_mask_loss(masks, heads.masks, heads.mask_used),
        ]

    def call(self, batch: Batch, training: bool | None = None) -> list[LossSum]:  # noqa: ARG002  (layers read the mode)
        """Return the five losses of a batch, in the order of `LOSS_NAMES`.

        Args:
            batch: As `maskrcnn.data.batches` makes it. An entry `proposals`, float32 [B, N, 4] normalized, replaces
                the proposals of the RPN.
            training: Mode of the batch normalizations that are not fixed.
        """
        image_size = tf.shape(batch["images"])[1:3]
        regions = self.regions(batch["images"], batch.get("windows"))
        given = batch.get("proposals")
        if given is None:
            proposals = self.proposals(regions, image_size, batch.get("windows"))
        else:
            pixels = box_ops.denormalize(given, image_size)
            frame = self.network.config.model.box_frame
            proposals = given if frame == "inclusive" else box_ops.to_frame(pixels, image_size, frame)
        targets = self.targets(proposals, batch, image_size)
        heads = self.heads(regions, targets, image_size)
        return self.region_losses(regions, batch) + self.head_losses(heads, targets, batch["active"])

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Compute losses and gradients, and update the weights; `fit` calls this."""
        training = self.network.config.training
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            losses = self(batch, training=True)
            counts = _sum_over_replicas([loss.count for loss in losses])
            parts = [LossSum(loss.total, count).mean() for loss, count in zip(losses, counts, strict=True)]
            penalty = tf.constant(0.0)
            if training.weight_decay_mode == "l2_mean" and training.weight_decay:
                penalty = weight_penalty(variables, training.weight_decay) / replicas
            weighted = [weight * part for weight, part in zip(training.loss_weights, parts, strict=True)]
            total = tf.add_n([*weighted, penalty])
            scaled = self.optimizer.scale_loss(total)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables, unconnected_gradients="zero")]
        # Summed here, so that clipping sees the gradient of the whole batch; the optimizer sums once more.
        gradients = [gradient / replicas for gradient in _sum_over_replicas(gradients)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        norm = tf.linalg.global_norm(gradients) * replicas * (total / scaled)
        parts, (total, penalty) = _sum_over_replicas(parts), _sum_over_replicas([total, penalty])
        return self._track([total, *parts, penalty, norm])

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Compute the losses of a batch; `evaluate` calls this."""
        losses, used = self(batch, training=False), batch["used"][0]  # 0 on a device without images of its own
        counts = _sum_over_replicas([used * loss.count for loss in losses])
        totals = _sum_over_replicas([used * loss.total for loss in losses])
        parts = [LossSum(total, count).mean() for total, count in zip(totals, counts, strict=True)]
        weights = self.network.config.training.loss_weights
        return self._track([tf.add_n([w * p for w, p in zip(weights, parts, strict=True)]), *parts])

    def _track(self, values: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        tracked = dict(zip(self._means, values, strict=False))
        for name, value in tracked.items():
            self._means[name].update_state(value)
        results = {name: self._means[name].result() for name in tracked}
        if _several_machines():
            # Keras averages over the first axis here, and scalars have none (3.15, `reduce_per_replica`).
            return {name: result[None] for name, result in results.items()}
        return results

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Do nothing: the model is built. Keras' method would consume the first batch of a distributed dataset."""


def _several_machines() -> bool:
    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def _sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return values
    context = tf.distribute.get_replica_context()
    summed: list[tf.Tensor] = context.all_reduce(tf.distribute.ReduceOp.SUM, values)
    return summed
