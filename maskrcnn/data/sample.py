"""One annotated image as network input and training targets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.model import Config
from maskrcnn.data.augment import augment
from maskrcnn.data.mask_crops import boxes_of, letterbox_crop, minimize_mask
from maskrcnn.data.random_proposals import random_proposals
from maskrcnn.data.records import Record
from maskrcnn.rpn_targets import anchor_grids, rpn_targets
from runtime.masks.paste import MaskCrop, place_crops
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


def load_sample(record: Record, config: Config, rng: np.random.Generator, training: bool = True) -> Sample:
    """Read, augment (if `training`) and letterbox an image and its objects.

    Objects that lose all their pixels are dropped, so every box has an area.

    Raises:
        ImageError: The image cannot be read, or becomes too large.
        DatasetError: Its annotations cannot be read, or have another size than the image.
    """
    image = record.load_image(config.model.image_channels, config.pixels)
    instances = record.instances_of_size(image.shape[:2])
    crops = [decode_crop(instance.mask) for instance in instances]
    class_ids = np.array([-i.class_id if i.crowd else i.class_id for i in instances], np.int32)
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


def sample_arrays(
    sample: Sample, config: Config, rng: np.random.Generator, input_size: tuple[int, int]
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays that a sample adds to a batch of `input_size` (height, width), which may be larger.

    Returns:
        `images` [H, W, C], `rpn_match` int32 [A], `rpn_bbox` float32 [T, 4], `class_ids` int32 [N],
        `boxes` float32 [N, 4] input pixels, `masks` bool [N, h, w], `active` float32 [K], `windows` float32 [4] as
        in an artifact. N is `max_instances`,
        padded with zeros. If the heads train without the RPN, also `proposals` float32 [R, 4] normalized.
    """
    training, size = config.training, sample.image.shape[:2]
    image = sample.image
    if size != input_size:
        image = np.pad(image, [(0, input_size[0] - size[0]), (0, input_size[1] - size[1]), (0, 0)])
    boxes = sample.boxes
    targets = rpn_targets(
        anchor_grids(config.model, input_size),
        boxes,
        sample.class_ids < 0,
        training.anchors_per_image,
        config.model.rpn_box_std,
        rng,
        training.original_bugs,
    )
    limit = training.max_instances
    # As in the original, surplus objects are dropped only after the RPN's targets are made.
    chosen = np.arange(len(boxes)) if len(boxes) <= limit else rng.choice(len(boxes), limit, replace=False)
    crops = [sample.crops[i] for i in chosen]
    drawn = {}
    if not training.use_rpn_proposals:
        objects = boxes[chosen][sample.class_ids[chosen] > 0]
        drawn["proposals"] = random_proposals(objects, input_size, config.proposals.post_nms_training, rng)
    return {
        "images": image,
        "rpn_match": targets.match,
        "rpn_bbox": targets.deltas.astype(np.float32),
        "class_ids": _pad_rows(sample.class_ids[chosen], limit),
        "boxes": _pad_rows(boxes[chosen].astype(np.float32), limit),
        "masks": _pad_rows(_stored_masks(crops, config, input_size), limit),
        "active": sample.active,
        "windows": np.array(sample.letterbox.window, np.float32),
        **drawn,
    }


def _stored_masks(crops: list[MaskCrop], config: Config, input_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mini = config.training.mini_mask_size
    if mini is None:
        return place_crops(crops, input_size)
    size = (mini[0], mini[1])
    masks = [minimize_mask(pixels, size, config.detection.mask_paste) for pixels, _ in crops]
    return np.stack(masks) if masks else np.zeros((0, *size), np.bool_)


def _pad_rows(rows: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.generic]:
    return np.concat([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])
