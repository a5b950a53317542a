"""An image to the inputs of the graph, and its outputs back to the frame of the image."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runtime import artifact as names
from runtime.detections import Detections
from runtime.errors import ImageError, InputError
from runtime.masks.edges import PasteMode
from runtime.pictures.letterbox import Letterbox, Pixels, ResizePolicy, plan_letterbox
from runtime.pictures.pixels import PLAIN, PixelPolicy
from runtime.pictures.read import MAX_PIXELS, ImageSource, open_picture
from runtime.pictures.remembered import Reading, RememberedImage

# More is no rounding of a sigmoid, in bfloat16 either.
_ROUNDED_UP = 1.01


@runtime_checkable
class PredictorSteps(Protocol):
    """A predictor in its three steps, which can run in different threads and be timed one by one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id; 0 is the background."""

    def prepare(self, image: ImageSource) -> tuple[Letterbox, Pixels]:
        """Read and letterbox one image."""

    def run(self, images: Pixels, windows: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[Any]]:
        """Run the model on a batch."""

    def finish(self, outputs: Mapping[str, npt.NDArray[Any]], letterbox: Letterbox) -> Detections:
        """Map the outputs of one image back to that image."""


def letterbox_picture(
    image: ImageSource,
    channels: int,
    resize: ResizePolicy,
    max_pixels: int = MAX_PIXELS,
    pixels: PixelPolicy = PLAIN,
    *,
    remember: bool = False,
) -> tuple[Letterbox, Pixels]:
    """Read an image and bring it to the input size of the network: [input height, input width, channels].

    With `remember`, the letterbox, and so the detections, can find the image again.

    Raises:
        ImageError: it cannot be read, would become too large, or its sides would not be multiples of 64.
    """
    picture = open_picture(image, channels, max_pixels, pixels)
    size = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]
    try:
        letterbox = plan_letterbox((size[0], size[1]), resize)
    except InputError as error:  # a long, thin image would become too large
        raise ImageError(str(error)) from error
    height, width = letterbox.input_size
    if height % resize.size_multiple or width % resize.size_multiple:
        raise ImageError(
            f"the image is {height} x {width} pixels, and this model does not resize: "
            f"give sides that are multiples of {resize.size_multiple}"
        )
    prepared = letterbox.apply(picture)
    if remember:
        found = RememberedImage(image, prepared, Reading(channels, max_pixels, pixels, letterbox.apply))
        letterbox = replace(letterbox, remembered=found)
    return letterbox, prepared


def to_detections(
    outputs: Mapping[str, npt.NDArray[Any]],
    letterbox: Letterbox,
    class_names: tuple[str, ...],
    paste_mode: PasteMode,
    device: str | None = None,
) -> Detections:
    """Map one image's outputs, without the batch axis, to the image; boxes without area are dropped.

    Mask probabilities that an engine rounds to more than 1 become 1: the sigmoid of ONNX Runtime on the CPU is
    1 + 2**-23 for some inputs above 17.
    """
    count = int(outputs[names.NUM_DETECTIONS])
    probabilities = outputs[names.MASKS][:count]
    if 1 < probabilities.max(initial=0) <= _ROUNDED_UP:
        probabilities = np.minimum(probabilities, 1)
    boxes, kept = letterbox.detected_to_image(outputs[names.BOXES][:count])
    detections = Detections(
        boxes=boxes,
        scores=outputs[names.SCORES][:count],
        class_ids=outputs[names.CLASS_IDS][:count],
        mask_probabilities=probabilities,
        image_size=letterbox.image_size,
        class_names=class_names,
        paste_mode=paste_mode,
        device=device,
        remembered=letterbox.remembered,
    )
    return detections[kept]
