"""What annotation tools write: every form of the VGG Image Annotator, labelme of all ages, YOLO, roots with splits."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from annotation_files import coco, rectangle, write_coco, write_json, write_map, write_picture

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.readers.options import ReadOptions
from maskrcnn.errors import DatasetError, DatasetFormatError
from runtime.masks.rle import decode

POLYGON = {"name": "polygon", "all_points_x": [10, 20, 20, 10], "all_points_y": [5, 5, 15, 15]}
RECT = {"name": "rect", "x": 30, "y": 2, "width": 8, "height": 6}
MASKS = [rectangle(30, 50, 5, 10, 15, 20), rectangle(30, 50, 2, 30, 8, 38)]


def masks(dataset, index=0):
    return [decode(item.mask) for item in dataset.records[index].load_instances()]


def labels(dataset, index=0):
    return [dataset.class_names[item.class_id] for item in dataset.records[index].load_instances()]


def project(first, second):
    regions = [
        {"shape_attributes": POLYGON, "region_attributes": first},
        {"shape_attributes": RECT, "region_attributes": second},
    ]
    entry = {"filename": "a.png", "size": 1, "regions": regions}
    options = {"kind": {"type": "dropdown", "options": {"1": "dog", "2": "cat", "3": ""}}}
    return {"_via_img_metadata": {"a.png1": entry}, "_via_attributes": {"region": options, "file": {}}}


def text_of(rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


def table(delimiter=",", mark=""):
    head = f"{mark}filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    regions = [(POLYGON, {"kind": "dog"}), (RECT, {"kind": "cat"})]
    rows = [
        ("a.png", 1, "{}", 2, index, json.dumps(shape), json.dumps(attributes))
        for index, (shape, attributes) in enumerate(regions)
    ]
    return text_of([head.split(","), *rows, ("b.png", 1, "{}", 0, 0, "{}", "{}")], delimiter)


def version_3(views=True):
    rows = {"1_a": [7, 10, 5, 20, 5, 20, 15, 10, 15], "1_b": [2, 30, 2, 8, 6], "1_c": []}
    metadata = {
        key: {"vid": "1", "z": [], "xy": xy, "av": {"1": "01"[index % 2]}}
        for index, (key, xy) in enumerate(rows.items())
    }
    return {
        "project": {"pid": "x"},
        "attribute": {"1": {"aname": "kind", "type": 4, "options": {"0": "dog", "1": "cat"}}},
        "file": {"1": {"fid": "1", "fname": "a.png", "type": 2}, "2": {"fid": "2", "fname": "b.png", "type": 2}},
        "metadata": metadata,
        **({"view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}}} if views else {}),
    }


def table_3():
    head = (
        "# Exported using VGG Image Annotator\n"
        '# ATTRIBUTE = {"1":{"aname":"kind","options":{"0":"dog","1":"cat"}}}\n'
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
    )
    shapes = ("[7,10,5,20,5,20,15,10,15]", "[2,30,2,8,6]")
    return head + text_of(
        [f"1_{index}", '["a.png"]', 0, "[]", shape, json.dumps({"1": str(index)})] for index, shape in enumerate(shapes)
    )


FORMS = {
    "options by id": ("via.json", json.dumps(project({"kind": "1"}, {"kind": "2"}))),
    "check boxes": ("via.json", json.dumps(project({"kind": {"1": True}}, {"kind": {"2": True, "1": False}}))),
    "option without a text": ("via.json", json.dumps(project({"kind": "dog"}, {"kind": "cat"}))),
    "CSV": ("via.csv", table()),
    "CSV of version 1": ("via.csv", table(mark="#")),
    "CSV with semicolons": ("via.csv", "\ufeff" + table(";")),
    "version 3": ("via.json", json.dumps(version_3())),
    "version 3 without views": ("via.json", json.dumps(version_3(views=False))),
    "CSV of version 3": ("via.csv", table_3()),
}


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_image_annotator(tmp_path, form, as_folder):
    file, text = FORMS[form]
    write_picture(tmp_path / "a.png", 30, 50)
    write_picture(tmp_path / "b.png", 30, 50)
    (tmp_path / file).write_text(text, encoding="utf-8")
    dataset = open_dataset(tmp_path if as_folder else tmp_path / file, class_attribute="kind")
    assert dataset.class_names == ("BG", "cat", "dog")
    assert labels(dataset) == ["dog", "cat"]
    np.testing.assert_array_equal(masks(dataset), MASKS)
    assert all(not record.load_instances() for record in dataset.records[1:])
    assert open_dataset(tmp_path / file).class_names == ("BG", "object")


def test_the_class_is_the_name_of_an_attribute(tmp_path):
    write_picture(tmp_path / "a.png", 30, 50)
    path = write_json(tmp_path / "via.json", project({"Key": "k1", "Image": ""}, {"Image": "i1"}))
    assert labels(open_dataset(path, class_attribute="@key")) == ["Key", "Image"]
    path = write_json(tmp_path / "via.json", project({"Key": "k1", "Image": "x"}, {}))
    errors = [item for item in check_dataset(path, class_attribute="@key") if item.level == "error"]
    assert [item.kind for item in errors] == ["no-class", "no-class"]


def test_entries_that_are_written_twice(tmp_path):
    content = coco()
    content["annotations"] *= 2
    path = write_coco(tmp_path, json.loads(json.dumps(content)))
    assert len(open_dataset(path).records[0].load_instances()) == 3
    content["annotations"] = json.loads(json.dumps(content["annotations"]))
    content["annotations"][3]["category_id"] = 3
    with pytest.raises(DatasetFormatError, match="annotation id 11 is used twice"):
        open_dataset(write_json(path, content))


def labelme(label="cat", **values):
    shapes = [{"label": label, "points": [[10, 5], [20, 5], [20, 15], [10, 15]], "shape_type": "polygon"}]
    return {"version": "4.5.6", "shapes": shapes, "imagePath": "a.png", "imageData": None, **values}


def test_the_copy_in_a_labelme_file_is_used_where_the_image_is_missing(tmp_path):
    picture = write_picture(tmp_path / "elsewhere" / "a.png", 30, 50)
    data = base64.b64encode(picture.read_bytes()).decode()
    folder = tmp_path / "set"
    write_json(folder / "a.json", labelme(imageData=data, imageHeight=30.0, imageWidth="50"))
    write_json(
        folder / "b.json", labelme(imagePath="b.png", imageData=f"data:image/png;base64,{data[:40]}\n{data[40:]}")
    )
    dataset = open_dataset(folder)
    for record in dataset.records:
        np.testing.assert_array_equal(record.load_image(), np.full((30, 50, 3), 90))
    np.testing.assert_array_equal(masks(dataset), MASKS[:1])
    assert [item.count for item in check_dataset(folder) if item.kind == "image-data"] == [2]
    write_picture(folder / "a.png", 30, 50)
    assert open_dataset(folder).records[0].image == folder / "a.png"


@pytest.mark.parametrize(("data", "kind"), [("%%", "broken-image"), ("aGVsbG8=", "broken-image"), (7, "wrong-type")])
def test_a_copy_that_is_no_image(tmp_path, data, kind):
    write_json(tmp_path / "a.json", labelme(imageData=data))
    assert [item.kind for item in check_dataset(tmp_path) if item.level == "error"] == [kind]


def test_a_copy_with_damaged_pixels_is_found_by_the_check(tmp_path):
    data = write_picture(tmp_path / "x" / "a.png", 30, 50).read_bytes()
    write_json(tmp_path / "a.json", labelme(imageData=base64.b64encode(data[:-30]).decode()))
    assert [item.kind for item in check_dataset(tmp_path, format="labelme") if item.level == "error"] == [
        "broken-image"
    ]


@pytest.mark.parametrize(
    ("encoding", "option", "label"),
    [
        ("gbk", None, "裂缝"), ("utf-16", None, "裂缝"), ("utf-8-sig", None, "裂缝"), ("cp1252", "cp1252", "für"),
        ("shift_jis", "shift_jis", "ひび"), ("euc-kr", "cp949", "균열"),
    ],
)  # fmt: skip
def test_encodings(tmp_path, encoding, option, label):
    write_picture(tmp_path / "a.png", 30, 50)
    (tmp_path / "a.json").write_bytes(json.dumps(labelme(label), ensure_ascii=False).encode(encoding))
    options = ReadOptions(encoding=option)
    assert open_dataset(tmp_path, options=options).class_names == ("BG", label)
    told = [item.kind for item in check_dataset(tmp_path, options=options) if item.kind == "encoding"]
    assert told == ([] if encoding == "utf-8-sig" else ["encoding"])


@pytest.mark.parametrize("label", ["für", "ñandú é"])
def test_an_unknown_encoding_is_asked_for(tmp_path, label):
    write_picture(tmp_path / "a.png", 30, 50)
    (tmp_path / "a.json").write_bytes(json.dumps(labelme(label), ensure_ascii=False).encode("cp1252"))
    with pytest.raises(DatasetFormatError, match=r"give its encoding with encoding= \(--encoding\)"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="encoding is 'utf-99'"):
        ReadOptions(encoding="utf-99")
    with pytest.raises(DatasetError, match="mask_values is 'x'"):
        ReadOptions(mask_values="x")


@pytest.mark.parametrize("other", ["0.json", "classes.json"])
def test_other_files_beside_labelme_files_are_left_out_and_named(tmp_path, other):
    write_picture(tmp_path / "a.png", 30, 50)
    write_json(tmp_path / "a.json", labelme())
    write_json(tmp_path / other, {"classes": ["cat"]})
    assert len(open_dataset(tmp_path)) == 1
    assert [item.where for item in check_dataset(tmp_path) if item.kind == "other-file"] == [other]


def test_other_files_beside_a_coco_file_are_left_out_and_named(tmp_path):
    path = write_coco(tmp_path)
    write_json(tmp_path / "classes.json", {"classes": ["cat"]})
    (tmp_path / "notes.json").write_text("{")
    assert len(open_dataset(tmp_path)) == len(open_dataset(path)) == 2
    assert [item.where for item in check_dataset(tmp_path) if item.kind == "other-file"] == [
        "classes.json",
        "notes.json",
    ]


LINES = "0 0.2 0.2 0.4 0.2 0.4 0.5 0.2 0.5\n1 0.6 0.2 0.8 0.2 0.8 0.5\n"
FIRST = rectangle(30, 50, 6, 10, 15, 20)


def yolo(folder, names="names: [cat, dog]", lines=LINES, image="images/a.jpg", label="labels/a.txt", file="data.yaml"):
    write_picture(folder / image, 30, 50)
    (folder / label).parent.mkdir(parents=True, exist_ok=True)
    (folder / label).write_text(lines)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(names)
    return folder


NAMES = {
    "list": "names: [cat, dog]\ntrain: images\n",
    "keys": "names:\n  0: cat\n  1: dog\nnc: 2\nval: images\n",
    "Roboflow": "train: ../images\nval: ../nowhere/images\nnc: 2\nnames: ['cat', 'dog']\nroboflow:\n  version: 1\n",
    "root": "path: .\ntrain:\n- images\nnames: [cat, dog]\n",
    "root of another computer": "path: /data/me/set\ntrain: images\ntest:\nnames: [cat, dog]\n",
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("given", [".", "data.yaml", "images"])
def test_yolo(tmp_path, case, given):
    yolo(tmp_path, NAMES[case])
    dataset = open_dataset(tmp_path / given)
    assert dataset.class_names == ("BG", "cat", "dog")
    assert labels(dataset) == ["cat", "dog"]
    np.testing.assert_array_equal(masks(dataset)[0], FIRST)


def test_yolo_layouts(tmp_path):
    split = yolo(tmp_path / "a", image="train/images/a.jpg", label="train/labels/a.txt", file="data.yaml")
    assert labels(open_dataset(split / "train")) == ["cat", "dog"]
    inside = yolo(tmp_path / "b", image="images/train/a.jpg", label="labels/train/a.txt")
    assert labels(open_dataset(inside / "images" / "train")) == ["cat", "dog"]
    tool = yolo(tmp_path / "c", "cat\ndog\n", file="classes.txt")
    write_json(tool / "notes.json", {"categories": []})
    assert labels(open_dataset(tool)) == ["cat", "dog"]
    (tool / "classes.txt").unlink()
    with pytest.raises(DatasetError, match=r"no class names: expected a data\.yaml or classes\.txt"):
        open_dataset(tool)
    assert open_dataset(tool, class_names=["x", "y"]).class_names == ("BG", "x", "y")


def test_yolo_splits_are_named(tmp_path):
    yolo(tmp_path, "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]",
         image="train/images/a.jpg", label="train/labels/a.txt")  # fmt: skip
    yolo(tmp_path, image="valid/images/b.jpg", label="valid/labels/b.txt", file="x/unused")
    for path in (tmp_path, tmp_path / "data.yaml"):
        with pytest.raises(DatasetFormatError, match=r"has the splits train, val: give the folder of one: .*train/im"):
            open_dataset(path)


def test_yolo_images_without_labels_and_labels_without_images(tmp_path):
    yolo(tmp_path)
    write_picture(tmp_path / "images" / "empty.jpg", 30, 50)
    write_picture(tmp_path / "images" / "none.jpg", 30, 50)
    (tmp_path / "labels" / "empty.txt").write_text("\n")
    assert [len(record.load_instances()) for record in open_dataset(tmp_path).records] == [2, 0, 0]
    (note,) = [item for item in check_dataset(tmp_path) if item.kind == "no-label-file"]
    assert note.message.startswith("no label file, and so no objects: 1 image, first 'none'")
    (tmp_path / "labels" / "gone.txt").write_text(LINES)
    with pytest.raises(DatasetFormatError, match=r"labels/gone\.txt: there is no image 'gone'"):
        open_dataset(tmp_path)


BAD_LINES = {
    "box": ("0 0.5 0.5 0.2 0.2", "no-mask", "--boxes-as-masks"),
    "odd": ("0 0.1 0.1 0.5 0.1 0.5", "polygon-odd", "5 coordinates"),
    "class": ("2 0.1 0.1 0.5 0.1 0.5 0.5", "unknown-category", "from 0 to 1"),
    "text": ("0 0.1 0.1 0.5 x 0.5 0.5", "wrong-type", "'x'"),
    "nan": ("0 0.1 0.1 0.5 nan 0.5 0.5", "wrong-type", "'nan'"),
    "pixels": ("0 10 10 40 10 40 40", "polygon-far", "shares of the image"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line(tmp_path, case):
    line, kind, message = BAD_LINES[case]
    yolo(tmp_path, lines=f"{LINES}{line}\n")
    (error,) = [item for item in check_dataset(tmp_path) if item.level == "error"]
    assert (error.kind, error.where) == (kind, "a.txt line 3")
    assert message in error.message
    assert labels(open_dataset(tmp_path, skip_bad=True)) == ["cat", "dog"]


def test_yolo_boxes_are_masks_if_asked_for(tmp_path):
    yolo(tmp_path, lines="0 0.3 0.35 0.2 0.3\n")
    np.testing.assert_array_equal(masks(open_dataset(tmp_path, options=ReadOptions(boxes_as_masks=True))), [FIRST])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: [cat, cat]", "unique"), ("names: [BG]", "unique"), ("names: 5", "expected a list of class names"),
        ("names: {0: cat, 2: dog}", "expected 0, 1, 2"), ("names: [cat]\nnc: 2", "nc is '2'"), ("- a", "is \\['a'\\]"),
        ("names: [a, {", "cannot be read as YAML"), ("names: " + "[" * 100_000, "more than 30 levels deep"),
        ("names: [a]\nkpt_shape: [17, 3]", "keypoints"), ("names: [[a]]", "name is"),
    ],
)  # fmt: skip
def test_a_bad_description(tmp_path, names, message):
    with pytest.raises(DatasetFormatError, match=message):
        open_dataset(yolo(tmp_path, names))


def test_words_stay_words(tmp_path):
    assert open_dataset(yolo(tmp_path, "names: [no, 12]")).class_names == ("BG", "no", "12")


def test_a_root_names_its_splits(tmp_path):
    for name in ("train", "valid"):
        write_picture(tmp_path / "r" / name / "a.png", 40, 60)
        write_picture(tmp_path / "r" / name / "b.png", 30, 50)
        write_json(tmp_path / "r" / name / "_annotations.coco.json", coco())
        write_map(tmp_path / "m" / name / "masks" / "a.png", np.eye(40, 60, dtype=np.uint8))
        write_picture(tmp_path / "m" / name / "images" / "a.png", 40, 60)
        yolo(tmp_path / "y" / name)
    for root in ("r", "y"):
        with pytest.raises(
            DatasetFormatError, match=rf"splits of a dataset: give one of .*{root}/train, .*{root}/valid"
        ):
            open_dataset(tmp_path / root)
        assert len(open_dataset(tmp_path / root / "valid")) > 0


def test_images_elsewhere_are_no_matter_of_masks(tmp_path):
    yolo(tmp_path)
    with pytest.raises(DatasetError, match=r"\(--images\) is given, but .* holds its images itself"):
        open_dataset(tmp_path, tmp_path)
