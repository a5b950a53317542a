"""The peer TensorFlow Model Garden: its Mask R-CNN, as its own trainer runs a step.

Its input parser, model, losses and optimizer are used as they come; only settings are made. It is built on legacy
Keras, ours on Keras 3: both live in one process, on the same TensorFlow and its threads.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from maskrcnn.configuration.model import Config
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.sample import load_sample
from runtime.masks.paste import place_crops

# Of the Garden's modules; the optimizer's factory reads it when it is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

Step = Callable[[], dict[str, float]]


def garden_step(config: Config, plan: BatchPlan, batched_nms: bool, dtype: str = "float32") -> Step:
    """One training step of the Garden on the pictures of step 0, compiled at this call.

    Args:
        config: Ours; the Garden is set to the same where it can be.
        plan: The pictures.
        batched_nms: Whether its proposals are suppressed by TensorFlow's operator, or by its own loop.
        dtype: Of its pictures and layers: "float32" or "bfloat16", mixed as its trainer does it.

    Returns:
        The step; it gives the total loss by name.
    """
    from official.modeling import optimization, performance  # noqa: PLC0415  (installed only where the peer is measured)
    from official.vision.tasks.maskrcnn import MaskRCNNTask  # noqa: PLC0415

    settings = task_config(config, batched_nms)
    performance.set_mixed_precision_policy(dtype)
    task = MaskRCNNTask(settings)
    model = task.build_model()
    optimization_settings = {
        "optimizer": {
            "type": "sgd",
            "sgd": {"momentum": config.training.momentum, "global_clipnorm": config.training.gradient_clip_norm},
        },
        "learning_rate": {"type": "constant", "constant": {"learning_rate": config.training.learning_rate}},
    }
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(optimization_settings))
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    metrics = task.build_metrics(training=True)
    inputs = _inputs(config, plan, task.task_config, dtype)

    @tf.function
    def step() -> dict[str, tf.Tensor]:
        return task.train_step(inputs, model, optimizer, metrics)

    def run() -> dict[str, float]:
        return {name: float(value) for name, value in step().items()}

    run()  # compiled while the policy is set
    performance.set_mixed_precision_policy("float32")
    return run


def task_config(config: Config, batched_nms: bool) -> Any:
    """The Garden's settings of model, data and losses, equal to ours where it can be."""
    from official.vision.configs import maskrcnn as settings  # noqa: PLC0415

    model, training, limits = config.model, config.training, config.proposals
    task = settings.MaskRCNNTask()
    task.losses.l2_weight_decay = training.weight_decay
    peer = task.model
    peer.num_classes = model.num_classes
    peer.input_size = [config.resize.max_dim, config.resize.max_dim, model.image_channels]
    peer.anchor.anchor_size = model.anchor_scales[0] / model.backbone_strides[0]
    peer.anchor.aspect_ratios = list(model.anchor_ratios)
    peer.backbone.resnet.model_id = int(model.backbone.removeprefix("resnet"))
    peer.decoder.fpn.num_filters = model.fpn_channels
    peer.rpn_head.num_filters = model.rpn_channels
    peer.detection_head.num_convs, peer.detection_head.num_fcs = 0, 2
    peer.detection_head.fc_dims = model.box_head_channels
    peer.mask_head.num_filters = model.mask_head_channels
    peer.roi_generator.pre_nms_top_k = limits.pre_nms_limit
    peer.roi_generator.num_proposals = limits.post_nms_training
    peer.roi_generator.nms_iou_threshold = limits.nms_threshold
    peer.roi_generator.use_batched_nms = batched_nms
    peer.roi_sampler.num_sampled_rois = training.rois_per_image
    peer.roi_sampler.foreground_fraction = training.roi_positive_ratio
    peer.mask_sampler.num_sampled_masks = int(training.rois_per_image * training.roi_positive_ratio)
    # Statistics over several devices, its default, cost more on one.
    peer.norm_activation.use_sync_bn = False
    task.train_data.parser.max_num_instances = training.max_instances
    task.train_data.parser.rpn_batch_size_per_im = training.anchors_per_image
    task.train_data.parser.mask_crop_size = training.mini_mask_size[0]
    return task


def _inputs(config: Config, plan: BatchPlan, task: Any, dtype: str) -> Any:
    """Pictures and labels of step 0, made by the Garden's parser from our records."""
    from official.vision.dataloaders.maskrcnn_input import Parser  # noqa: PLC0415

    given, peer = task.train_data.parser, task.model
    parser = Parser(
        output_size=peer.input_size[:2],
        min_level=peer.min_level,
        max_level=peer.max_level,
        num_scales=peer.anchor.num_scales,
        aspect_ratios=peer.anchor.aspect_ratios,
        anchor_size=peer.anchor.anchor_size,
        rpn_batch_size_per_im=given.rpn_batch_size_per_im,
        max_num_instances=given.max_num_instances,
        mask_crop_size=given.mask_crop_size,
        include_mask=True,
        dtype=dtype,
    )
    parse = parser.parse_fn(is_training=True)
    rows = [parse(_decoded(config, plan, row)) for row in plan.rows(0)]
    return tf.nest.map_structure(lambda *tensors: tf.stack(tensors), *rows)


def _decoded(config: Config, plan: BatchPlan, row: int) -> dict[str, tf.Tensor]:
    """A picture as the Garden's decoder hands it to its parser: boxes normalised, masks of the whole picture."""
    sample = load_sample(plan.dataset.records[row], config, np.random.default_rng(0))
    height, width = sample.image.shape[:2]
    boxes = sample.boxes / np.array([height, width, height, width])
    return {
        "image": tf.constant(sample.image),
        "groundtruth_boxes": tf.constant(boxes, tf.float32),
        "groundtruth_classes": tf.constant(sample.class_ids, tf.int64),
        "groundtruth_is_crowd": tf.zeros(len(boxes), tf.bool),
        "groundtruth_instance_masks": tf.constant(place_crops(sample.crops, (height, width)), tf.float32),
    }
