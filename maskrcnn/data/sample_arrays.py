"""The arrays of one annotated image in a batch: input and training targets."""

import numpy as np
import numpy.typing as npt

from maskrcnn.anchor_grids import anchor_grids
from maskrcnn.configuration.model import Config
from maskrcnn.data.mask_crops import minimize_mask
from maskrcnn.data.random_proposals import random_proposals
from maskrcnn.data.sample import Sample
from maskrcnn.rpn_targets import rpn_targets
from runtime.masks.paste import MaskCrop, place_crops


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
