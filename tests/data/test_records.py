"""Records, and combining datasets by class name."""

import numpy as np
import pytest
from annotation_files import rectangle

from maskrcnn.data.records import Dataset, Instance, Record, combine
from maskrcnn.errors import DatasetError
from runtime.masks.rle import encode_crop

MASK = encode_crop(rectangle(4, 5, 0, 0, 2, 2), (0, 0), (4, 5))


def picture():
    return np.zeros((4, 5), np.uint8)


def dataset(name, classes, *class_ids, late=False, **options):
    """A dataset of one image with one object per class id."""
    objects = tuple(Instance(class_id, MASK, class_id == 2, (0, 0, 2, 2), class_id) for class_id in class_ids)
    record = Record(1, picture, (lambda: objects) if late else objects, **options)
    return Dataset(name, ("BG", *classes), (record,), {i: 10 * i for i in range(1, len(classes) + 1)})


def ids(dataset, index=0):
    return [item.class_id for item in dataset.records[index].load_instances()]


def test_a_record_gives_its_picture_in_the_channels_asked_for():
    record = dataset("a", ["x"], 1).records[0]
    assert record.load_image().shape == (4, 5, 3)
    assert record.load_image(1).shape == (4, 5, 1)


@pytest.mark.parametrize("late", [False, True])
def test_classes_are_matched_by_name(late):
    joined = combine([dataset("a", ["cat", "dog"], 1, 2, late=late), dataset("b", ["cow", "cat"], 1, 2, 1, late=late)])
    assert joined.name == "a + b"
    assert joined.class_names == ("BG", "cat", "dog", "cow")
    assert [record.image_id for record in joined.records] == ["a:1", "b:1"]
    assert ids(joined, 0) == [1, 2]
    assert ids(joined, 1) == [3, 1, 3]
    assert joined.category_ids == {}


def test_only_the_classes_of_its_source_are_active_in_a_picture():
    joined = combine([dataset("a", ["cat", "dog"], 1), dataset("b", ["cow", "cat"], 1)])
    assert [record.active_class_ids for record in joined.records] == [{1, 2}, {3, 1}]
    three = combine([joined, dataset("c", ["dog", "emu"], 2)])
    assert three.class_names == ("BG", "cat", "dog", "cow", "emu")
    assert [record.active_class_ids for record in three.records] == [{1, 2}, {3, 1}, {2, 4}]


def test_chosen_classes_in_chosen_order():
    chosen = combine([dataset("a", ["cat", "dog", "emu"], 1, 2, 3, 2)], ("BG", "emu", "dog"))
    assert chosen.class_names == ("BG", "emu", "dog")
    assert ids(chosen) == [2, 1, 2]
    assert chosen.category_ids == {1: 30, 2: 20}
    assert chosen.records[0].active_class_ids == {1, 2}
    assert chosen.records[0].image_id == 1


def test_an_object_keeps_the_rest():
    (item,) = combine([dataset("a", ["cat", "dog"], 2)], ("BG", "dog")).records[0].load_instances()
    assert item == Instance(1, MASK, True, (0, 0, 2, 2), 2)


def test_a_picture_whose_objects_are_all_left_out_stays():
    chosen = combine([dataset("a", ["cat", "dog"], 1)], ("BG", "dog"))
    assert len(chosen) == 1
    assert ids(chosen) == []


def test_what_cannot_be_joined():
    with pytest.raises(DatasetError, match="no dataset"):
        combine([])
    with pytest.raises(DatasetError, match="b has none of the classes cat: it has cow"):
        combine([dataset("a", ["cat"], 1), dataset("b", ["cow"], 1)], ("BG", "cat"))
    with pytest.raises(DatasetError, match="class names"):
        Dataset("a", ("BG", "cat", "cat"), ())
    with pytest.raises(DatasetError, match="class names"):
        Dataset("a", (), ())


def test_what_is_surprising_in_images_is_said_once(tmp_path, caplog, monkeypatch):
    """A dataset of 12-bit images, read in two epochs, without and with the range of the sensor."""
    from PIL import Image

    from maskrcnn.data import records
    from runtime.pictures.pixels import PixelPolicy

    monkeypatch.setattr(records, "_noted", set())
    made = []
    for number in range(3):
        path = tmp_path / f"image {number}.png"
        Image.fromarray(np.full((4, 5), 3000 + number, np.uint16) // np.arange(1, 6, dtype=np.uint16)).save(path)
        made.append(Record(number, path, ()))
    for record in made * 2:
        assert record.load_image().max() == 11
    (line,) = caplog.messages
    assert "value_range=(0, 4095)" in line
    assert "image 0.png" in line
    assert "first such image only" in line
    assert made[0].load_image(1, PixelPolicy((0, 4095))).max() == round(3000 / 4095 * 255)
