"""Detections: validation, selection, masks in every form, and the formats of others."""

import json
import subprocess
import sys

import numpy as np
import pytest
from faults import file_size_limit

from runtime.detections import Detections
from runtime.errors import InputError, MissingPackageError, OutputError
from runtime.masks.paste import paste_mask
from runtime.masks.rle import decode
from runtime.output.formats import to_document

NAMES = ("BG", "person", "dog")
SIZE = (40, 50)
FIELDS = ("boxes", "scores", "class_ids", "mask_probabilities")


def fields(count=4, side=28):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 25, (count, 2))
    return {
        "boxes": np.hstack([corners, corners + rng.uniform(2, 25, (count, 2))]).astype(np.float32),
        "scores": np.linspace(0.95, 0.5, count).astype(np.float32),
        "class_ids": (np.arange(count) % 2 + 1).astype(np.int32),
        "mask_probabilities": rng.uniform(0, 1, (count, side, side)).astype(np.float32),
        "image_size": SIZE,
        "class_names": NAMES,
    }


def make(count=4, **changes):
    return Detections(**{**fields(count), **changes})


def rows_of(found):
    return found.boxes.tolist()


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (0, [0]),
        (-1, [3]),
        (-2, [2]),
        (np.int64(2), [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([2, 0, 0], [2, 0, 0]),
        ([], []),
        (np.array([], bool)[:0].astype(int), []),
        (np.array([True, False, False, True]), [0, 3]),
        ([False] * 4, []),
    ],
)
def test_indexing(index, kept):
    whole = make()
    part = whole[index]
    assert isinstance(part, Detections)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[kept])
    assert (part.image_size, part.class_names) == (SIZE, NAMES)


def test_bad_indices():
    whole = make()
    for index in (4, -5):
        with pytest.raises(IndexError):
            whole[index]
    for index in ([True, False], [0.5], [[0, 1]], ["dog"]):
        with pytest.raises(InputError):
            whole[index]


def test_iterating_gives_single_detections():
    whole = make(3)
    singles = list(whole)
    assert [len(single) for single in singles] == [1, 1, 1]
    np.testing.assert_array_equal(np.concatenate([single.masks for single in singles]), whole.masks)


def test_filter():
    whole = make()  # scores 0.95 0.8 0.65 0.5, classes person dog person dog
    assert rows_of(whole.filter(min_score=0.8)) == rows_of(whole[:2])  # float32(0.8) counts as 0.8
    assert rows_of(whole.filter(classes="dog")) == rows_of(whole[1::2])
    assert rows_of(whole.filter(classes=1)) == rows_of(whole[::2])
    assert rows_of(whole.filter(0.6, ["dog", 1])) == rows_of(whole[:3])
    assert len(whole.filter(classes=[])) == 0
    assert rows_of(whole.filter()) == rows_of(whole)
    for wrong in ("cat", 3, -1):
        with pytest.raises(InputError, match="person, dog"):
            whole.filter(classes=wrong)
    with pytest.raises(InputError, match="min_score"):
        whole.filter(min_score=float("nan"))


