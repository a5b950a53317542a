"""Inputs from people's reports, if they are available: each is read as its makers meant, or refused with a remedy."""

import os
from pathlib import Path

import pytest
from golden import REPOSITORY, VARIABLE

from maskrcnn.configuration.files import read_config
from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.errors import ConfigError, DatasetError

CASES = Path(os.environ.get(VARIABLE, REPOSITORY.parent / "shared")) / "cases"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"no cases: {CASES} does not exist; set {VARIABLE} to the folder with cases/"
)

CAT = ("BG", "cat")
OBJECT = ("BG", "object")
# Folder, options, classes, class ids of the objects of each image, and the finding that tells what was done.
READ = [
    ("mask_binary255", {}, OBJECT, [[1, 1]], "binary-masks"),
    ("mask_rgbcolors", {}, OBJECT, [[1, 1]], "mask-colors"),
    ("mask_suffix", {}, OBJECT, [[1, 1]], "mask-name"),
    ("mask_dsb_empty_mask", {}, OBJECT, [[1]], "empty-mask"),
    ("coco_roboflow", {}, ("BG", "cat", "dog"), [[1, 2]], "category-root"),
    ("coco_roboflow_layout/train", {}, CAT, [[1]], "category-root"),
    ("coco_roboflow_dupname", {}, CAT, [[1]], "category-root"),
    ("roboflow_dup3", {}, ("BG", "fish", "lobster trap"), [[1, 2]], "category-root"),
    ("coco_background0", {}, CAT, [[1]], "category-background"),
    ("coco_wrong_pair", {"by_name": True}, CAT, [[1], [1]], "name-by-name"),
    ("coco_same_file_twice", {"by_name": True}, CAT, [[1, 1]], "image-joined"),
    ("coco_iscrowd_none", {}, CAT, [[1]], "iscrowd-type"),
    ("coco_strid", {}, CAT, [[1]], "id-type"),
    ("coco_float_size", {}, CAT, [[1]], "size-type"),
    ("coco_bbox_zero", {}, CAT, [[1]], "box-unusable"),
    ("coco_no_size", {}, CAT, [[1]], "no-size"),
    ("coco_ann_no_id", {}, CAT, [[1]], "no-id"),
    ("coco_4num_poly", {}, CAT, [[1]], "no-area"),
    ("coco_pct", {}, CAT, [[1]], "name-percent"),
    ("coco_nfd", {}, CAT, [[1]], "name-unicode"),
    ("coco_http", {}, CAT, [[1]], "name-url"),
    ("coco_ext_case", {}, CAT, [[1]], "name-letter-case"),
    ("lm_other_ext", {}, CAT, [[1]], "name-extension"),
    ("coco_no_seg", {"boxes_as_masks": True}, CAT, [[1, 1]], "box-as-mask"),
    ("via_option_ids", {"attribute": "class"}, ("BG", "cat", "dog"), [[2, 1]], "class-option"),
    ("via2_key_is_class", {"attribute": "@key"}, ("BG", "Image", "Key"), [[2, 1]], "class-count"),
    ("via_csv", {"attribute": "type"}, ("BG", "A"), [[1]], "class-count"),
    ("via3", {"attribute": "class"}, ("BG", "cat", "dog"), [[1, 2]], "class-count"),
    ("via_coco_twice", {}, ("BG", "cat", "good"), [[2]], "repeated"),
    ("lm_imagedata", {}, CAT, [[1]], "image-data"),
    ("lm_gbk", {}, ("BG", "裂缝"), [[1]], "encoding"),
    ("lm_with_other_json", {}, CAT, [[1]], "other-file"),
    ("balloon_root/train", {}, OBJECT, [[1]], "class-count"),
    ("yolo_seg", {}, CAT, [[1]], "class-count"),
]

REFUSED = [
    ("mask_jpg", "masks need a lossless format"),
    ("coco_wrong_pair", "--by-name"),
    ("coco_same_file_twice", "--by-name"),
    ("coco_no_seg", "--boxes-as-masks"),
    ("coco_roboflow_layout", "layout/train, .*layout/valid"),
    ("balloon_root", "balloon_root/train, .*balloon_root/val"),
    ("elsewhere/ann", "--images"),
]


@pytest.mark.parametrize(("case", "options", "classes", "objects", "told"), READ, ids=[row[0] for row in READ])
def test_what_is_read(case, options, classes, objects, told):
    choices = ReadOptions(**{name: value for name, value in options.items() if name != "attribute"})
    attribute = options.get("attribute")
    dataset = open_dataset(CASES / case, class_attribute=attribute, options=choices, report=lambda *_: None)
    assert dataset.class_names == classes
    found = [record.load_instances() for record in dataset.records]
    assert [[item.class_id for item in items] for items in found] == objects
    assert not any(item.crowd for items in found for item in items)
    assert dataset.records[0].load_image().shape == (90, 120, 3)
    findings = check_dataset(CASES / case, class_attribute=attribute, options=choices)
    assert told in {item.kind for item in findings}
    assert not [item for item in findings if item.level == "error"]


@pytest.mark.parametrize(("case", "remedy"), REFUSED)
def test_what_is_refused(case, remedy):
    with pytest.raises(DatasetError, match=remedy):
        open_dataset(CASES / case)


def test_images_elsewhere():
    dataset = open_dataset(CASES / "elsewhere/ann", CASES / "elsewhere/pics_somewhere")
    assert dataset.records[0].image == CASES / "elsewhere/pics_somewhere/a.jpg"


def test_configurations():
    assert read_config(CASES / "toy_config.json").model.num_classes == 4
    assert read_config(CASES / "c_mean_scalar.json").model.mean_pixel == (0, 0, 0)
    assert read_config(CASES / "c_vs_float.json").training.steps_per_epoch == 13
    with pytest.raises(ConfigError, match="import json; from toy_config import ToyConfig; print"):
        read_config(CASES / "toy_config.py")
