"""From the data side: how a picture and its objects become what training sees."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import AugmentationConfig
from maskrcnn.data.mask_crops import boxes_of, expand_mask, minimize_mask
from maskrcnn.data.records import Record
from maskrcnn.data.sample import Sample, load_sample
from maskrcnn.inspection.box_refinement import class_color
from maskrcnn.inspection.scene import Scene, Shape, box_of
from maskrcnn.inspection.strips import cell, strip
from maskrcnn.intermediates.stage_run import StageRun, shown
from runtime.masks.paste import MaskCrop, place_crops


def input_scene(run: StageRun) -> Scene:
    """The picture as the network gets it: scaled, and padded or cropped."""
    box, size = run.letterbox, run.picture.shape[:2]
    y1, x1, y2, x2 = box.window
    caption = (
        f"{size[1]} x {size[0]} pixels, scaled by {box.scale:.4g} to {box.resized_size[1]} x {box.resized_size[0]}, "
        f"in an input of {box.input_size[1]} x {box.input_size[0]} (mode {run.config.resize.mode!r}); the frame is "
        "where the picture lies."
    )
    frame = Shape((x1, y1, x2, y2), (255, 210, 60), True, facts={"window": f"{x1}, {y1} to {x2}, {y2}"})
    return Scene("data/input", "Resizing and padding", caption, run.shown_input, [frame])


def sample_scene(sample: Sample, config: Config, name: str, title: str, caption: str) -> Scene:
    """A training input with its objects, boxes taken from the masks."""
    shapes = []
    for crop, class_id, box in zip(sample.crops, sample.class_ids.tolist(), sample.boxes.tolist(), strict=True):
        y1, x1, y2, x2 = box
        label = config.model.class_names[abs(class_id)] + (" (crowd)" if class_id < 0 else "")
        shapes.append(
            Shape((x1, y1, x2, y2), class_color(abs(class_id)), label=label, facts={"class": label}, mask=crop)
        )
    return Scene(name, title, caption, shown(sample.image), shapes)


def augmented_scenes(record: Record, config: Config, count: int = 6, seed: int = 0) -> list[Scene]:
    """One picture as training might get it, changed by lot each time.

    Args:
        record: The picture.
        config: Its augmentation is used; where nothing is switched on, mirror images are shown.
        count: Pictures.
        seed: Of chance.
    """
    training = config.training
    switched_off = training.augmentation == AugmentationConfig()
    if switched_off:
        training = replace(training, augmentation=AugmentationConfig(flip_horizontal=0.5, flip_vertical=0.5))
    used = replace(config, training=training)
    what = "the configuration changes nothing; mirrored here" if switched_off else "by the configuration"
    return [
        sample_scene(
            load_sample(record, used, np.random.default_rng((seed, number))),
            config,
            f"data/augmented_{number}",
            f"Augmentation {number + 1}",
            f"Changed by lot: {what}.",
        )
        for number in range(count)
    ]


def anchor_scene(run: StageRun) -> Scene:
    """The anchors of the middle cell of each level, in a color per level."""
    model, shapes = run.config.model, []
    corners = run.to_input(run.anchors)
    middle = np.array(run.image.shape[1::-1]) / 2
    counts = []
    for place, scale in enumerate(model.anchor_scales):
        level = place + 2
        rows = np.flatnonzero(run.anchor_levels == level)
        centers = (corners[rows, :2] + corners[rows, 2:]) / 2
        nearest = np.argsort(np.linalg.norm(centers - middle, axis=1), kind="stable")[: len(model.anchor_ratios)]
        counts.append(f"P{level}: {len(rows)} of side {scale:g}")
        for corner in corners[rows[nearest]]:
            x1, y1, x2, y2 = corner
            facts = {"level": f"P{level}", "size": f"{x2 - x1:.0f} x {y2 - y1:.0f}"}
            shapes.append(Shape(box_of(corner), class_color(level + 1), facts=facts, group=f"P{level}"))
    caption = f"The anchors of one cell in the middle of each level. {'; '.join(counts)}."
    return Scene("data/anchors", "Anchors per level", caption, run.shown_input, shapes[::-1], 0.06)


def mini_mask_strip(sample: Sample, config: Config, row: int) -> Image.Image:
    """One object: its mask in its box, the mini mask that is stored, and the mask that comes back from it."""
    pixels, (y, x) = sample.crops[row]
    height, width = config.training.mini_mask_size or pixels.shape
    mini = minimize_mask(pixels, (height, width), config.detection.mask_paste)
    box = boxes_of([(pixels, (y, x))])[0]
    back = expand_mask(mini, box, sample.letterbox.input_size)[box[0] : box[2], box[1] : box[3]]
    return strip([cell(each.astype(np.uint8) * 255) for each in (pixels, mini, back)])


def mini_mask_share(sample: Sample, config: Config, row: int) -> float:
    """IoU of an object's mask with what comes back from its mini mask: what storing it costs."""
    pixels, place = sample.crops[row]
    height, width = config.training.mini_mask_size or pixels.shape
    box = boxes_of([(pixels, place)])[0]
    mini = minimize_mask(pixels, (height, width), config.detection.mask_paste)
    back = expand_mask(mini, box, sample.letterbox.input_size)
    whole = _whole([sample.crops[row]], sample)
    return int(np.sum(back & whole)) / max(1, int(np.sum(back | whole)))


def _whole(crops: Sequence[MaskCrop], sample: Sample) -> npt.NDArray[np.bool_]:
    return np.asarray(place_crops(crops, sample.letterbox.input_size)[0])
