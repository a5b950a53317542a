"""Prediction with a Keras model, without exporting it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn.configuration.model import EVALUATION_SCORE_THRESHOLD
from maskrcnn.model import MaskRCNN
from runtime.arguments import count, flag, real
from runtime.artifact import IMAGES, NMS_THRESHOLD, SCORE_THRESHOLD, WINDOWS
from runtime.detections import Detections
from runtime.pictures.letterbox import Letterbox, Pixels, ResizePolicy
from runtime.pictures.pixels import check_bands
from runtime.pictures.read import MAX_PIXELS, ImageSource
from runtime.steps import letterbox_picture, to_detections


class CheckpointPredictor:
    """A `MaskRCNN` with the interface of `runtime.Predictor`.

    It is traced once, for images of all sizes, and each call uses the current weights, so one predictor serves a whole
    training run.

    Args:
        model: The model to run.
        score_threshold: Lowest score returned, 0..1. None takes `EVALUATION_SCORE_THRESHOLD`, 0.05, because the
            configuration's is meant for showing results and lowers average precision.
        nms_threshold: Largest IoU within a class, 0..1; None takes the configuration's.
        value_range: As in `runtime.Predictor`; None takes the configuration's.
        bands: As in `runtime.Predictor`; None takes the configuration's.
        max_pixels: Most pixels of an image; larger ones are refused. None for 100 million.
        remember_image: As in `runtime.Predictor`.

    Raises:
        InputError: A threshold or limit is out of range, or `remember_image` is neither True nor False.
    """

    def __init__(
        self,
        model: MaskRCNN,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_pixels: int | None = None,
        value_range: tuple[float, ...] | None = None,
        bands: tuple[int, ...] | None = None,
        *,
        remember_image: bool = True,
    ) -> None:
        self.model = model
        self.remember_image = flag("remember_image", remember_image)
        self.pixels = model.config.pixels.replaced(value_range, bands)
        check_bands(self.pixels, model.config.model.image_channels)
        self.max_pixels = max_pixels
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        channels = model.config.model.image_channels
        signature = [
            tf.TensorSpec([None, None, None, channels], model.config.resize.image_dtype, name=IMAGES),
            tf.TensorSpec([None, 4], tf.float32, name=WINDOWS),
            tf.TensorSpec([], tf.float32, name=SCORE_THRESHOLD),
            tf.TensorSpec([], tf.float32, name=NMS_THRESHOLD),
        ]
        self._detect = tf.function(model.detect, input_signature=signature, autograph=False)

    def __repr__(self) -> str:
        """Return model, number of classes and thresholds."""
        return (
            f"CheckpointPredictor({self.model.config.name!r}, {len(self.class_names) - 1} classes, "
            f"score_threshold={self.score_threshold:g}, nms_threshold={self.nms_threshold:g})"
        )

    @property
    def score_threshold(self) -> float:
        """Lowest score of returned detections; like the other settings, it is checked when it is assigned."""
        return self._score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float | None) -> None:
        default = EVALUATION_SCORE_THRESHOLD
        self._score_threshold = default if value is None else real("score_threshold", value)

    @property
    def nms_threshold(self) -> float:
        """Largest IoU of two detections of one class."""
        return self._nms_threshold

    @nms_threshold.setter
    def nms_threshold(self, value: float | None) -> None:
        default = self.model.config.detection.nms_threshold
        self._nms_threshold = default if value is None else real("nms_threshold", value)

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image."""
        return self._max_pixels

    @max_pixels.setter
    def max_pixels(self, value: int | None) -> None:
        self._max_pixels = MAX_PIXELS if value is None else count("max_pixels", value)

    @property
    def image_channels(self) -> int:
        """The number of channels of an image."""
        return self.model.config.model.image_channels

    @property
    def resize(self) -> ResizePolicy:
        """How an image becomes the network's input."""
        return self.model.config.resize

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id; 0 is the background."""
        return self.model.config.model.class_names

    def __call__(
        self, image: ImageSource, *, score_threshold: float | None = None, nms_threshold: float | None = None
    ) -> Detections:
        """Return the detections in one image.

        Args:
            image: Path, bytes, PIL image, or uint8 array [H, W, C].
            score_threshold: Lowest score returned by this call; None for the predictor's.
            nms_threshold: Largest IoU within a class, for this call; None for the predictor's.

        Raises:
            ImageError: The image cannot be used.
            InputError: A threshold is out of range.
        """
        thresholds = {SCORE_THRESHOLD: score_threshold, NMS_THRESHOLD: nms_threshold}
        given = {name: real(name, value) for name, value in thresholds.items() if value is not None}
        letterbox, prepared = self.prepare(image)
        outputs = self.run(prepared[None], np.array([letterbox.window], np.float32), **given)
        return self.finish({name: array[0] for name, array in outputs.items()}, letterbox)

    def prepare(self, image: ImageSource) -> tuple[Letterbox, Pixels]:
        """Read and letterbox one image: the first of three steps, before `run` and `finish`.

        Raises:
            ImageError: The image cannot be used.
        """
        config = self.model.config
        return letterbox_picture(
            image,
            config.model.image_channels,
            config.resize,
            self.max_pixels,
            self.pixels,
            remember=self.remember_image,
        )

    def run(
        self,
        images: Pixels,
        windows: npt.NDArray[np.float32],
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model on letterboxed images; return outputs as in `runtime.artifact`.

        Args:
            images: [B, H, W, C] as `prepare` makes them.
            windows: float32 [B, 4] y1, x1, y2, x2 of the images inside the padding, in input pixels.
            score_threshold: As for a call.
            nms_threshold: As for a call.
        """
        score = self.score_threshold if score_threshold is None else real(SCORE_THRESHOLD, score_threshold)
        overlap = self.nms_threshold if nms_threshold is None else real(NMS_THRESHOLD, nms_threshold)
        thresholds = (np.float32(score), np.float32(overlap))
        outputs = self._detect(tf.constant(images), tf.constant(windows), *map(tf.constant, thresholds))
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def finish(self, outputs: Mapping[str, npt.NDArray[Any]], letterbox: Letterbox) -> Detections:
        """Map the outputs of one image, without the batch axis, to detections in image pixels: the last step."""
        return to_detections(outputs, letterbox, self.class_names, self.model.config.detection.mask_paste)
