"""Valid COCO JSON: every kind of mask, where images are found, and ids."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from annotation_files import coco, rectangle, write_coco, write_json, write_picture
from PIL import Image
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError
from runtime.masks.rle import decode

read_coco = partial(open_dataset, format="coco")


def decoded(dataset, index=0):
    return [decode(instance.mask) for instance in dataset.records[index].load_instances()]


def test_records_of_a_small_file(tmp_path):
    dataset = read_coco(write_coco(tmp_path))
    assert dataset.name == f"{tmp_path.name}/data"
    assert dataset.class_names == ("BG", "cat", "dog")
    assert dataset.category_ids == {1: 3, 2: 7}
    assert [record.image_id for record in dataset.records] == [1, 5]
    assert [record.image.name for record in dataset.records] == ["a.png", "b.png"]
    assert dataset.records[0].load_image().shape == (40, 60, 3)
    objects = dataset.records[0].load_instances()
    assert [(item.class_id, item.crowd, item.annotation_id) for item in objects] == [
        (2, False, 11), (1, False, 12), (1, True, 13),
    ]  # fmt: skip
    assert [item.file_box for item in objects] == [(10, 10, 20, 20), (30, 5, 50, 15), None]
    assert dataset.records[1].load_instances() == ()
    expected = [rectangle(40, 60, 10, 10, 20, 20), rectangle(40, 60, 5, 30, 15, 50), rectangle(40, 60, 0, 0, 40, 1)]
    np.testing.assert_array_equal(decoded(dataset), expected)


def test_categories_are_numbered_by_their_ids_not_their_place(tmp_path):
    content = coco()
    content["categories"] = [{"id": 90, "name": "z"}, {"id": 0, "name": "zero"}, *content["categories"]]
    content["annotations"][0]["category_id"] = 0
    dataset = read_coco(write_coco(tmp_path, content))
    assert dataset.class_names == ("BG", "zero", "cat", "dog", "z")
    assert dataset.category_ids == {1: 0, 2: 3, 3: 7, 4: 90}
    assert dataset.records[0].load_instances()[0].class_id == 1


def test_every_kind_of_segmentation_is_as_pycocotools_reads_it(tmp_path):
    rng = np.random.default_rng(4)
    blob = np.asfortranarray(rng.random((40, 60)) < 0.3)
    compressed = oracle.encode(blob.astype(np.uint8, order="F"))
    # Counts by a slow walk over the columns.
    counts, current = [0], False
    for value in blob.T.ravel():
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    segmentations = [
        [[1.2, 3.4, 22.7, 5.5, 13.1, 38.9]],
        [[1, 1, 30.5, 2.5, 20, 17], [10, 5, 45, 8, 40.25, 39.5, 3, 25]],  # the union of two that overlap
        [[-3, -2, 70, 10, 55, 41]],  # cut at three sides
        {"size": [40, 60], "counts": str(compressed["counts"], "ascii")},
        {"size": [40, 60], "counts": counts},
    ]
    content = coco()
    content["annotations"] = [
        {"id": index, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 60, 40], "segmentation": value}
        for index, value in enumerate(segmentations)
    ]
    path = write_coco(tmp_path, content)
    theirs = COCO(str(path))
    for index, mask in enumerate(decoded(read_coco(path))):
        np.testing.assert_array_equal(mask, theirs.annToMask(theirs.anns[index]), err_msg=str(index))
    np.testing.assert_array_equal(decoded(read_coco(path))[4], blob)


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("train.json", "train"), ("x/labels.json", "x/images"), ("x/_annotations.coco.json", "x"),
        ("annotations/instances_val2017.json", "val2017"), ("annotations/instances_val.json", "images/val"),
        ("labels/train.json", "images/train"), ("labels/train.json", "train"), ("annotations/all.json", "images"),
        ("annotations/all.json", "."),
    ],
)  # fmt: skip
def test_pictures_are_found_where_tools_put_them(tmp_path, file, folder):
    write_picture(tmp_path / folder / "a.png", 40, 60)
    write_picture(tmp_path / folder / "b.png", 30, 50)
    dataset = read_coco(write_json(tmp_path / file, coco()))
    assert [record.image.resolve() for record in dataset.records] == [
        (tmp_path / folder / name).resolve() for name in ("a.png", "b.png")
    ]


def test_a_folder_that_is_given_is_the_only_one_looked_at(tmp_path):
    path = write_coco(tmp_path)
    write_picture(tmp_path / "other" / "a.png", 40, 60)
    with pytest.raises(DatasetFormatError, match=r"b\.png' in .*other"):
        read_coco(path, tmp_path / "other")
    with pytest.raises(DatasetNotFoundError, match="nowhere is not a folder"):
        read_coco(path, tmp_path / "nowhere")


def test_the_folder_with_the_most_pictures_is_taken(tmp_path):
    path = write_coco(tmp_path)
    write_picture(tmp_path / "data" / "a.png", 1, 1)  # first in the order, but without b.png
    assert {record.image.parent.name for record in read_coco(path).records} == {"images"}


@pytest.mark.parametrize("name", ["images\\a.png", "../images/a.png", "C:\\data\\a.png", "/far/away/a.png"])
def test_names_with_folders_of_another_computer(tmp_path, name):
    content = coco()
    content["images"][0]["file_name"] = name
    assert read_coco(write_coco(tmp_path, content)).records[0].image == (tmp_path / "images" / "a.png").resolve()


def test_ids_may_be_texts_and_the_file_may_begin_with_a_mark(tmp_path):
    content = coco()
    content["images"][0]["id"] = "first"
    for row in content["annotations"]:
        row["image_id"] = "first"
    path = write_coco(tmp_path, content)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    dataset = read_coco(path)
    assert dataset.records[0].image_id == "first"
    assert len(dataset.records[0].load_instances()) == 3


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 40 x 60 stored, 60 x 40 shown
    path = write_coco(tmp_path)
    write_picture(tmp_path / "images" / "b.png", 50, 30, exif=exif)
    dataset = read_coco(path)
    assert dataset.records[1].load_image().shape == (30, 50, 3)
    assert not [item for item in check_dataset(path) if item.level != "info" and "class" not in item.where]
    write_picture(tmp_path / "images" / "b.png", 30, 50, exif=exif)
    (finding,) = [item for item in check_dataset(path) if item.level == "error"]
    assert finding.kind == "image-size"
    assert (
        "30 x 50 pixels (width x height), its annotations say 50 x 30; do the annotations ignore its EXIF"
        in finding.message
    )


def test_no_picture_at_all(tmp_path):
    path = write_json(tmp_path / "x" / "data.json", coco())
    with pytest.raises(DatasetNotFoundError, match=r"none of its 2 images is in .* give their folder with images="):
        read_coco(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty, truncated or not JSON"),
        (b'{"images": [', "empty, truncated or not JSON"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"[" * 200_000, "not JSON in UTF-8"),
        (b"[1, 2]", "no list 'categories'"),
        (b'{"images": [], "categories": []}', "no list 'annotations'"),
        (b'{"images": 3, "categories": [], "annotations": []}', "no list 'images'"),
        (b'{"images": [], "categories": [{"id": 1, "name": "a"}], "annotations": []}', "no image to train on"),
    ],
)
def test_files_that_are_no_dataset(tmp_path, text, message):
    path = tmp_path / "data.json"
    path.write_bytes(text)
    with pytest.raises(DatasetFormatError, match=message) as caught:
        read_coco(path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        read_coco(tmp_path / "data.json")
    assert isinstance(read_coco(str(write_coco(tmp_path))).records[0].image, Path)
