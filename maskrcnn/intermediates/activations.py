"""Step 4: the activations of layers, channel by channel, and channels that carry no information."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image, ImageDraw

from maskrcnn.errors import ArgumentError
from maskrcnn.intermediates.color_map import color_map
from maskrcnn.intermediates.stage_run import StageRun
from maskrcnn.model import MaskRCNN

_SHOWN_CHANNELS = 64
_CELL, _ACROSS, _GAP = 56, 16, 3
# A channel is saturated if this share of its values lies in this top part of its range.
SATURATED_SHARE, TOP_OF_RANGE = 0.99, 0.01
_DEAD, _SATURATED = (255, 60, 60), (255, 170, 30)


@dataclass(frozen=True, eq=False)
class Activation:
    """The output of one layer or stage, float32 [H, W, C]; crops of several boxes lie one below the other."""

    name: str
    values: npt.NDArray[np.float32]

    @property
    def dead(self) -> list[int]:
        """Channels that have the same value everywhere."""
        if self.values[..., 0].size < 2:  # a single value is always the same
            return []
        low, high = self.values.min(axis=(0, 1)), self.values.max(axis=(0, 1))
        return [int(channel) for channel in np.flatnonzero(low == high)]

    @property
    def saturated(self) -> list[int]:
        """Channels stuck at their maximum: 99% of the values lie in the top 1% of the range."""
        low, high = self.values.min(axis=(0, 1)), self.values.max(axis=(0, 1))
        top = np.mean(self.values >= high - TOP_OF_RANGE * (high - low), axis=(0, 1))
        return [int(channel) for channel in np.flatnonzero((top >= SATURATED_SHARE) & (low < high))]

    @property
    def numbers(self) -> dict[str, Any]:
        """Shape, range and flagged channels, as JSON values."""
        return {
            "shape": list(self.values.shape),
            "min": float(self.values.min()),
            "max": float(self.values.max()),
            "mean": float(self.values.mean()),
            "dead": self.dead,
            "saturated": self.saturated,
        }


def stage_activations(run: StageRun, crops: int = 4) -> list[Activation]:
    """Return P2..P6 and the first `crops` crops of both heads, which every run has."""
    found = [Activation(name.upper(), run.tensors[name]) for name in ("p2", "p3", "p4", "p5", "p6")]
    heads = {"box head crops": "box_rois", "mask head crops": "mask_rois"}
    for name, tensor in heads.items():
        count = int(run.tensors["num_detections"]) if tensor == "mask_rois" else len(run.tensors[tensor])
        if count:
            found.append(Activation(name, np.concat(list(run.tensors[tensor][: min(crops, count)]))))
    return found


def layer_activations(network: MaskRCNN, run: StageRun, names: Sequence[str] = ()) -> list[Activation]:
    """Return C2..C5, the RPN's shared layer on P2..P6, and other layers of any part of the network by name.

    Args:
        network: The model of the run.
        names: Names of the other layers.

    Raises:
        ArgumentError: There is no layer of such a name.
    """
    molded = network.mold(tf.constant(run.image[None]), tf.constant([run.letterbox.window], tf.float32))
    pyramid = [tf.constant(run.tensors[name][None]) for name in ("p2", "p3", "p4", "p5", "p6")]
    stages = network.backbone(molded)
    found = [Activation(f"C{level}", stage.numpy()[0]) for level, stage in enumerate(stages, 2)]
    for level, features in enumerate(pyramid, 2):
        found.append(
            Activation(f"rpn_conv_shared on P{level}", _layer_output(network.rpn, "rpn_conv_shared", features)[0])
        )
    inputs: Mapping[keras.Model, object] = {
        network.backbone: molded,
        network.fpn: stages,
        network.rpn: pyramid[2],
        network.box_head: tf.constant(run.tensors["box_rois"][:4]),
        network.mask_head: tf.constant(run.tensors["mask_rois"][:4]),
    }
    for name in names:
        part = next((part for part in network.parts if any(layer.name == name for layer in part.layers)), None)
        if part is None:
            raise ArgumentError(
                f"there is no layer {name!r}: give a name from the weight table, such as 'res4a_branch2a'"
            )
        if part is network.mask_head and not run.tensors["num_detections"]:
            continue  # its input is only padding
        values = _layer_output(part, name, inputs[part])
        if values.ndim != 4:  # a dense layer: one pixel for each box
            values = values.reshape(len(values), 1, 1, -1)
        found.append(Activation(name, np.concat(list(values))))
    return found


def _layer_output(part: keras.Model, name: str, value: object) -> npt.NDArray[np.float32]:
    return np.asarray(keras.Model(part.inputs, part.get_layer(name).output)(value), np.float32)


def mosaic(activation: Activation) -> Image.Image:
    """Draw the first 64 channels, each scaled to its own range, with dead ones framed red and saturated ones orange."""
    values = activation.values[..., :_SHOWN_CHANNELS]
    height, width, channels = values.shape
    scale = _CELL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    across = min(_ACROSS, channels)
    step = (size[0] + _GAP, size[1] + _GAP)
    canvas = Image.new("RGB", (across * step[0] + _GAP, -(-channels // across) * step[1] + _GAP), (40, 40, 40))
    pen = ImageDraw.Draw(canvas)
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    shares = np.divide(values - low, high - low, out=np.zeros_like(values), where=high > low)
    frames = dict.fromkeys(activation.dead, _DEAD) | dict.fromkeys(activation.saturated, _SATURATED)
    for channel in range(channels):
        x, y = _GAP + channel % across * step[0], _GAP + channel // across * step[1]
        cell = Image.fromarray(color_map(shares[..., channel]))
        method = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
        canvas.paste(cell.resize(size, method), (x, y))
        if channel in frames:
            pen.rectangle((x - 2, y - 2, x + size[0] + 1, y + size[1] + 1), outline=frames[channel], width=2)
    return canvas


def log_activations(activations: Sequence[Activation]) -> None:
    """Write mosaics and histograms of activations to the current summary writer."""
    for each in activations:
        name = each.name.replace(" ", "_")
        tf.summary.image(f"activations/{name}", np.asarray(mosaic(each))[None])
        tf.summary.histogram(f"activations/{name}", each.values)