@pytest.mark.parametrize("paste_mode", ["matterport", "aligned"])
def test_masks_in_all_forms_agree(paste_mode):
    whole = make(paste_mode=paste_mode)
    assert whole.masks.shape == (4, *SIZE)
    assert whole.masks.dtype == np.bool_
    assert whole.masks is whole.masks  # made once
    for row in range(4):
        crop, (y, x) = paste_mask(whole.mask_probabilities[row], whole.boxes[row], SIZE, paste_mode)
        expected = np.zeros(SIZE, bool)
        expected[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        np.testing.assert_array_equal(whole.masks[row], expected)
        np.testing.assert_array_equal(decode(whole.rles[row]), expected)
        assert whole.areas[row] == expected.sum() > 0


def test_pixel_boxes_round_half_to_even_and_hold_the_masks():
    boxes = np.array([[0.5, 1.5, 20.5, 21.5], [2.4, 2.6, 9.0, 10.49]], np.float32)
    whole = make(2, boxes=boxes)
    assert whole.pixel_boxes.dtype == np.int32
    assert whole.pixel_boxes.tolist() == [[0, 2, 20, 22], [2, 3, 9, 10]]
    for (x1, y1, x2, y2), mask in zip(whole.pixel_boxes, whole.masks, strict=True):
        assert mask.sum() == mask[y1:y2, x1:x2].sum() > 0


def test_nothing_found():
    none = make(0)
    assert len(none) == 0
    assert list(none) == []
    assert none.names == ()
    assert none.masks.shape == (0, *SIZE)
    assert none.rles == []
    assert none.polygons == []
    assert none.areas.shape == (0,)
    assert none.pixel_boxes.shape == (0, 4)
    assert none.to_coco(1) == none.to_coco(1, segmentation="polygon") == []
    assert json.loads(none.to_json()) == {"image_size": [40, 50], "device": None, "detections": []}
    assert len(none.filter(0.5, "dog")) == 0
    assert len(none[:]) == len(none[np.zeros(0, bool)]) == 0
    assert none.draw(np.zeros((*SIZE, 3), np.uint8)).size == (50, 40)
    assert repr(none) == "0 detections"


def test_repr_counts_by_name_in_one_line():
    assert repr(make(3)) == "3 detections: 2 person, 1 dog (scores 0.50 to 0.95)"
    assert repr(make(1)) == "1 detection: 1 person (score 0.95)"
    assert "\n" not in repr(make(1, class_names=("BG", "two\nlines")))


def test_to_coco():
    whole = make(2, boxes=np.array([[1.234, 2, 11.5, 22.006], [0, 0, 5, 5]], np.float32))
    results = json.loads(json.dumps(whole.to_coco("a7", {1: 18, 2: 90})))
    assert [result["category_id"] for result in results] == [18, 90]
    assert results[0]["image_id"] == "a7"
    assert results[0]["bbox"] == [1.23, 2.0, 10.27, 20.01]
    assert results[0]["score"] == pytest.approx(0.95)
    assert results[0]["segmentation"] == whole.rles[0]
    assert [result["category_id"] for result in whole.to_coco(3)] == [1, 2]
    with pytest.raises(InputError, match="'dog'"):
        whole.to_coco(3, {1: 18})


@pytest.mark.parametrize("number", [np.int64(7), np.uint8(7), np.array(7), 7])
def test_ids_of_numpy_become_json(number):
    results = json.loads(json.dumps(make(1).to_coco(number, {1: np.int32(18)})))
    assert (results[0]["image_id"], results[0]["category_id"]) == (7, 18)
    assert json.dumps(make(1).to_coco(np.str_("a")))


@pytest.mark.parametrize("number", [1.5, True, None, np.array([1, 2]), b"a", np.float64(3)])
def test_ids_that_are_none(number):
    with pytest.raises(InputError, match="image_id"):
        make(1).to_coco(number)


def test_pycocotools_reads_the_results():
    coco = pytest.importorskip("pycocotools.coco").COCO()
    coco.dataset = {"images": [{"id": 5, "height": 40, "width": 50}], "annotations": []}
    coco.dataset["categories"] = [{"id": 1}, {"id": 2}]
    coco.createIndex()
    whole = make()
    loaded = coco.loadRes(whole.to_coco(5))
    for row, annotation in enumerate(loaded.loadAnns(loaded.getAnnIds())):
        np.testing.assert_array_equal(loaded.annToMask(annotation).astype(bool), whole.masks[row])


def test_to_coco_with_polygons():
    coco = pytest.importorskip("pycocotools.coco").COCO()
    coco.dataset = {"images": [{"id": 5, "height": 40, "width": 50}], "annotations": []}
    coco.dataset["categories"] = [{"id": 1}, {"id": 2}]
    coco.createIndex()
    probabilities = fields()["mask_probabilities"].copy()
    probabilities[2] = 0
    whole = make(mask_probabilities=probabilities)
    results = json.loads(json.dumps(whole.to_coco(5, segmentation="polygon")))
    assert [type(result["segmentation"]) for result in results] == [list, list, dict, list]  # the third is empty
    loaded = coco.loadRes(results)
    for row, annotation in enumerate(loaded.loadAnns(loaded.getAnnIds())):
        np.testing.assert_array_equal(loaded.annToMask(annotation).astype(bool), whole.masks[row])
    assert whole.polygons is whole.polygons  # traced once
    assert [len(rings) > 0 for rings in whole.polygons] == [True, True, False, True]
    rough = whole.to_coco(5, segmentation="polygon", tolerance=3)
    assert len(str(rough)) < len(str(results)) / 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"segmentation": "polygons"}, "'polygons'"),
        ({"segmentation": "rle", "tolerance": 1}, "tolerance"),
        ({"segmentation": "polygon", "tolerance": -1}, "tolerance"),
    ],
)
def test_bad_segmentations_are_refused(options, named):
    for count in (0, 2):
        with pytest.raises(InputError, match=named):
            make(count).to_coco(1, **options)


