"""How an image and its objects become the input of the network in training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from maskrcnn.anchor_grids import anchor_grids
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import AugmentationConfig
from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.mask_crops import boxes_of, expand_mask, minimize_mask
from maskrcnn.data.records import Record
from maskrcnn.data.sample import Sample, load_sample
from maskrcnn.inspection.scene import NEGATIVE, TRUTH, Scene, Shape, box_of, label_of
from maskrcnn.inspection.truth import Truth
from maskrcnn.intermediates.color_map import color_map
from maskrcnn.intermediates.prepared import PreparedImage, shown
from maskrcnn.intermediates.strips import cell, strip
from runtime.masks.edges import PasteMode
from runtime.masks.paste import place_crops
from runtime.one_line import count_of
from runtime.output.draw import instance_color

_MINI_SIDE = 168  # of a drawn mask, in pixels


def input_scene(run: PreparedImage) -> Scene:
    """Return a scene with the input of the network: the image scaled, and padded or cropped."""
    box, size = run.letterbox, run.picture.shape[:2]
    y1, x1, y2, x2 = box.window
    caption = (
        f"{size[1]} x {size[0]} pixels, scaled by {box.scale:.4g} to {box.resized_size[1]} x {box.resized_size[0]}, "
        f"in an input of {box.input_size[1]} x {box.input_size[0]} (mode {run.config.resize.mode!r}). The frame shows "
        "where the image lies."
    )
    frame = Shape((x1, y1, x2, y2), (255, 210, 60), True, facts={"window": f"{x1}, {y1} to {x2}, {y2}"})
    return Scene("data/input", "Resizing and padding", caption, run.shown_input, [frame])


def truth_scene(run: PreparedImage, truth: Truth) -> Scene:
    """Return a scene with the annotated objects and their masks."""
    shapes = []
    for row, class_id in enumerate(truth.class_ids.tolist()):
        y1, x1, y2, x2 = (int(side) for side in truth.boxes[row])
        name, crop = run.config.model.class_names[class_id], (truth.masks[y1:y2, x1:x2, row], (y1, x1))
        area = int(np.count_nonzero(crop[0]))
        facts = {"class": name, "area": f"{area} pixels"}
        label = label_of(name)
        shapes.append(Shape((x1, y1, x2, y2), instance_color(row), label=label, facts=facts, group=name, mask=crop))
    caption = f"{count_of(len(truth), 'annotated object')}; the boxes are those of the masks."
    return Scene("truth", "Annotated objects", caption, run.picture, shapes)


def augmented_scenes(
    record: Record, config: Config, count: int = 6, seed: int = 0, hook: AugmentHook | None = None
) -> list[Scene]:
    """Return `count` random augmentations of an image.

    Args:
        config: Its augmentation is used; if it is off, and there is no `hook`, mirror images are shown instead.
    """
    training, caption = config.training, "A random change, as the configuration asks for."
    if hook is not None:
        caption = f"A random change by {hook.name}, and then as the configuration asks for."
    elif training.augmentation == AugmentationConfig():
        training = replace(training, augmentation=AugmentationConfig(flip_horizontal=0.5, flip_vertical=0.5))
        caption = "The configuration changes nothing; a random mirror image is shown instead."
    used, scenes = replace(config, training=training), []
    for number in range(count):
        sample = load_sample(record, used, np.random.default_rng((seed, number)), hook=hook)
        shapes = _sample_shapes(sample, config.model.class_names)
        scenes.append(
            Scene(f"data/augmented_{number}", f"Augmentation {number + 1}", caption, shown(sample.image), shapes)
        )
    return scenes


def _sample_shapes(sample: Sample, class_names: Sequence[str]) -> list[Shape]:
    shapes = []
    rows = zip(sample.crops, sample.class_ids.tolist(), sample.boxes.tolist(), strict=True)
    for row, (crop, class_id, (y1, x1, y2, x2)) in enumerate(rows):
        name, crowd = class_names[abs(class_id)], " (crowd)" if class_id < 0 else ""
        label, facts = label_of(name) + crowd, {"class": name + crowd}
        shapes.append(Shape((x1, y1, x2, y2), instance_color(row), label=label, facts=facts, mask=crop))
    return shapes


def anchor_scene(run: PreparedImage) -> Scene:
    """Return a scene with the anchors of the middle cell of each level, in one color per level."""
    model, shapes, counts = run.config.model, [], []
    size = run.image.shape[0], run.image.shape[1]
    for level, (grid, scale) in enumerate(zip(anchor_grids(model, size), model.anchor_scales, strict=True), 2):
        row = int(np.argmin(np.abs((grid.y1 + grid.y2)[:, 0] / 2 - size[0] / 2)))
        column = int(np.argmin(np.abs((grid.x1 + grid.x2)[:, 0] / 2 - size[1] / 2)))
        counts.append(f"P{level} {grid.y1.size * len(grid.x1)} with sides of {scale:g} pixels")
        for corner in np.stack([grid.x1[column], grid.y1[row], grid.x2[column], grid.y2[row]], axis=1):
            x1, y1, x2, y2 = corner
            facts = {"level": f"P{level}", "size": f"{x2 - x1:.0f} x {y2 - y1:.0f}"}
            shapes.append(Shape(box_of(corner), instance_color(level + 1), facts=facts, group=f"P{level}"))
    caption = f"The anchors of the middle cell of each pyramid level. Anchors per level: {'; '.join(counts)}."
    return Scene("data/anchors", "Anchors per level", caption, run.shown_input, shapes[::-1], 0.06)


def mini_mask(sample: Sample, row: int, mini_size: tuple[int, int], paste: PasteMode) -> tuple[Image.Image, float]:
    """Return an object's mask, mini mask and restored mask side by side, and the IoU of the first with the last.

    In the restored mask, pixels that got lost are red and pixels that were added are blue.
    """
    crop = sample.crops[row]
    size, box = sample.letterbox.input_size, boxes_of([crop])[0]
    mini = minimize_mask(crop[0], mini_size, paste)
    restored, whole = expand_mask(mini, box, size), place_crops([crop], size)[0]
    inside = restored[box[0] : box[2], box[1] : box[3]]
    empty, full = color_map(np.array([0.0, 1.0]))
    colors = np.array([empty, NEGATIVE, TRUTH, full], np.uint8)[crop[0] + 2 * inside]
    iou = int(np.sum(restored & whole)) / max(1, int(np.sum(restored | whole)))
    cells = color_map(crop[0].astype(np.float64)), color_map(mini.astype(np.float64)), colors
    return strip([cell(each, _MINI_SIDE) for each in cells]), iou
