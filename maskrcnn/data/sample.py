"""One annotated image as network input."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.model import Config
from maskrcnn.data.augment import augment
from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.mask_crops import boxes_of, letterbox_crop
from maskrcnn.data.records import Record
from runtime.masks.paste import MaskCrop
from runtime.masks.rle import decode_crop
from runtime.pictures.letterbox import Letterbox, Pixels, ResizePolicy, plan_letterbox

Boxes = npt.NDArray[np.int32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """A letterboxed image and its objects, in input pixels.

    Attributes:
        image: [H, W, C], as `Letterbox.apply` makes it.
        letterbox: Position of the original image in it.
        class_ids: int32 [N]; negative for a crowd of that class.
        boxes: int32 [N, 4] y1, x1, y2, x2 around the masks, far sides exclusive; in the continuous frame float64, the
            boxes in the image as read, scaled.
        crops: Tight masks.
        active: float32 [K], 1 for the background and for classes that are annotated in this image.
    """

    image: Pixels
    letterbox: Letterbox
    class_ids: npt.NDArray[np.int32]
    boxes: Boxes
    crops: list[MaskCrop]
    active: npt.NDArray[np.float32]


def load_sample(
    record: Record, config: Config, rng: np.random.Generator, training: bool = True, hook: AugmentHook | None = None
) -> Sample:
    """Read, augment (if `training`, with `hook` first) and letterbox an image and its objects.

    Objects that lose all their pixels are dropped, so every box has an area.

    Raises:
        TrainingError: `hook` failed.
        ImageError: The image cannot be read, or becomes too large.
        DatasetError: Its annotations cannot be read, or have another size than the image.
    """
    image = record.load_image(config.model.image_channels, config.pixels)
    instances = record.instances_of_size(image.shape[:2])
    crops = [decode_crop(instance.mask) for instance in instances]
    class_ids = np.array([-i.class_id if i.crowd else i.class_id for i in instances], np.int32)
    if training and hook is not None:
        where = f"image {record.image_id!r}"
        image, crops, class_ids = hook(image, crops, class_ids, rng, classes=config.model.num_classes, where=where)
    if training:
        image, crops = augment(image, crops, config.training.augmentation, rng)
    letterbox = _plan((image.shape[0], image.shape[1]), training_resize(config), rng)
    original = boxes_of(crops)
    crops = [letterbox_crop(crop, letterbox, config.detection.mask_paste) for crop in crops]
    kept = np.array([pixels.size > 0 for pixels, _ in crops], np.bool_)
    crops = [crop for crop, keep in zip(crops, kept, strict=True) if keep]
    boxes: Boxes = boxes_of(crops)
    if config.model.box_frame == "continuous":
        boxes = _scaled(original[kept], letterbox)
    active = np.ones(config.model.num_classes, np.float32)
    if record.active_class_ids is not None:
        active[[i for i in range(1, len(active)) if i not in record.active_class_ids]] = 0.0
    return Sample(letterbox.apply(image), letterbox, class_ids[kept], boxes, crops, active)


def _scaled(boxes: npt.NDArray[np.int32], letterbox: Letterbox) -> npt.NDArray[np.float64]:
    """Map boxes from image pixels to input pixels in proportion, within the image."""
    scale = np.divide(letterbox.resized_size, letterbox.image_size)
    window = np.array(letterbox.window)
    moved = boxes * np.tile(scale, 2) + np.tile(letterbox.offset, 2)
    return np.clip(moved, np.tile(window[:2], 2), np.tile(window[2:], 2))


def training_resize(config: Config) -> ResizePolicy:
    """Return how images are resized for training, validation losses included."""
    return config.training.resize or config.resize


def _plan(image_size: tuple[int, int], policy: ResizePolicy, rng: np.random.Generator) -> Letterbox:
    """Plan the letterbox; in mode "crop", choose a random part of the scaled image, drawing its row first."""
    if policy.mode != "crop" or policy.min_dim is None:
        return plan_letterbox(image_size, policy)
    scaled = plan_letterbox(image_size, ResizePolicy("pad64", policy.min_dim, None, policy.min_scale)).resized_size
    origin = int(rng.integers(scaled[0] - policy.min_dim + 1)), int(rng.integers(scaled[1] - policy.min_dim + 1))
    return plan_letterbox(image_size, policy, origin)