def test_to_json(tmp_path):
    whole = make(2, class_names=("BG", "Größe", "犬"))
    text = whole.to_json(tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text(encoding="utf-8").strip() == text
    assert json.loads(text) == to_document(whole)
    first = json.loads(text)["detections"][0]
    assert set(first) == {"class_id", "name", "score", "box", "mask"}
    assert (first["class_id"], first["name"]) == (1, "Größe")
    np.testing.assert_allclose(first["box"], whole.boxes[0], atol=0.0051)
    np.testing.assert_array_equal(decode(first["mask"]), whole.masks[0])


def test_json_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "out.json"
    broken = make(1, class_names=("BG", "half \ud800"), device="cuda:1")
    broken.to_json(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["device"], document["detections"][0]["name"]) == ("cuda:1", "half \ud800")
    before = path.read_bytes()
    with file_size_limit(100), pytest.raises(OutputError, match="cannot write"):
        make(3).to_json(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="cannot write"):
        broken.to_json(tmp_path / "out.json" / "inside.json")


def test_device_stays_with_each_detection():
    whole = make(3, device="tensorrt:0")
    assert {part.device for part in (whole[0], whole[1:], whole.filter(0.1), *whole)} == {"tensorrt:0"}


@pytest.mark.parametrize("count", [0, 3])
def test_to_supervision(count):
    pytest.importorskip("supervision")
    whole = make(count)
    converted = whole.to_supervision()
    assert len(converted) == count
    np.testing.assert_array_equal(converted.xyxy, whole.boxes)
    np.testing.assert_array_equal(converted.mask, whole.masks)
    np.testing.assert_array_equal(converted.class_id, whole.class_ids)
    np.testing.assert_array_equal(converted.confidence, whole.scores)
    assert tuple(converted.data["class_name"]) == whole.names
    converted.xyxy += 1  # its own copy


def test_supervision_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match=r"maskrcnn-export\[supervision\]"):
        make().to_supervision()


@pytest.mark.parametrize("count", [0, 3])
def test_to_pandas(count):
    pandas = pytest.importorskip("pandas")
    whole = make(count)
    table = whole.to_pandas()
    expected = {"image": "string", "class_id": "int64", "class_name": "string", "score": "float32"}
    expected |= dict.fromkeys(("x1", "y1", "x2", "y2"), "float32") | {"area": "int64"}
    assert {name: str(kind) for name, kind in table.dtypes.items()} == expected
    assert table.index.tolist() == list(range(count))
    assert table["image"].isna().all()
    assert tuple(table["class_name"]) == whole.names
    np.testing.assert_array_equal(table[["x1", "y1", "x2", "y2"]], whole.boxes)
    for name, values in {"class_id": whole.class_ids, "score": whole.scores, "area": whole.areas}.items():
        np.testing.assert_array_equal(table[name], values)
    table["score"] += 1  # its own copy
    assert len(pandas.concat([table, make(2).to_pandas()])) == count + 2


def test_pandas_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match=r"maskrcnn-export\[pandas\]"):
        make().to_pandas()


def test_importing_loads_nothing_heavy():
    code = "import sys, runtime.detections; print([m for m in sys.modules if m in sys.argv])"
    heavy = [
        "supervision",
        "PIL.ImageDraw",
        "PIL.ImageFont",
        "runtime.output.draw",
        "scipy",
        "pycocotools",
        "pandas",
        "IPython",
    ]
    output = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_arrays_are_read_only_and_the_callers_stay_writable():
    values = fields()
    whole = Detections(**values)
    for name in FIELDS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(whole, name)[:] = 0
        assert values[name].flags.writeable


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"boxes": np.zeros((4, 4))}, "boxes is float64"),
        ({"boxes": np.zeros((4, 5), np.float32)}, "boxes is float32"),
        ({"boxes": [[1, 2, 3, 4]]}, "boxes is"),
        ({"boxes": np.full((4, 4), np.nan, np.float32)}, "box 0"),
        ({"boxes": np.full((4, 4), 1e20, np.float32)}, "box 0"),
        ({"scores": np.zeros(3, np.float32)}, "scores"),
        ({"scores": np.full(4, np.inf, np.float32)}, "scores"),
        ({"class_ids": np.ones(4, np.int64)}, "class_ids is int64"),
        ({"class_ids": np.full(4, 3, np.int32)}, "class_ids"),
        ({"class_ids": np.full(4, -1, np.int32)}, "class_ids"),
        ({"mask_probabilities": np.zeros((4, 28, 27), np.float32)}, "mask_probabilities"),
        ({"mask_probabilities": np.zeros((4, 0, 0), np.float32)}, "mask_probabilities"),
        ({"mask_probabilities": np.zeros((4, 28), np.float32)}, "mask_probabilities"),
        ({"mask_probabilities": np.full((4, 28, 28), np.nan, np.float32)}, "mask_probabilities"),
        ({"mask_probabilities": np.full((4, 28, 28), 2, np.float32)}, "mask_probabilities"),
        ({"image_size": (0, 5)}, "image_size"),
        ({"image_size": (5, 5, 3)}, "image_size"),
        ({"class_names": ["BG", "person", "dog"]}, "class_names"),
        ({"paste_mode": "nearest"}, "nearest"),
    ],
)
def test_bad_fields_are_refused_by_name(change, named):
    with pytest.raises(InputError, match=named):
        make(**change)
