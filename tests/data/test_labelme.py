"""Reader of labelme files."""

import base64
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from annotation_files import rectangle, write_json, write_picture
from PIL import Image

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError
from runtime.masks.rle import decode

read_labelme = partial(open_dataset, format="labelme")


def shape(label="cat", kind="polygon", points=((10, 5), (20, 5), (20, 15), (10, 15)), **options):
    return {"label": label, "shape_type": kind, "points": [list(point) for point in points], **options}


def write(folder, *shapes, name="a", **options):
    write_picture(folder / f"{name}.png", 30, 50)
    content = {"version": "5.4.1", "imagePath": f"{name}.png", "shapes": list(shapes), "imageData": None, **options}
    return write_json(folder / f"{name}.json", content)


def masks(dataset):
    return [decode(item.mask) for item in dataset.records[0].load_instances()]


def png(mask):
    stream = BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_shapes_and_classes(tmp_path):
    write(
        tmp_path,
        shape("dog"),
        shape("cat", "rectangle", [(38, 8), (30, 2)]),
        shape("dog", "circle", [(25, 15), (25, 5)]),
    )
    write(tmp_path, name="b")
    dataset = read_labelme(tmp_path)
    assert dataset.class_names == ("BG", "cat", "dog")
    assert [record.image_id for record in dataset.records] == ["a", "b"]
    assert dataset.records[1].load_instances() == ()
    # Rows of the file in their order, for objects made of one shape.
    assert [item.class_id for item in dataset.records[0].load_instances()] == [2, 1, 2]
    polygon, box, circle = masks(dataset)
    np.testing.assert_array_equal(polygon, rectangle(30, 50, 5, 10, 15, 20))
    np.testing.assert_array_equal(box, rectangle(30, 50, 2, 30, 8, 38))
    assert circle.sum() == pytest.approx(np.pi * 100, rel=0.02)


def test_shapes_of_one_group_are_one_object(tmp_path):
    left, right = [(0, 0), (5, 0), (5, 5), (0, 5)], [(10, 0), (15, 0), (15, 5), (10, 5)]
    write(
        tmp_path,
        shape(points=left, group_id=1),
        shape(points=right, group_id=1),
        shape("dog", points=left, group_id=1),
        shape(points=left),
        shape(points=left, group_id=None),
        shape(points=left, group_id=0),
    )
    assert [int(mask.sum()) for mask in masks(read_labelme(tmp_path))] == [50, 25, 25, 25, 25]


def test_a_bitmap_between_two_corners(tmp_path):
    crop = np.zeros((4, 6), np.bool_)
    crop[1:, 2:] = True
    write(tmp_path, shape("cat", "mask", [(7, 3), (12, 6)], mask=png(crop)))
    np.testing.assert_array_equal(masks(read_labelme(tmp_path)), [rectangle(30, 50, 4, 9, 7, 13)])


def test_labels_that_are_no_objects_and_files_of_early_versions(tmp_path):
    early = shape()
    del early["shape_type"]
    write(tmp_path, shape("__ignore__"), shape("_background_"), early)
    dataset = read_labelme(tmp_path)
    assert dataset.class_names == ("BG", "cat")
    assert len(masks(dataset)) == 1


@pytest.mark.parametrize("image_path", ["../pictures/a.png", "..\\pictures\\a.png"])
def test_pictures_are_where_the_file_says(tmp_path, image_path):
    write_picture(tmp_path / "pictures" / "a.png", 30, 50)
    write(tmp_path / "labels", shape(), imagePath=image_path, imageHeight=30, imageWidth=50)
    (tmp_path / "labels" / "a.png").unlink()
    (record,) = read_labelme(tmp_path / "labels").records
    assert record.image.resolve() == tmp_path.resolve() / "pictures" / "a.png"
    (record,) = read_labelme(tmp_path / "labels", images=tmp_path / "pictures").records
    assert record.image.name == "a.png"


BAD = {
    "line": (shape(kind="line", points=[(1, 1), (9, 9)]), "shape-type", "'line', which has no area"),
    "no label": ({"points": []}, "missing-key", "'label'"),
    "no points": ({"label": "cat"}, "missing-key", "'points'"),
    "points are texts": (shape(points=["ab"]), "wrong-type", "x is 'a'"),
    "points of three": (shape(points=[(1, 2, 3)]), "polygon-odd", "x, y pairs"),
    "two corners": (shape(points=[(1, 2), (3, 4)]), "polygon-short", "2 corners"),
    "rectangle of one": (shape(kind="rectangle", points=[(1, 2)]), "polygon-short", "1 points; expected 2"),
    "circle of four": (shape(kind="circle", points=[(1, 2)] * 4), "polygon-short", "4 points"),
    "NaN": (shape(points=[(1, 2), (3, 4), (5, float("nan"))]), "not-finite", "y is nan"),
    "huge": (shape(points=[(1, 2), (3, 4), (5, 1e12)]), "polygon-far", "1e+12"),
    "huge circle": (shape(kind="circle", points=[(-1.7e308, 2), (1.7e308, 2)]), "polygon-not-finite", "not finite"),
    "flat": (shape(points=[(1, 2), (1, 2), (1, 2)]), "empty-mask", "no pixel"),
    "shape is a number": (7, "wrong-type", "the row is 7"),
    "mask is no PNG": (shape(kind="mask", points=[(1, 1), (2, 2)], mask="aGVsbG8="), "broken-mask", "64-encoded PNG"),
    "mask is no base64": (shape(kind="mask", points=[(1, 1), (2, 2)], mask="%%"), "broken-mask", "base64-encoded PNG"),
    "mask extends beyond the image": (
        shape(kind="mask", points=[(48, 1), (52, 5)], mask=png(np.ones((5, 5), np.bool_))), "outside", "beyond"
    ),
    "empty mask": (
        shape(kind="mask", points=[(8, 1), (12, 5)], mask=png(np.zeros((5, 5), np.bool_))), "empty-mask", "no pixel"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_shape(tmp_path, name):
    bad, kind, message = BAD[name]
    write(tmp_path, shape(), bad)
    (error,) = [item for item in check_dataset(tmp_path) if item.level == "error"]
    assert (error.kind, error.where) == (kind, "a.json shapes[1]")
    assert message in error.message
    with pytest.raises(DatasetFormatError, match=r"1 row that cannot be used, first a\.json shapes\[1\]: "):
        read_labelme(tmp_path)
    assert len(masks(read_labelme(tmp_path, skip_bad=True))) == 1


def test_bad_files(tmp_path):
    write(tmp_path, shape())
    write(tmp_path, name="b", imagePath="gone.png")
    write(tmp_path, name="c", imageHeight=50, imageWidth=30)
    write(tmp_path, name="d", imagePath="a.png")
    write(tmp_path, name="e", shapes=None)
    (tmp_path / "f.json").write_text("{")
    (tmp_path / "g.json").write_text('{"shapes": []}')
    errors = [item for item in check_dataset(tmp_path) if item.level == "error"]
    assert [(item.where[0], item.kind) for item in errors] == [
        ("b", "missing-file"), ("c", "image-size"), ("d", "duplicate-file"), ("e", "wrong-type"), ("f", "broken-file"),
        ("g", "wrong-type"),
    ]  # fmt: skip


def test_nothing_there(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no JSON file"):
        read_labelme(tmp_path)
