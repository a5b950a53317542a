"""Real photos with polygons, if they are available: the same masks as pycocotools."""

import os
from pathlib import Path

import numpy as np
import pytest
from golden import REPOSITORY, VARIABLE
from pycocotools.coco import COCO

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from runtime.masks.rle import decode

FOLDER = Path(os.environ.get(VARIABLE, REPOSITORY.parent / "shared")) / "data" / "droplets"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no photographs: {FOLDER} does not exist; set {VARIABLE} to the folder with data/"
)


@pytest.mark.parametrize(("split", "pictures", "objects"), [("train", 56, 834), ("val", 8, 238)])
def test_the_check_finds_nothing_wrong(split, pictures, objects):
    found = check_dataset(FOLDER / f"{split}.json")
    assert [(item.level, item.kind) for item in found] == [("info", "class-count")]
    assert found[0].message == f"{objects} objects in {pictures} images"


def test_masks_are_those_of_pycocotools():
    dataset, theirs = open_dataset(FOLDER / "val.json"), COCO(str(FOLDER / "val.json"))
    assert dataset.class_names == ("BG", "droplet")
    assert len(dataset) == 8
    compared = 0
    for record in dataset.records:
        assert record.load_image().shape == (512, 640, 3)
        for item in record.load_instances():
            annotation = theirs.anns[item.annotation_id]
            assert annotation["image_id"] == record.image_id
            np.testing.assert_array_equal(decode(item.mask), theirs.annToMask(annotation))
            compared += 1
    assert compared == 238
