"""COCO JSON with an invalid row: the check reports it, opening refuses it, and `skip_bad` leaves out only this row."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from annotation_files import coco, write_coco, write_picture
from bad_pictures import tiff_of_samples
from PIL import Image

from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.findings import has_errors, summary, table_rows
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.sample import load_sample
from maskrcnn.errors import DatasetFormatError
from runtime.pictures.pixels import PixelPolicy

read_coco = partial(open_dataset, format="coco")

FAR = 10**12


def put(section, index, **values):
    """Change a row; the value `...` removes the key."""

    def change(content):
        row = content[section][index]
        row.update(values)
        for key in [key for key, value in values.items() if value is ...]:
            del row[key]

    return change


def append(section, row):
    return lambda content: content[section].append(row)


def replace_row(section, index, row):
    return lambda content: content[section].__setitem__(index, row)


def outline(points):
    return put("annotations", 0, segmentation=[points])


def runs(**values):
    return put("annotations", 2, segmentation={"size": [40, 60], "counts": [0, 40, 2360], **values})


def spiral(count):
    """Corners that alternate between distant points: a small file with an outline of 10**8 pixels."""
    return [value for index in range(count) for value in ((0, 0), (60, 40))[index % 2]]


# Name: change, kind of the finding, part of its location and message, objects left of 3 and images left of 2.
CASES = {
    "no image_id": (put("annotations", 0, image_id=...), "missing-key", "(id 11)", "no 'image_id'", 2, 2),
    "no category_id": (put("annotations", 1, category_id=...), "missing-key", "(id 12)", "'category_id'", 2, 2),
    "no segmentation": (put("annotations", 1, segmentation=...), "no-mask", "(id 12)", "'segmentation'", 2, 2),
    "id is true": (put("annotations", 0, id=True), "wrong-type", "annotations[0]", "id is True", 2, 2),
    "id is a list": (put("annotations", 0, id=[1]), "wrong-type", "annotations[0]", "id is [1]", 2, 2),
    "row is a number": (replace_row("annotations", 0, 5), "wrong-type", "annotations[0]", "the row is 5", 2, 2),
    "row is null": (replace_row("annotations", 0, None), "wrong-type", "annotations[0]", "None", 2, 2),
    "unknown image": (put("annotations", 0, image_id=99), "unknown-image", "(id 11)", "image_id is 99", 2, 2),
    "unknown category": (put("annotations", 0, category_id=1), "unknown-category", "(id 11)", "is 1", 2, 2),
    "iscrowd is 2": (put("annotations", 0, iscrowd=2), "wrong-type", "(id 11)", "iscrowd is 2", 2, 2),
    "only a box": (put("annotations", 0, segmentation=[]), "no-mask", "(id 11)", "a box is not enough", 2, 2),
    "segmentation is a text": (put("annotations", 0, segmentation="x"), "wrong-type", "(id 11)", "'x'", 2, 2),
    "segmentation is null": (put("annotations", 0, segmentation=None), "no-mask", "(id 11)", "--boxes-as-masks", 2, 2),
    "a category called BG": (
        put("categories", 0, name="BG"), "duplicate-category", "(id 3)", "reserved for the background", 1, 2
    ),
    "file used twice": (
        append("images", {"id": 6, "file_name": "a.png", "height": 40, "width": 60}),
        "duplicate-file", "images[2] (id 6)", "also the image of id 1", 3, 2,
    ),
    "ids twice, of different objects": (
        put("annotations", 1, id=11), "duplicate-annotation", "annotations[1]", "11", 2, 2
    ),
    "polygon with null": (outline([1, 2, 3, 4, None, 6]), "polygon-type", "(id 11)", "numbers", 2, 2),
    "polygon with true": (outline([1, 2, 3, 4, True, 6]), "polygon-type", "(id 11)", "numbers", 2, 2),
    "odd count": (outline([1, 2, 30, 20, 5, 6, 7]), "polygon-odd", "(id 11)", "7 coordinates", 2, 2),
    "NaN": (outline([1, 2, 30, float("nan"), 5, 6]), "polygon-not-finite", "(id 11)", "finite", 2, 2),
    "infinite": (outline([1, 2, 30, float("inf"), 5, 6]), "polygon-not-finite", "(id 11)", "finite", 2, 2),
    "over all floats": (outline([1, 2, 30, 10**400, 5, 6]), "polygon-not-finite", "(id 11)", "finite", 2, 2),
    "huge": (outline([1, 2, 30, FAR, 5, 6]), "polygon-far", "(id 11)", "coordinate 1e+12", 2, 2),
    "huge below 0": (outline([1, 2, -1e300, 5, 5, 6]), "polygon-far", "(id 11)", "-1e+300", 2, 2),
    "endless outline": (outline(spiral(200_000)), "polygon-long", "(id 11)", "pixels long", 2, 2),
    "outside": (outline([70, 5, 80, 5, 80, 15]), "empty-mask", "(id 11)", "extends 20 pixels beyond", 2, 2),
    "no area": (outline([10, 10, 20, 10, 30, 10]), "empty-mask", "(id 11)", "no pixels", 2, 2),
    "between pixels": (outline([10.1, 10.1, 10.2, 10.1, 10.2, 10.2]), "empty-mask", "(id 11)", "no pixels", 2, 2),
    "empty runs": (runs(counts=[2400]), "empty-mask", "(id 13)", "no pixels", 2, 2),
    "runs of other size": (runs(size=[60, 40]), "rle-size", "(id 13)", "[40, 60], height and width", 2, 2),
    "size is one number": (runs(size=2400), "rle-size", "(id 13)", "has size 2400", 2, 2),
    "runs too short": (runs(counts=[0, 40]), "rle", "(id 13)", "add up to 40", 2, 2),
    "runs below 0": (runs(counts=[-40, 2440]), "rle", "(id 13)", "negative", 2, 2),
    "runs of floats": (runs(counts=[0.0, 40.0, 2360.0]), "rle", "(id 13)", "list of integers", 2, 2),
    "runs that overflow": (runs(counts=[2**63, 2**63]), "rle", "(id 13)", "integers", 2, 2),
    "no runs": (runs(counts=[]), "rle", "(id 13)", "add up to 0", 2, 2),
    "runs of wrong letters": (runs(counts="~~~"), "rle", "(id 13)", "character", 2, 2),
    "runs cut off": (runs(counts="0P"), "rle", "(id 13)", "middle of a number", 2, 2),
    "runs without counts": (
        put("annotations", 2, segmentation={"size": [40, 60]}), "missing-key", "(id 13)", "'counts'", 2, 2
    ),
    "duplicate image": (
        append("images", {"id": 5, "file_name": "a.png", "height": 40, "width": 60}),
        "duplicate-image", "images[2]", "image id 5", 3, 2,
    ),
    "no file name": (put("images", 1, file_name=...), "missing-key", "images[1] (id 5)", "'file_name'", 3, 1),
    "file name is a number": (put("images", 1, file_name=7), "wrong-type", "(id 5)", "file_name is 7", 3, 1),
    "no height": (put("images", 1, height=...), "missing-key", "(id 5)", "'height'", 3, 1),
    "width 0": (put("images", 1, width=0), "wrong-type", "(id 5)", "width is 0", 3, 1),
    "picture of gigapixels": (
        put("images", 1, width=10**6, height=10**6), "image-size", "(id 5)", "1000000 x 1000000", 3, 1
    ),
    "missing file": (put("images", 1, file_name="c.png"), "missing-file", "(id 5)", "no image 'c.png'", 3, 1),
    "name with NUL": (put("images", 1, file_name="a\0.png"), "missing-file", "(id 5)", "no image", 3, 1),
    "name is a folder": (put("images", 1, file_name=".."), "missing-file", "(id 5)", "'..'", 3, 1),
    "endless name": (put("images", 1, file_name="x" * 5000), "missing-file", "(id 5)", "xxx", 3, 1),
    "duplicate category id": (
        append("categories", {"id": 7, "name": "cow"}), "duplicate-category", "categories[2]", "id 7 is used", 3, 2
    ),
    "category without name": (append("categories", {"id": 8}), "missing-key", "(id 8)", "'name'", 3, 2),
    "category with empty name": (append("categories", {"id": 8, "name": " "}), "wrong-type", "(id 8)", "string", 3, 2),
    "picture of other size": (put("images", 1, height=31), "image-size", "image 5", "50 x 30 pixels", 3, 1),
}  # fmt: skip
# The size of an image is known after it is opened, which happens in training.
SEEN_WHEN_OPENED = {"picture of other size"}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_row(tmp_path, name):
    change, kind, where, message, objects, pictures = CASES[name]
    content = coco()
    change(content)
    path = write_coco(tmp_path, content)
    found = check_dataset(path)
    (error,) = [item for item in found if item.level == "error"]
    assert error.kind == kind
    assert where in error.where
    assert error.where.startswith("data.json ") or name in SEEN_WHEN_OPENED
    assert message in error.message
    assert "\n" not in error.message + error.where
    assert has_errors(found)
    if name not in SEEN_WHEN_OPENED:
        with pytest.raises(DatasetFormatError, match=r"has 1 row that cannot be used, first data\.json ") as caught:
            read_coco(path)
        assert message in str(caught.value)
    dataset = read_coco(path, skip_bad=True)
    assert sum(len(record.load_instances()) for record in dataset.records) == objects
    assert len(dataset) == pictures
    assert not [item for item in check_dataset(dataset) if item.level == "error"]


def test_a_sound_file_has_no_errors_and_its_counts_are_told(tmp_path):
    found = check_dataset(write_coco(tmp_path))
    assert not has_errors(found)
    name = f"{tmp_path.name}/data"
    assert table_rows(found) == [
        ("info", "no-objects", name, "1 of 2 images have no objects and only train the background: 5"),
        ("info", "crowds", name, "1 crowd region, which count neither as objects nor as background"),
        ("info", "class-count", f"{name} class 'cat'", "1 object in 1 image"),
        ("info", "class-count", f"{name} class 'dog'", "1 object in 1 image"),
    ]


def test_all_bad_rows_are_found_in_one_pass(tmp_path):
    content = coco()
    content["annotations"] += [{"id": 100 + index} for index in range(50)] + [7]
    content["images"][1]["file_name"] = "gone.png"
    put("annotations", 0, segmentation=[[1, 2, FAR, FAR, 5, 6]])(content)
    path = write_coco(tmp_path, content)
    found = check_dataset(path)
    assert [(row[0], row[1], row[2]) for row in summary(found)] == [
        ("error", "missing-file", 1), ("error", "polygon-far", 1), ("error", "missing-key", 50),
        ("error", "wrong-type", 1), ("warning", "class-count", 1), ("info", "crowds", 1), ("info", "class-count", 1),
    ]  # fmt: skip
    with pytest.raises(DatasetFormatError) as caught:
        read_coco(path)
    assert str(caught.value) == (
        f"{path} has 53 rows that cannot be used, first data.json images[1] (id 5): there is no image 'gone.png' in "
        f"{path.resolve().parent / 'images'}; run `maskrcnn data check {path}` to see all, or skip them with "
        f"skip_bad=True (--skip-bad)"
    )


def test_doubts_do_not_stop_training(tmp_path):
    content = coco()
    put("annotations", 0, bbox=[10, 10, 10, 15.5])(content)
    put("annotations", 1, segmentation=[[30, 5, 66.5, 5, 66.5, 15, 30, 15]], bbox=[30, 5, 31, 10])(content)
    content["categories"].append({"id": 9, "name": "cow"})
    path = write_coco(tmp_path, content)
    warnings = [item for item in check_dataset(path) if item.level == "warning"]
    assert [item.kind for item in warnings] == ["box-differs", "outside", "class-count"]
    assert "10, 10, 20, 25.5 and 10, 10, 20, 20 (x1, y1, x2, y2)" in warnings[0].message
    assert "extends 6 pixels beyond" in warnings[1].message
    assert len(read_coco(path)) == 2


def test_a_box_up_to_five_pixels_off_is_no_doubt(tmp_path):
    content = coco()
    put("annotations", 0, bbox=[5, 15, 20, 10])(content)
    assert not [item for item in check_dataset(write_coco(tmp_path, content)) if item.level == "warning"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_broken_picture(tmp_path, damage):
    path = write_coco(tmp_path)
    picture = tmp_path / "images" / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)).save(picture)
    content = picture.read_bytes()
    picture.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    (error,) = [item for item in check_dataset(path) if item.level == "error"]
    assert error.kind == "broken-image"
    assert "b.png" in error.message
    assert len(read_coco(path)) == 2  # opened in training only
    assert len(read_coco(path, skip_bad=True)) == 1


SAMPLES = np.arange(40 * 60 * 5, dtype=np.uint16).reshape(40, 60, 5)


@pytest.mark.parametrize(
    ("samples", "policy", "channels", "option"),
    [
        (SAMPLES, PixelPolicy((0, 12_000), (5, 1, 2)), 3, "--bands 3,2,1"),
        (SAMPLES[:, :, :4].astype(np.uint8), PixelPolicy(bands=(4, 3, 2, 1)), 4, "--bands 3,2,1"),
        (SAMPLES[:, :, :2].astype(np.float32), PixelPolicy((0, 12_000), (2,)), 1, "--bands"),
        (SAMPLES[:, :, :1].astype(np.float32), PixelPolicy((0, 12_000)), 3, "--value-range"),
        (SAMPLES[:, :, :1].astype(np.int16), PixelPolicy((0, 12_000)), 3, "--value-range"),
    ],
)
def test_bands_and_ranges_belong_to_the_model_and_are_no_errors(tmp_path, samples, policy, channels, option):
    """A dataset cannot say them: its check decodes all bands, and says which option training needs."""
    path = write_coco(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(tiff_of_samples(samples, packed="tiff_lzw"))
    (tmp_path / "images" / "b.png").write_bytes(tiff_of_samples(samples[:30, :50]))
    found = [item for item in check_dataset(path) if item.level != "info"]
    assert [(item.kind, item.level, item.count) for item in found] == [("pixels", "warning", 2)]
    assert option in found[0].message
    records = open_dataset(path, skip_bad=True).records
    assert len(records) == 2
    model = ModelConfig(class_names=("BG", "cat", "dog"), image_channels=channels, mean_pixel=(9.0,) * channels)
    sample = load_sample(records[0], Config(model=model, pixels=policy), np.random.default_rng(0))
    assert sample.image.shape[2] == channels
    assert sample.image.any()


def test_damaged_bands_are_errors(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(tiff_of_samples(SAMPLES.astype(np.float64)))
    (tmp_path / "images" / "b.png").write_bytes(tiff_of_samples(SAMPLES[:30, :50])[:-9000])
    assert [item.kind for item in check_dataset(path) if item.level == "error"] == ["broken-image"] * 2
    (tmp_path / "images" / "a.png").write_bytes(tiff_of_samples(np.full((40, 60, 1), np.nan, np.float32)))
    assert "not finite" in next(item.message for item in check_dataset(path) if item.level == "error")
    (tmp_path / "images" / "a.png").write_bytes(tiff_of_samples(SAMPLES[:39]))
    assert "image-size" in {item.kind for item in check_dataset(path) if item.level == "error"}


def test_nothing_is_left(tmp_path):
    content = coco()
    content["images"][1]["height"] = None
    content["images"][0]["height"] = None
    with pytest.raises(DatasetFormatError, match="has 2 rows that cannot be used"):
        read_coco(write_coco(tmp_path, content), skip_bad=True)
    content = coco()
    content["categories"] = []
    path = write_coco(tmp_path, content)
    assert "no-categories" in {item.kind for item in check_dataset(path)}
    with pytest.raises(DatasetFormatError, match="no categories"):
        read_coco(path)


def test_objects_of_a_bad_picture_are_not_told_again(tmp_path):
    content = coco()
    content["images"][0]["width"] = "sixty"
    path = write_coco(tmp_path, content)
    assert [item.where for item in check_dataset(path) if item.level == "error"] == ["data.json images[0] (id 1)"]


PROGRAM = """
import json, sys
from maskrcnn.data.readers.check import check_dataset
print(json.dumps([item.kind for item in check_dataset(sys.argv[1]) if item.level == "error"]))
"""


def test_huge_polygons_do_not_kill_the_process(tmp_path):
    # In a separate process, because a crash in C would end all tests.
    huge = [
        [0, 0, value, 0, value, value] for value in (1e5, 1e9, 2.0**31, -(2.0**31), 2.0**63, 1e18, 1e300, -1e308)
    ] + [[1, 1, 10**30, 5, 7, 7], spiral(200_000), [float("nan")] * 6, [float("-inf")] * 8]
    content = coco()
    content["annotations"] = [
        {"id": index, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 30, 2, 20, 20], points]}
        for index, points in enumerate(huge)
    ]
    path = write_coco(tmp_path, content)
    write_picture(tmp_path / "images" / "a.png", 40, 60)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        *["polygon-far"] * 9, "polygon-long", *["polygon-not-finite"] * 2,
    ]  # fmt: skip
