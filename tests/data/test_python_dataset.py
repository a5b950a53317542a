"""Datasets written in Python: subclasses as for matterport's code, and any object with the same four attributes."""

import numpy as np
import pytest
from annotation_files import rectangle, write_picture

from maskrcnn.data.from_python import from_python
from maskrcnn.data.python_dataset import PythonDataset
from maskrcnn.data.readers.check import check_dataset
from maskrcnn.errors import DatasetError
from runtime.masks.rle import decode

MASKS = np.stack([rectangle(30, 50, 5, 10, 15, 20), rectangle(30, 50, 2, 30, 8, 38)], axis=2)


class ShapesDataset(PythonDataset):
    """A dataset as written for matterport's code."""

    def load_shapes(self, folder, count):
        self.add_class("shapes", 1, "square")
        self.add_class("shapes", 2, "circle, round")
        self.add_class("coco", 12, "dog")
        for i in range(count):
            self.add_image("shapes", image_id=f"shape{i}", path=folder / f"{i}.png", width=50, height=30, wanted=[1, 2])

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        if info["source"] != "shapes":
            return super(self.__class__, self).load_mask(image_id)
        return MASKS.astype(bool), np.array(info["wanted"], np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "shapes":
            return info["path"]
        return super(self.__class__, self).image_reference(image_id)


class Plain:
    """Only the required attributes."""

    class_names = ("BG", "cat", "dog")
    image_ids = ("x", "y")

    def __init__(self, masks=MASKS, class_ids=(1, -2)):
        self.found = masks, np.array(class_ids)
        self.calls = []

    def load_image(self, image_id):
        self.calls.append(image_id)
        return np.full((30, 50, 3), 7, np.uint8)

    def load_mask(self, image_id):
        self.calls.append(image_id)
        return self.found


@pytest.fixture
def shapes(tmp_path):
    dataset = ShapesDataset()
    for index in range(2):
        write_picture(tmp_path / f"{index}.png", 30, 50)
    dataset.load_shapes(tmp_path, 2)
    dataset.add_image("coco", image_id=77, path=tmp_path / "0.png")
    dataset.prepare()
    return dataset


def test_what_prepare_makes(shapes, tmp_path):
    assert shapes.num_classes == 4
    assert shapes.class_names == ["BG", "square", "circle", "dog"]
    assert shapes.class_ids.tolist() == [0, 1, 2, 3]
    assert shapes.num_images == 3
    assert shapes.image_ids.tolist() == [0, 1, 2]
    assert shapes.sources == ["", "shapes", "coco"]
    assert shapes.source_class_ids == {"": [0], "shapes": [0, 1, 2], "coco": [0, 3]}
    assert shapes.class_from_source_map == {".0": 0, "shapes.1": 1, "shapes.2": 2, "coco.12": 3}
    assert shapes.image_from_source_map == {"shapes.shape0": 0, "shapes.shape1": 1, "coco.77": 2}
    assert shapes.map_source_class_id("coco.12") == 3
    assert shapes.get_source_class_id(3, "coco") == 12
    assert shapes.source_image_link(1) == shapes.image_reference(1) == tmp_path / "1.png"
    assert shapes.image_reference(2) == ""
    assert shapes.load_image(0).shape == (30, 50, 3)
    assert shapes.image_info[0]["width"] == 50
    with pytest.raises(DatasetError, match=r"no class 'coco\.13'"):
        shapes.map_source_class_id("coco.13")
    with pytest.raises(DatasetError, match="class 3 is from source 'coco', not 'shapes'"):
        shapes.get_source_class_id(3, "shapes")


def test_classes_are_added_once_and_sources_have_no_dot():
    dataset = PythonDataset()
    for _ in range(2):
        dataset.add_class("a", 1, "x")
    assert len(dataset.class_info) == 2
    with pytest.raises(DatasetError, match="without a dot"):
        dataset.add_class("a.b", 1, "x")


def test_records_of_a_subclass(shapes):
    dataset = from_python(shapes)
    assert dataset.name == "ShapesDataset"
    assert dataset.class_names == ("BG", "square", "circle", "dog")
    assert [record.image_id for record in dataset.records] == ["shape0", "shape1", 77]
    assert [record.active_class_ids for record in dataset.records] == [{1, 2}, {1, 2}, {3}]
    assert dataset.records[0].load_image().shape == (30, 50, 3)
    objects = dataset.records[1].load_instances()
    assert [(item.class_id, item.crowd) for item in objects] == [(1, False), (2, False)]
    np.testing.assert_array_equal(np.stack([decode(item.mask) for item in objects], axis=2), MASKS)
    assert dataset.records[2].load_instances() == ()


def test_records_of_any_object_are_loaded_late():
    source = Plain()
    dataset = from_python(source, "mine")
    assert source.calls == []
    assert dataset.name == "mine"
    assert [record.image_id for record in dataset.records] == ["x", "y"]
    assert dataset.records[0].active_class_ids is None
    assert [(item.class_id, item.crowd) for item in dataset.records[1].load_instances()] == [(1, False), (2, True)]
    assert dataset.records[1].load_image().shape == (30, 50, 3)
    assert source.calls == ["y", "y"]


def test_masks_without_pixels_are_passed_over_and_numbers_count_as_masks():
    masks = MASKS.astype(np.uint8) * 255
    masks[:, :, 0] = 0
    (item,) = from_python(Plain(masks, [1.0, 2.0])).records[0].load_instances()
    assert item.class_id == 2
    np.testing.assert_array_equal(decode(item.mask), MASKS[:, :, 1])
    for empty in (np.zeros((0, 0, 0)), np.zeros((30, 50, 0), np.bool_)):
        assert from_python(Plain(empty, [])).records[0].load_instances() == ()


@pytest.mark.parametrize(
    ("masks", "class_ids", "message"),
    [
        (MASKS, [1], r"bool \[30, 50, 2\] and int64 \[1\]; expected"),
        (MASKS[:, :, 0], [1], r"bool \[30, 50\] and"),
        (MASKS, [1, 0], r"class id 0; expected 1\.\.2, negative for a crowd"),
        (MASKS, [1, 3], "class id 3"),
        (MASKS, [1, -3], "class id -3"),
        (MASKS, [1, 1.5], "class ids of float64"),
        (MASKS, [1, float("nan")], "class ids of float64"),
        (MASKS, ["a", "b"], "class ids of <U1"),
        (np.full((3, 3, 2), "a"), [1, 2], r"<U1 \[3, 3, 2\]"),
        (MASKS, [], r"int|float64 \[0\]"),
    ],
)
def test_masks_that_are_none(masks, class_ids, message):
    with pytest.raises(DatasetError, match=rf"^Plain image 'x': load_mask returned .*{message}"):
        from_python(Plain(masks, class_ids)).records[0].load_instances()


def test_errors_name_the_picture():
    class Broken(Plain):
        def load_image(self, image_id):
            if image_id == "x":
                raise KeyError("no\nsuch")
            return np.zeros((3, 3))

        def load_mask(self, image_id):
            return None if image_id == "x" else 1 / 0

    first, second = from_python(Broken()).records
    with pytest.raises(DatasetError, match=r"Broken image 'x': load_image raised KeyError: "):
        first.load_image()
    with pytest.raises(DatasetError, match=r"Broken image 'y': load_image returned float64 \[3, 3\]; expected uint8"):
        second.load_image()
    with pytest.raises(DatasetError, match=r"Broken image 'x': load_mask returned NoneType; expected masks"):
        first.load_instances()
    with pytest.raises(DatasetError, match=r"Broken image 'y': load_mask raised ZeroDivisionError: division by zero"):
        second.load_instances()
    assert [item.kind for item in check_dataset(from_python(Broken())) if item.level == "error"] == ["broken-image"] * 2


def test_the_check_loads_masks_and_compares_sizes():
    class Wrong(Plain):
        def load_image(self, image_id):
            return np.zeros((30, 50 if image_id == "x" else 51, 3), np.uint8)

        def load_mask(self, image_id):
            return self.found if image_id == "y" else (MASKS, [1, 9])

    errors = [item for item in check_dataset(from_python(Wrong())) if item.level == "error"]
    assert [item.kind for item in errors] == ["bad-masks", "image-size"]
    assert "class id 9" in errors[0].message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["cat", "dog"]}, "expected 'BG', then at least one"),
        ({"class_names": ["BG"]}, "expected 'BG', then at least one"),
        ({"image_ids": []}, "has no images"),
        ({"image_ids": ["x", "x"]}, "has duplicate image ids"),
    ],
)
def test_objects_that_are_no_dataset(change, message):
    source = Plain()
    vars(source).update(change)
    with pytest.raises(DatasetError, match=message):
        from_python(source)


def test_prepare_was_forgotten():
    with pytest.raises(DatasetError, match=r"no class_names; expected .*; was prepare\(\) called\?"):
        from_python(ShapesDataset())
    with pytest.raises(DatasetError, match=r"object has no class_names; expected [a-z_, ]*$"):
        from_python(object())
