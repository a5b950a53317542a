"""Reader of VGG Image Annotator files, both versions."""

from functools import partial

import numpy as np
import pytest
from annotation_files import rectangle, write_json, write_picture

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError
from runtime.masks.rle import decode

read_via = partial(open_dataset, format="via")

POLYGON = {"name": "polygon", "all_points_x": [10, 20, 20, 10], "all_points_y": [5, 5, 15, 15]}
RECT = {"name": "rect", "x": 30, "y": 2, "width": 8, "height": 6}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def version_1(*regions, name="a.png"):
    return {f"{name}123": {"filename": name, "size": 123, "fileref": "", "regions": dict(enumerate(regions))}}


def version_2(*regions, name="a.png"):
    return {f"{name}123": {"filename": name, "size": 123, "regions": list(regions), "file_attributes": {}}}


def project(*regions):
    return {"_via_settings": {"ui": {}}, "_via_img_metadata": version_2(*regions), "_via_attributes": {"region": {}}}


def write(folder, content):
    write_picture(folder / "a.png", 30, 50)
    return write_json(folder / "via_region_data.json", content)


def masks(dataset):
    return [decode(item.mask) for item in dataset.records[0].load_instances()]


@pytest.mark.parametrize("form", [version_1, version_2, project])
def test_all_versions_give_the_same(tmp_path, form):
    dataset = read_via(write(tmp_path, form(region(POLYGON), region(RECT))), class_names=["balloon"])
    assert dataset.class_names == ("BG", "balloon")
    assert [record.image_id for record in dataset.records] == ["a.png"]
    assert [(item.class_id, item.crowd) for item in dataset.records[0].load_instances()] == [(1, False)] * 2
    np.testing.assert_array_equal(masks(dataset), [rectangle(30, 50, 5, 10, 15, 20), rectangle(30, 50, 2, 30, 8, 38)])


def test_round_shapes_and_open_lines(tmp_path):
    shapes = [
        {"name": "circle", "cx": 20, "cy": 15, "r": 10},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 5},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 5, "theta": np.pi / 2},
        {**POLYGON, "name": "polyline"},
    ]
    circle, flat, upright, line = masks(read_via(write(tmp_path, version_2(*map(region, shapes)))))
    assert circle.sum() == pytest.approx(np.pi * 100, rel=0.02)
    assert np.ptp(np.argwhere(flat), axis=0).tolist() == [9, 23]
    assert np.ptp(np.argwhere(upright), axis=0).tolist() == [23, 9]
    np.testing.assert_array_equal(line, rectangle(30, 50, 5, 10, 15, 20))


def test_classes_of_an_attribute(tmp_path):
    regions = [region(RECT, kind="dog"), region(RECT, kind=" cat "), region(RECT, kind={"cat": True, "dog": False})]
    dataset = read_via(write(tmp_path, version_2(*regions)), class_attribute="kind")
    assert dataset.class_names == ("BG", "cat", "dog")
    assert [item.class_id for item in dataset.records[0].load_instances()] == [2, 1, 1]


def test_attributes_that_are_not_used_are_told(tmp_path):
    found = check_dataset(write(tmp_path, version_2(region(RECT, kind="dog", age="2"))))
    (note,) = [item for item in found if item.kind == "attributes"]
    assert note.level == "warning"
    assert note.message.startswith(
        "regions have the attributes age, kind, but all get the same class: class_attribute="
    )


def test_a_picture_without_regions_is_kept(tmp_path):
    (record,) = read_via(write(tmp_path, version_1())).records
    assert record.load_instances() == ()


BAD = {
    "point": (region({"name": "point", "cx": 1, "cy": 1}), "shape-type", "'point', which has no area"),
    "no name": (region({"x": 1}), "missing-key", "'name'"),
    "no shape": ({"region_attributes": {}}, "missing-key", "'shape_attributes'"),
    "region is a text": ("x", "wrong-type", "'x'"),
    "lists of two lengths": (region({**POLYGON, "all_points_x": [1, 2]}), "polygon-odd", "the same length"),
    "two corners": (
        region({"name": "polygon", "all_points_x": [1, 9], "all_points_y": [1, 9]}), "polygon-short", "2 corners"
    ),
    "huge": (region({**POLYGON, "all_points_x": [1, 1e15, 5, 6]}), "polygon-far", "1e+15"),
    "text as number": (region({**RECT, "width": "8"}), "wrong-type", "width is '8'"),
    "rect without height": (region({"name": "rect", "x": 1, "y": 1, "width": 3}), "missing-key", "'height'"),
    "rect without area": (region({**RECT, "width": 0}), "empty-mask", "no pixel"),
    "NaN radius": (region({"name": "circle", "cx": 9, "cy": 9, "r": float("nan")}), "not-finite", "r is nan"),
    "huge radius": (region({"name": "circle", "cx": 9, "cy": 9, "r": 1e300}), "polygon-far", "e+300"),
    "outside": (region({**RECT, "x": 60}), "empty-mask", "extends 18 pixels beyond"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_region(tmp_path, name):
    bad, kind, message = BAD[name]
    path = write(tmp_path, version_2(region(RECT), bad))
    (error,) = [item for item in check_dataset(path, format="via") if item.level == "error"]
    assert (error.kind, error.where) == (kind, "via_region_data.json a.png123 region 1")
    assert message in error.message
    with pytest.raises(DatasetFormatError, match=r"1 row that cannot be used, first .* region 1: "):
        read_via(path)
    assert len(read_via(path, skip_bad=True).records[0].load_instances()) == 1


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "no 'kind'"), ({"kind": ""}, "kind' is ''"), ({"kind": None}, "None"),
        ({"kind": {"a": True, "b": True}}, "2 of the check boxes"), ({"kind": {}}, "0 of the check boxes"),
    ],
)  # fmt: skip
def test_a_region_without_a_class(tmp_path, attributes, message):
    with pytest.raises(DatasetFormatError, match=message):
        read_via(write(tmp_path, version_2(region(RECT, **attributes))), class_attribute="kind")


def test_bad_pictures(tmp_path):
    content = version_2(region(RECT))
    content["b"] = {"filename": "b.png", "regions": []}
    content["c"] = {"filename": "a.png", "regions": []}
    content["d"] = {"regions": []}
    content["e"] = {"filename": "e.png", "regions": []}
    content["f"] = {"filename": "f.png", "regions": 3}
    path = write(tmp_path, content)
    (tmp_path / "e.png").write_bytes(b"no picture")
    write_picture(tmp_path / "f.png", 5, 5)
    errors = [item for item in check_dataset(path) if item.level == "error"]
    assert [(item.kind, item.where.split()[-1]) for item in errors] == [
        ("missing-file", "b"), ("duplicate-image", "c"), ("missing-key", "d"), ("broken-image", "e"),
        ("wrong-type", "f"),
    ]  # fmt: skip


def test_no_picture_and_no_file_of_this_kind(tmp_path):
    path = write_json(tmp_path / "data.json", version_1(region(RECT)))
    with pytest.raises(DatasetNotFoundError, match="none of its 1 images"):
        read_via(path)
    for content in ([], {"a": 1}, {"images": []}):
        with pytest.raises(DatasetFormatError, match="not a VGG Image Annotator file"):
            read_via(write_json(tmp_path / "other.json", content))
