"""The synthetic dataset in memory and as COCO files."""

import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.synthetic.shapes import CLASS_NAMES, draw_shapes, shapes_dataset, write_shapes
from maskrcnn.errors import DatasetError
from runtime.errors import OutputError
from runtime.masks.rle import decode
from runtime.pictures.read import read_image


@pytest.fixture(scope="module")
def pictures():
    return [draw_shapes(7, index) for index in range(30)]


def test_the_set_in_memory_gives_the_pictures(pictures):
    dataset = shapes_dataset(4, 7)
    assert (dataset.name, dataset.class_names, len(dataset)) == ("shapes", CLASS_NAMES, 4)
    assert dataset.category_ids == {1: 1, 2: 2, 3: 3}
    for record, (image, masks, class_ids) in zip(dataset.records, pictures, strict=False):
        assert np.array_equal(record.load_image(), image)
        instances = record.load_instances()
        assert [instance.class_id for instance in instances] == class_ids
        assert all(np.array_equal(decode(i.mask), mask) for i, mask in zip(instances, masks, strict=True))
    assert [record.image_id for record in dataset.records] == [0, 1, 2, 3]
    assert shapes_dataset(1, 0, size=(40, 50)).records[0].load_image().shape == (40, 50, 3)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (3, -1)])
def test_senseless_sets_are_refused(count, seed, tmp_path):
    with pytest.raises(DatasetError, match=f"count is {count} and seed {seed}"):
        shapes_dataset(count, seed)
    with pytest.raises(DatasetError, match=f"count is {count} and seed {seed}"):
        write_shapes(tmp_path / "a", count, seed)
    assert list(tmp_path.iterdir()) == []


def test_shares_make_a_class_rare_and_do_not_change_the_set_without_them(tmp_path):
    dataset = shapes_dataset(40, 7, size=(48, 48), shares=(50, 50, 0))
    found = {instance.class_id for record in dataset.records for instance in record.load_instances()}
    assert found == {1, 2}
    drawn = [class_id for index in range(100) for class_id in draw_shapes(7, index, (64, 64), (1, 1, 8))[2]]
    assert drawn.count(3) / len(drawn) == pytest.approx(0.8, abs=0.07)
    path = write_shapes(tmp_path / "a", 3, 7, size=(48, 48), shares=(0, 1, 0))
    assert {i.class_id for record in open_dataset(path).records for i in record.load_instances()} == {2}


@pytest.mark.parametrize("shares", [(0, 0, 0), (1, -1, 1), (1, 1), (1, 1, math.nan), (1, 1, math.inf)])
def test_senseless_shares_are_refused(shares):
    with pytest.raises(DatasetError, match=r"shares are .*: expected those of square, circle, triangle, 0 or more"):
        shapes_dataset(1, 0, shares=shares)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes") / "train", 30, 7)


def test_pycocotools_reads_the_files(written, pictures):
    coco = COCO(written)
    assert [(category["id"], category["name"]) for category in coco.loadCats([1, 2, 3])] == [
        (1, "square"),
        (2, "circle"),
        (3, "triangle"),
    ]
    assert len(coco.getImgIds()) == 30
    assert min(coco.getAnnIds()) == 1
    for index, row in coco.imgs.items():
        image, masks, class_ids = pictures[index]
        assert np.array_equal(read_image(written.parent / "images" / row["file_name"]), image)
        assert (row["height"], row["width"]) == image.shape[:2]
        objects = coco.loadAnns(coco.getAnnIds(imgIds=[index]))
        assert [entry["category_id"] for entry in objects] == class_ids
        for entry, mask in zip(objects, masks, strict=True):
            assert np.array_equal(coco.annToMask(entry), mask)
            y, x = np.nonzero(mask)
            assert entry["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert entry["area"] == mask.sum()
            assert entry["iscrowd"] == 0


def test_the_coco_reader_gives_the_set_in_memory(written):
    read, drawn = open_dataset(written), shapes_dataset(30, 7)
    assert (read.class_names, read.category_ids) == (drawn.class_names, drawn.category_ids)
    for ours, theirs in zip(read.records, drawn.records, strict=True):
        assert ours.image_id == theirs.image_id
        assert np.array_equal(ours.load_image(), theirs.load_image())
        pairs = zip(ours.load_instances(), theirs.load_instances(), strict=True)
        assert all((a.class_id, a.mask, a.crowd) == (b.class_id, b.mask, b.crowd) for a, b in pairs)


def test_only_older_shapes_are_replaced(tmp_path):
    folder = tmp_path / "shapes"
    path = write_shapes(folder, 2, 0, size=(64, 64))
    assert path == folder / "annotations.json"
    with pytest.raises(OutputError, match="already exists"):
        write_shapes(folder, 1, 0)
    assert len(json.loads(path.read_text())["images"]) == 2
    write_shapes(folder, 1, 0, overwrite=True, size=(64, 64))
    assert len(list((folder / "images").iterdir())) == len(json.loads(path.read_text())["images"]) == 1
    (folder / "shapes.txt").unlink()
    with pytest.raises(OutputError, match="never replaced"):
        write_shapes(folder, 1, 0, overwrite=True)


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("maskrcnn.data.synthetic.shapes.json.dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "shapes", 2, 0, size=(64, 64))
    assert list(tmp_path.iterdir()) == []
