"""COCO values that stand for others: converted, told in one line per kind; what is left out is told by class."""

import json

import numpy as np
import pytest
from annotation_files import SQUARE, coco, rectangle, write_coco, write_json, write_picture

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.findings import has_errors, summary
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.data.records import require_objects
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.masks.rle import decode

PAIRS = [[10, 10], [20, 10], [20, 20], [10, 20]]
RUNS = {"size": [40, 60], "counts": [0, 40, 2360]}


def every(section, **values):
    """Change every row; a function makes the new value of the old one."""

    def change(content):
        for row in content[section]:
            for key, value in values.items():
                row[key] = value(row[key]) if callable(value) else value

    return change


def first(**values):
    def change(content):
        content["annotations"][0].update(values)

    return change


def without(section, *keys):
    def change(content):
        for row in content[section]:
            for key in keys:
                row.pop(key, None)

    return change


# Name: change, and the kinds of findings with their counts.
CONVERTED = {
    "no crowd": (every("annotations", iscrowd=None), {"iscrowd-type": 3}),
    "crowds as truth": (every("annotations", iscrowd=bool), {"iscrowd-type": 3}),
    "crowds as texts": (every("annotations", iscrowd=str), {"iscrowd-type": 3}),
    "crowds as floats": (every("annotations", iscrowd=float), {"iscrowd-type": 3}),
    "references as texts": (every("annotations", image_id=str, category_id=str), {"id-type": 6}),
    "references as floats": (every("annotations", image_id=float, category_id=float), {"float-id": 6}),
    "images named by texts": (every("images", id=str), {"id-type": 3}),
    "categories named by texts": (every("categories", id=str), {"category-id-type": 2}),
    "sizes as floats": (every("images", height=float, width=float), {"size-type": 4}),
    "sizes as texts": (every("images", height=str, width=lambda side: f"{side}.0"), {"size-type": 4}),
    "no sizes": (without("images", "height", "width"), {"no-size": 2}),
    "sizes of null": (every("images", height=None, width=None), {"no-size": 2}),
    "no ids": (without("annotations", "id"), {"no-id": 3}),
    "ids of null": (every("annotations", id=None), {"no-id": 3}),
    "boxes of zeros": (first(bbox=[0, 0, 0, 0]), {"box-unusable": 1}),
    "boxes of three": (first(bbox=[1, 2, 3]), {"box-unusable": 1}),
    "boxes below zero": (first(bbox=[10, 10, -5, 5]), {"box-unusable": 1}),
    "boxes that are not finite": (first(bbox=[10, 10, float("nan"), 1e400]), {"box-unusable": 1}),
    "boxes as texts": (first(bbox=["10", "10.0", "10", "1e1"]), {"box-text": 1}),
    "a flat polygon": (first(segmentation=SQUARE), {"flat-polygon": 1}),
    "a polygon of pairs": (first(segmentation=PAIRS), {"polygon-pairs": 1}),
    "polygons of pairs": (first(segmentation=[PAIRS]), {"polygon-pairs": 1}),
    "a polygon of texts": (first(segmentation=[list(map(str, SQUARE))]), {"polygon-text": 1}),
    "a segmentation in a text": (first(segmentation=json.dumps([SQUARE])), {"segmentation-text": 1}),
    "a short polygon beside another": (first(segmentation=[[1, 2, 3, 4], SQUARE, [], [5, 6]]), {"short-polygon": 1}),
    "an entry twice": (lambda content: content["annotations"].append(content["annotations"][0]), {"repeated": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERTED)
def test_a_value_is_converted_and_said_so(tmp_path, name):
    change, kinds = CONVERTED[name]
    content = coco()
    change(content)
    content = json.loads(json.dumps(content))  # the entry that is there twice is no longer the same object
    path = write_coco(tmp_path, content)
    found = check_dataset(path)
    assert not has_errors(found), found
    counts = {kind: count for _, kind, count, _ in summary(found)}
    assert {kind: counts.get(kind) for kind in kinds} == kinds
    assert {kind for _, kind, *_ in summary(found)} - set(kinds) <= {"no-objects", "crowds", "class-count"}
    dataset = open_dataset(path)
    assert [record.image.name for record in dataset.records] == ["a.png", "b.png"]
    objects = dataset.records[0].load_instances()
    expected = [rectangle(40, 60, 10, 10, 20, 20), rectangle(40, 60, 5, 30, 15, 50), rectangle(40, 60, 0, 0, 40, 1)]
    np.testing.assert_array_equal([decode(item.mask) for item in objects], expected)
    assert [item.class_id for item in objects] == [2, 1, 1]
    assert [item.crowd for item in objects] == ([False] * 3 if name == "no crowd" else [False, False, True])


def test_run_lengths_in_a_list(tmp_path):
    content = coco()
    first(segmentation=[RUNS, {"size": [40, 60], "counts": [40, 40, 2320]}])(content)
    (mask, *_) = open_dataset(write_coco(tmp_path, content)).records[0].load_instances()
    np.testing.assert_array_equal(decode(mask.mask), rectangle(40, 60, 0, 0, 40, 2))
    first(segmentation=[RUNS, SQUARE])(content)
    with pytest.raises(DatasetFormatError, match="polygons or an RLE, not both"):
        open_dataset(write_coco(tmp_path, content))


@pytest.mark.parametrize(
    "wrong",
    [
        {"iscrowd": "2"},
        {"iscrowd": "yes"},
        {"image_id": "01"},
        {"image_id": 1.5},
        {"category_id": "x"},
        {"segmentation": "none"},
        {"segmentation": [["a"] * 6]},
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, wrong):
    content = coco()
    first(**wrong)(content)
    with pytest.raises(DatasetFormatError, match="1 row that cannot be used"):
        open_dataset(write_coco(tmp_path, content))


@pytest.mark.parametrize("segmentation", [..., None, [], {}, [[]], [[], []], "[[]]"])
def test_boxes_are_masks_if_asked_for(tmp_path, segmentation):
    content = coco()
    first(segmentation=segmentation)(content)
    if segmentation is ...:
        del content["annotations"][0]["segmentation"]
    path = write_coco(tmp_path, content)
    with pytest.raises(DatasetFormatError, match=r"boxes_as_masks=True \(--boxes-as-masks\) takes boxes as masks"):
        open_dataset(path)
    options = ReadOptions(boxes_as_masks=True)
    mask, *_ = open_dataset(path, options=options).records[0].load_instances()
    np.testing.assert_array_equal(decode(mask.mask), rectangle(40, 60, 10, 10, 20, 20))
    assert [item.count for item in check_dataset(path, options=options) if item.kind == "box-as-mask"] == [1]
    del content["annotations"][0]["bbox"]
    with pytest.raises(DatasetFormatError, match="neither an outline in 'segmentation' nor a box"):
        open_dataset(write_json(path, content), options=options)


@pytest.mark.parametrize("segmentation", [[[10, 10, 40, 10]], [[1, 2]], [[], [3, 4]]])
def test_an_outline_without_area_is_left_out_and_counted(tmp_path, segmentation):
    content = coco()
    first(segmentation=segmentation)(content)
    path = write_coco(tmp_path, content)
    found = check_dataset(path)
    assert not has_errors(found)
    assert [(item.level, item.count) for item in found if item.kind == "no-area"] == [("warning", 1)]
    assert ("warning", "the class has no objects; 1 are left out, most of the class") in [
        (item.level, item.message) for item in found if "'dog'" in item.where
    ]
    assert len(open_dataset(path).records[0].load_instances()) == 2


def categories(*rows):
    return [dict(zip(("id", "name", "supercategory"), row, strict=False)) for row in rows]


# Categories, the categories of three annotations, the classes, the class ids, and the kinds of findings.
CATEGORIES = {
    "root": (categories((0, "animals", "none"), (1, "cat", "animals"), (2, "dog", "animals")), (1, 2, 1),
             ("cat", "dog"), [1, 2, 1], ["category-root"]),
    "root of the same name": (categories((0, "cat", "none"), (1, "cat", "cat")), (1, 1, 1),
                              ("cat",), [1, 1, 1], ["category-root"]),
    "root of the same name, one of several": (
        categories((0, "fish", "none"), (1, "fish", "fish"), (2, "trap", "fish")), (1, 2, 2),
        ("fish", "trap"), [1, 2, 2], ["category-root"]),
    "root with objects": (categories((0, "fish", "none"), (1, "fish", "fish")), (0, 1, 1),
                          ("fish",), [1, 1, 1], ["category-joined"]),
    "no root: it is its own": (categories((1, "cat", "cat"), (2, "dog", "dog")), (2, 2, 2),
                               ("cat", "dog"), [2, 2, 2], []),
    "background": (categories((0, "_background_"), (5, "BG"), (7, "Background"), (9, "cat")), (9, 9, 9),
                   ("cat",), [1, 1, 1], ["category-background"]),
    "background with objects": (categories((0, "background"), (1, "cat")), (0, 1, 1),
                                ("background", "cat"), [1, 2, 2], []),
    "same names": (categories((3, "cat"), (4, "dog"), (8, "cat")), (8, 4, 3), ("cat", "dog"), [1, 2, 1],
                   ["category-joined"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories(tmp_path, name):
    rows, used, classes, class_ids, kinds = CATEGORIES[name]
    content = coco()
    content["categories"] = rows
    for row, category in zip(content["annotations"], used, strict=True):
        row["category_id"] = category
    path = write_coco(tmp_path, content)
    dataset = open_dataset(path)
    assert dataset.class_names == ("BG", *classes)
    assert [item.class_id for item in dataset.records[0].load_instances()] == class_ids
    found = check_dataset(path)
    assert not has_errors(found)
    assert list(dict.fromkeys(item.kind for item in found if item.kind.startswith("category"))) == kinds


def test_objects_of_a_category_that_cannot_be_used_are_told(tmp_path):
    content = coco()
    del content["categories"][1]["name"]
    found = check_dataset(write_coco(tmp_path, content))
    (note,) = [item for item in found if item.kind == "class-left-out"]
    assert note.message == "category 7 cannot be used: its 1 objects are left out and train as background"


def test_opening_tells_what_it_left_out(tmp_path, caplog):
    content = coco()
    for row in content["annotations"][1:]:
        row["segmentation"] = [[1, 2, 3]]
    content["annotations"][2]["iscrowd"] = 0
    content["images"].append({"id": 9, "file_name": "gone.png", "height": 4, "width": 4})
    content["annotations"].append({**content["annotations"][0], "id": 20, "image_id": 9})
    path = write_coco(tmp_path, content)
    told = []
    open_dataset(path, skip_bad=True, report=lambda name, found: told.append((name, summary(found))))
    ((name, rows),) = told
    assert name == str(path)
    lines = {text for *_, text in rows}
    place = f"{tmp_path.name}/data"
    assert f"{place} class 'cat': the class has no objects; 2 are left out, most of the class" in lines
    assert f"{place} class 'dog': 1 object in 1 image; 1 are left out" in lines
    assert ("error", "polygon-odd", 2) in [row[:3] for row in rows]
    open_dataset(path, skip_bad=True)  # without a report, warnings are logged
    assert "polygon-odd (2)" in caplog.text
    assert "most of the class" in caplog.text


def test_objects_of_a_broken_image_count_as_left_out(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    told = []
    open_dataset(path, skip_bad=True, report=lambda _, found: told.extend(found))
    assert [item.message for item in told if item.kind == "class-count"] == [
        "the class has no objects; 2 are left out, most of the class",
        "the class has no objects; 1 are left out, most of the class",
    ]


def test_a_dataset_of_crowds_has_no_objects(tmp_path):
    content = coco()
    every("annotations", iscrowd=1)(content)
    path = write_coco(tmp_path, content)
    with pytest.raises(DatasetError, match="none of its images has an object to learn or to find"):
        require_objects(open_dataset(path))
    assert [item.kind for item in check_dataset(path) if item.level == "error"] == ["empty"]
    require_objects(open_dataset(write_coco(tmp_path)))


def test_folders_of_images_for_several_datasets(tmp_path):
    from maskrcnn.data.readers.open import open_datasets

    paths = [write_json(tmp_path / f"{name}.json", coco()) for name in ("x", "y")]
    for place in ("p", "q"):
        for name, size in (("a.png", (40, 60)), ("b.png", (30, 50))):
            write_picture(tmp_path / place / name, *size)
    both = open_datasets(paths, images=[tmp_path / "p", tmp_path / "q"])
    assert [record.image.parent.name for record in both.records] == ["p", "p", "q", "q"]
    one = open_datasets(paths, images=[tmp_path / "q"])
    assert {record.image.parent.name for record in one.records} == {"q"}
    with pytest.raises(DatasetError, match="2 folders of images are given for 1 datasets"):
        open_datasets(paths[:1], images=[tmp_path / "p", tmp_path / "q"])
