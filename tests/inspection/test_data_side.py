"""The data section: boxes in the file against masks, letterbox, mini masks, augmentation."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden import REPOSITORY, VARIABLE

from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.data.synthetic.shapes import shapes_dataset
from maskrcnn.inspection.data_pictures import anchor_scene, augmented_scenes, input_scene, mini_mask
from maskrcnn.inspection.data_statistics import dataset_statistics
from runtime.masks.rle import area, encode_crop

DROPLETS = Path(os.environ.get(VARIABLE, REPOSITORY.parent / "shared")) / "data" / "droplets" / "val.json"


def test_boxes_of_the_file_beside_those_of_the_masks():
    mask = encode_crop(np.ones((10, 20), np.bool_), (5, 7), (50, 60))  # x 7 to 27, y 5 to 15
    boxes = [(7, 5, 27, 15), (7, 5, 27.9, 15), (8, 5, 27, 15), (7, 5, 27, 20), (7, 15, 27, 15), None]
    instances = tuple(Instance(1 + row % 2, mask, file_box=box) for row, box in enumerate(boxes))
    crowd = Instance(1, mask, crowd=True)
    nothing = Instance(1, encode_crop(np.zeros((3, 3), np.bool_), (5, 7), (50, 60)), file_box=(7, 5, 27, 15))
    blank = lambda: np.zeros((50, 60, 3), np.uint8)  # noqa: E731
    dataset = Dataset("x", ("BG", "a", "b"), (Record(0, blank, (*instances, crowd, nothing)), Record(1, blank, ())))
    numbers = dataset_statistics(dataset).numbers
    assert numbers["file_boxes"] == 5
    assert numbers["boxes_differ"] == {"1": 3 / 5, "5": 2 / 5, "10": 1 / 5}
    assert numbers["per_class"] == {"a": 4, "b": 3}
    assert numbers["empty"] == 1
    assert (numbers["crowds"], numbers["pictures"], numbers["pictures_without_objects"]) == (1, 2, 1)
    assert numbers["median_side"] == pytest.approx(200**0.5)


def test_of_a_large_set_the_first_pictures_stand_for_all():
    statistics = dataset_statistics(shapes_dataset(5, 0, size=(64, 64)), most=2)
    assert (statistics.pictures, statistics.listed, statistics.left_out) == (2, 5, 0)


@pytest.mark.skipif(not DROPLETS.is_file(), reason=f"no photographs: {DROPLETS} does not exist; set {VARIABLE}")
def test_droplets_against_their_own_file():
    content = json.loads(DROPLETS.read_text(encoding="utf-8"))
    statistics = dataset_statistics(open_dataset(DROPLETS))
    assert statistics.numbers["objects"] == len(content["annotations"])
    assert statistics.numbers["pictures"] == len(content["images"])
    per_picture = [sum(a["image_id"] == image["id"] for a in content["annotations"]) for image in content["images"]]
    assert statistics.objects_per_picture.tolist() == per_picture
    assert statistics.numbers["boxes_differ"]["10"] <= statistics.numbers["boxes_differ"]["1"]


def test_the_frame_of_the_input_is_where_the_picture_lies(run):
    scene = input_scene(run)
    x1, y1, x2, y2 = map(int, scene.shapes[0].box)
    outside = run.image.copy()
    outside[y1:y2, x1:x2] = 0
    assert not outside.any()
    assert run.image[y1, x1:x2].any()
    assert run.image[y2 - 1, x1:x2].any()
    assert "480 x 360 pixels, scaled by 0.5333 to 256 x 192" in scene.caption


def test_anchors_of_the_middle_cell(run, demo):
    scene = anchor_scene(run)
    assert [shape.group for shape in scene.shapes[::3]] == ["P6", "P5", "P4", "P3", "P2"]
    assert len(scene.shapes) == 5 * 3
    for shape in scene.shapes:
        x1, y1, x2, y2 = shape.box
        level = int(shape.group[1])
        assert ((x2 - x1) * (y2 - y1)) ** 0.5 == pytest.approx(demo.config.model.anchor_scales[level - 2], rel=1e-3)
        assert abs((x1 + x2) / 2 - run.image.shape[1] / 2) <= demo.config.model.backbone_strides[level - 2]


def test_augmentations_differ_and_keep_the_objects(record, demo):
    scenes = augmented_scenes(record, demo.config, count=4)
    assert len({scene.image.tobytes() for scene in scenes}) > 1
    for scene in scenes:
        for shape in scene.shapes:
            (pixels, (y, x)), box = shape.mask, shape.box
            assert (x, y, x + pixels.shape[1], y + pixels.shape[0]) == box
    again = augmented_scenes(record, demo.config, count=4)
    assert [scene.image.tobytes() for scene in scenes] == [scene.image.tobytes() for scene in again]


def test_augmentation_that_is_switched_off_is_said(record, demo):
    from maskrcnn.configuration.training import AugmentationConfig

    off = replace(demo.config, training=replace(demo.config.training, augmentation=AugmentationConfig()))
    assert "changes nothing" in augmented_scenes(record, off, count=1)[0].caption


def test_own_augmentation_is_shown(record, demo):
    def dark(image, boxes, masks):
        return image // 4, boxes, masks

    scene = augmented_scenes(record, demo.config, count=1, hook=AugmentHook(dark))[0]
    assert "dark" in scene.caption
    assert scene.image.max() <= 255 // 4 < augmented_scenes(record, demo.config, count=1)[0].image.max()


def test_mini_masks(sample, demo):
    large = max(range(len(sample.crops)), key=lambda row: sample.crops[row][0].size)
    paste, size = demo.config.detection.mask_paste, demo.config.training.mini_mask_size
    overlaps = [mini_mask(sample, row, size, paste)[1] for row in range(len(sample.crops))]
    assert all(0.8 < overlap <= 1 for overlap in overlaps)
    strip, overlap = mini_mask(sample, large, (4, 4), paste)
    assert overlap < overlaps[large]
    assert np.asarray(strip).shape == (168, 3 * 168 + 8, 3)
    assert sum(area(encode_crop(crop, place, (256, 256))) for crop, place in sample.crops) > 0


def test_the_overlap_of_a_mini_mask_counts_what_it_adds(sample, demo):
    """A cross, whose mini mask of one cell fills its box: the IoU is 5 of 9 pixels."""
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.bool_)
    crossed = replace(sample, crops=[(np.kron(cross, np.ones((8, 8), np.bool_)), (4, 4))])
    assert mini_mask(crossed, 0, (1, 1), demo.config.detection.mask_paste)[1] == pytest.approx(5 / 9)
