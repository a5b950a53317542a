"""A model and pictures so small that a training step takes a fraction of a second."""

import socket
from dataclasses import replace
from functools import cache

import keras
import tensorflow as tf

from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig, ProposalConfig
from maskrcnn.configuration.training import StageConfig, TrainingConfig
from maskrcnn.data.synthetic.shapes import shapes_dataset
from runtime.pictures.letterbox import ResizePolicy

TINY = Config(
    name="tiny",
    model=ModelConfig(
        class_names=("BG", "square", "circle", "triangle"),
        backbone="resnet18",
        backbone_width=8,
        fpn_channels=16,
        rpn_channels=16,
        box_head_channels=32,
        mask_head_channels=16,
        anchor_scales=(8, 16, 32, 64, 128),
    ),
    proposals=ProposalConfig(pre_nms_limit=200, post_nms_training=50, post_nms_inference=50),
    detection=DetectionConfig(max_detections=10, min_score=0.05),
    resize=ResizePolicy("square", 64, 64, 0),
    training=TrainingConfig(
        batch_size=2,
        steps_per_epoch=3,
        validation_steps=1,
        learning_rate=0.01,
        anchors_per_image=64,
        rois_per_image=16,
        max_instances=10,
        stages=(StageConfig("heads", 1), StageConfig("all", 2, 0.005)),
    ),
)


def tiny(**training):
    """The tiny configuration with other settings of the training."""
    return replace(TINY, training=replace(TINY.training, **training))


def small(**training):
    """The tiny configuration with four convolutions for a backbone."""
    config = tiny(**training)
    return replace(config, model=replace(config.model, backbone="custom"))


def backbone():
    images = keras.Input((None, None, 3))
    return keras.Model(images, [keras.layers.Conv2D(4, 1, s, name=f"own{s}")(images) for s in (4, 8, 16, 32)])


@cache
def pictures(count=6, seed=0):
    """Synthetic pictures of 64 x 64 pixels, drawn once."""
    dataset = shapes_dataset(count, seed, size=(64, 64))
    return replace(dataset, records=tuple(_drawn(record) for record in dataset.records))


def _drawn(record):
    image, instances = record.load_image(), record.load_instances()
    return replace(record, image=lambda: image, instances=instances)


def free_ports(count):
    """Ports of this machine on which nobody listens."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cheap(keras.Model):
    """Stands in for `TrainingModel`: every weight is drawn towards the brightness of the batch.

    A wrong picture, a lost step or a lost momentum changes the weights, without a second of convolutions.
    """

    def __init__(self, network):
        super().__init__(name="training")
        self.network = network
        self._means = [keras.metrics.Mean(name=name) for name in ("loss", "gradient_norm")]
        self.built = True

    @property
    def metrics(self):
        return self._means

    def _loss(self, batch):
        level = tf.reduce_mean(tf.cast(batch["images"], tf.float32)) / 255.0
        return level, [tf.reduce_sum((weight - level) ** 2) for weight in self.trainable_variables]

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            losses = self._loss(batch)[1]
            total = tf.add_n(losses)
        gradients = tape.gradient(total, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._track(total, tf.linalg.global_norm(gradients))

    def test_step(self, batch):
        level, losses = self._loss(batch)
        return self._track(tf.add_n(losses), level)

    def _track(self, *values):
        for mean, value in zip(self._means, values, strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self._means}
