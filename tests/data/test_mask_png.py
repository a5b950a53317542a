"""Reader of mask images: instance maps, and one file per object."""

from functools import partial

import numpy as np
import pytest
from annotation_files import rectangle, write_map, write_picture
from PIL import Image

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.errors import DatasetError, DatasetFormatError, DatasetNotFoundError
from runtime.masks.rle import decode

read_masks = partial(open_dataset, format="masks")

FIRST, SECOND = rectangle(30, 50, 5, 10, 15, 20), rectangle(30, 50, 2, 30, 8, 38)


def instance_map(dtype=np.uint8, values=(1, 2)):
    return (values[0] * FIRST + values[1] * SECOND).astype(dtype)


def masks(dataset, index=0):
    return [decode(item.mask) for item in dataset.records[index].load_instances()]


def write_voc(folder, values, kinds=None, palette=True):
    write_picture(folder / "JPEGImages" / "a.jpg", 30, 50)
    write_map(folder / "SegmentationObject" / "a.png", values, palette)
    if kinds is not None:
        write_map(folder / "SegmentationClass" / "a.png", kinds, palette)


@pytest.mark.parametrize(
    ("values", "palette"),
    [(instance_map(), True), (instance_map(), False), (instance_map(np.uint16, (255, 4000)), False)],
    ids=["palette", "gray", "16 bits"],
)
def test_instance_maps(tmp_path, values, palette):
    write_voc(tmp_path, values, palette=palette)
    dataset = read_masks(tmp_path)
    assert dataset.class_names == ("BG", "object")
    assert [(record.image_id, record.image.name) for record in dataset.records] == [("a", "a.jpg")]
    assert [item.crowd for item in dataset.records[0].load_instances()] == [False, False]
    np.testing.assert_array_equal(masks(dataset), [FIRST, SECOND])


def test_classes_of_pixels(tmp_path):
    kinds = (3 * FIRST + 1 * SECOND).astype(np.uint8)
    kinds[5, :] *= 2  # a few pixels of another class: the most common one counts
    write_voc(tmp_path, instance_map(), kinds)
    dataset = read_masks(tmp_path)
    assert dataset.class_names == ("BG", "class 1", "class 2", "class 3")
    assert [item.class_id for item in dataset.records[0].load_instances()] == [3, 1]
    named = read_masks(tmp_path, class_names=("BG", "cat", "dog", "emu"))
    assert named.class_names == ("BG", "cat", "dog", "emu")
    assert [item.class_id for item in named.records[0].load_instances()] == [3, 1]
    with pytest.raises(DatasetFormatError, match="its class is 3, but there are 3 class names"):
        read_masks(tmp_path, class_names=("BG", "cat", "dog"))


def test_places_of_nobody_become_crowds_but_outlines_do_not(tmp_path):
    values = instance_map()
    border = rectangle(30, 50, 0, 5, 20, 25) & ~rectangle(30, 50, 5, 10, 15, 20)  # 5 pixels around the first object
    one, other = rectangle(30, 50, 20, 30, 29, 38), rectangle(30, 50, 20, 40, 27, 50)
    values[border | one | other] = 255
    write_voc(tmp_path, values)
    objects = read_masks(tmp_path).records[0].load_instances()
    assert [(item.class_id, item.crowd) for item in objects] == [(1, False), (1, False), (1, True), (1, True)]
    np.testing.assert_array_equal([decode(item.mask) for item in objects], [FIRST, SECOND, one, other])


def test_the_other_names_and_pictures_without_masks(tmp_path):
    write_picture(tmp_path / "images" / "a.png", 30, 50)
    write_picture(tmp_path / "images" / "b.png", 30, 50)
    write_picture(tmp_path / "images" / "c.png", 30, 50)
    write_map(tmp_path / "masks" / "a.png", instance_map())
    write_map(tmp_path / "masks" / "b.png", np.zeros((30, 50), np.uint8))
    dataset = read_masks(tmp_path, class_names=("BG", "cell"))
    assert dataset.class_names == ("BG", "cell")
    assert [len(masks(dataset, index)) for index in range(len(dataset))] == [2, 0]
    (note,) = [item for item in check_dataset(tmp_path) if item.kind == "no-mask-file"]
    assert note.message == "left out for want of a mask file: 1 image, first c"


def test_a_file_for_each_object(tmp_path):
    for name, found in (("x1", [FIRST, SECOND]), ("x2", [])):
        write_picture(tmp_path / name / "images" / f"{name}.png", 30, 50)
        (tmp_path / name / "masks").mkdir()
        for index, mask in enumerate(found):
            write_map(tmp_path / name / "masks" / f"{index}.png", (mask * 255).astype(np.uint8))
    dataset = read_masks(tmp_path, class_names=("BG", "nucleus"))
    assert dataset.class_names == ("BG", "nucleus")
    assert [record.image_id for record in dataset.records] == ["x1", "x2"]
    np.testing.assert_array_equal(masks(dataset), [FIRST, SECOND])
    assert masks(dataset, 1) == []
    with pytest.raises(DatasetError, match="2 class names are given"):
        read_masks(tmp_path, class_names=("BG", "a", "b"))


def test_bad_files(tmp_path):
    write_voc(tmp_path, instance_map(), (1 * FIRST).astype(np.uint8))
    folder = tmp_path / "SegmentationObject"
    for name in "cdefg":
        write_picture(tmp_path / "JPEGImages" / f"{name}.jpg", 30, 50)
        write_map(tmp_path / "SegmentationClass" / f"{name}.png", instance_map())
    (tmp_path / "SegmentationClass" / "g.png").unlink()
    write_map(folder / "b.png", instance_map())
    write_map(folder / "c.png", instance_map()[1:])
    Image.new("CMYK", (50, 30)).save(folder / "d.png", "TIFF")
    (folder / "e.png").write_bytes(b"no picture")
    write_map(folder / "f.png", instance_map())
    write_map(folder / "g.png", instance_map())
    (tmp_path / "JPEGImages" / "f.jpg").write_bytes(b"")
    errors = [item for item in check_dataset(tmp_path) if item.level == "error"]
    assert [(item.where.split("/")[-1], item.kind) for item in errors] == [
        ("b.png", "missing-file"), ("a.png object 2", "no-class"), ("c.png", "image-size"), ("d.png", "mask-mode"),
        ("e.png", "broken-image"), ("f.png", "broken-image"), ("g.png", "missing-file"),
    ]  # fmt: skip
    assert [len(masks(read_masks(tmp_path, skip_bad=True)))] == [1]


def test_bad_files_of_single_objects(tmp_path):
    write_picture(tmp_path / "good" / "images" / "good.png", 30, 50)
    write_map(tmp_path / "good" / "masks" / "0.png", np.zeros((30, 50), np.uint8))
    write_map(tmp_path / "good" / "masks" / "1.png", (FIRST * 255).astype(np.uint8))
    write_picture(tmp_path / "no_masks" / "images" / "x.png", 30, 50)
    (tmp_path / "no_picture" / "masks").mkdir(parents=True)
    errors = [item for item in check_dataset(tmp_path) if item.level == "error"]
    assert [(item.where, item.kind) for item in errors] == [
        ("no_masks", "missing-file"), ("no_picture", "missing-file"),
    ]  # fmt: skip


def test_folders_of_something_else(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        read_masks(tmp_path / "nowhere")
    with pytest.raises(DatasetFormatError, match="has no masks: expected JPEGImages"):
        read_masks(tmp_path)
