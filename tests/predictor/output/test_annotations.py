"""Detections as labelme files and YOLO labels, read back by this project's own readers."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from faults import file_size_limit
from PIL import Image

from maskrcnn.data.readers.labelme import scan_labelme
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.readers.options import ReadOptions
from runtime.detections import Detections
from runtime.errors import InputError, OutputError
from runtime.masks.polygons import _filled, coco_polygons, join_polygons, short_polygons
from runtime.masks.rle import decode
from runtime.output.show import save
from runtime.pictures.letterbox import ResizePolicy
from runtime.steps import letterbox_picture

NAMES = ("BG", "cell", "Größe")


def blobs(count, size, largest, smooth=2, seed=0):
    """Masks of random shapes, most with several parts and holes."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    low = rng.uniform(0, np.array(size[::-1]) - 3, (count, 2))
    high = np.minimum(low + rng.uniform(2, largest, (count, 2)), size[::-1])
    fields = np.stack([gaussian_filter(rng.uniform(size=(28, 28)), smooth) for _ in range(count)])
    fields -= fields.min((1, 2), keepdims=True)
    return make(np.hstack([low, high]), fields / fields.max((1, 2), keepdims=True), size)


def make(boxes, probabilities, size=(40, 50), **changes):
    count = len(boxes)
    return Detections(
        boxes=np.float32(boxes).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, count).astype(np.float32),
        class_ids=(np.arange(count) % 2 + 1).astype(np.int32),
        mask_probabilities=np.float32(probabilities),
        image_size=size,
        class_names=NAMES,
        **changes,
    )


def ring(parts=1):
    """One mask with a hole in each of its parts, side by side."""
    mask = np.zeros((28, 28))
    for part in range(parts):
        left = part * 28 // parts
        mask[2:26, left + 1 : left + 28 // parts - 1] = 1
        mask[8:20, left + 3 : left + 28 // parts - 3] = 0
    return make([[4, 4, 32, 32]], mask[None])


def read(path, format_, found):
    """Read a file back; compare classes, and return the IoU of each object."""
    dataset = open_dataset(path, format=format_)
    (record,) = dataset.records
    objects = record.load_instances()
    expected = [(name, mask) for name, mask in zip(found.names, found.masks, strict=True) if mask.any()]
    assert [dataset.class_names[each.class_id] for each in objects] == [name for name, _ in expected]
    pairs = zip((decode(each.mask) for each in objects), (mask for _, mask in expected), strict=True)
    return [(one & other).sum() / (one | other).sum() for one, other in pairs]


@pytest.fixture
def write(tmp_path):
    """Write detections in both formats beside an image; return what the readers open, by format."""

    def files(found):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        image = tmp_path / "images" / "a.png"
        Image.new("RGB", found.image_size[::-1]).save(image)
        (tmp_path / "classes.txt").write_text("\n".join(NAMES[1:]), encoding="utf-8")
        found.to_labelme(tmp_path / "images" / "a.json", image)
        found.to_yolo(tmp_path / "labels" / "a.txt")
        return {"labelme": tmp_path / "images" / "a.json", "yolo": tmp_path}

    return files


@pytest.mark.parametrize(
    ("size", "largest", "smooth"),
    [((60, 80), 10, 1), ((60, 80), 50, 1), ((300, 400), 200, 2), ((900, 700), 600, 3), ((1500, 2000), 1200, 4)],
)
def test_masks_come_back(size, largest, smooth, write):
    found = blobs(12, size, largest, smooth)
    assert max(map(len, found.polygons)) > 1  # parts or holes
    for format_, path in write(found).items():
        assert min(read(path, format_, found)) >= 0.99, format_
    if largest >= 600:  # corners to move by hand, instead of one for each step between pixels
        shapes = json.loads((write(found)["labelme"]).read_text())["shapes"]
        corners = sum(len(shape["points"]) for shape in shapes)
        assert corners < 0.8 * sum(len(each) for rings in found.polygons for each in rings)


@pytest.mark.parametrize("seed", range(6))
def test_small_masks_come_back(seed, write):
    found = blobs(80, (90, 110), 25, smooth=(0.5, 1, 2)[seed % 3], seed=seed)
    assert min(area for area in found.areas if area) < 10
    for format_, path in write(found).items():
        ious = read(path, format_, found)
        assert min(ious) >= 0.99, format_
        small = [area < 400 for area in found.areas if area]
        assert np.array(ious)[small].min() == 1, format_


def test_a_whole_image_takes_little_memory():
    y, x = np.mgrid[:28, :28]
    found = make([[0, 0, 3000, 2000]], (np.hypot(y - 14, x - 14) < 13)[None], size=(2000, 3000))
    (rings,) = found.polygons
    tracemalloc.start()
    try:
        short_polygons(rings)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2000 * 3000
    finally:
        tracemalloc.stop()


def test_the_background_has_no_number_in_yolo(tmp_path):
    found = replace(make([[5, 5, 20, 20]] * 2, np.ones((2, 28, 28))), class_ids=np.int32([1, 0]))
    with pytest.raises(InputError, match="detection 1 has class id 0, the background"):
        found.to_yolo(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
    found.filter(classes=1).to_yolo(tmp_path / "a.txt")


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_holes_and_parts_come_back(parts, write):
    found = ring(parts)
    assert len(found.polygons[0]) == 2 * parts
    for format_, path in write(found).items():
        assert min(read(path, format_, found)) >= 0.99, format_
    shapes = json.loads(write(found)["labelme"].read_text())["shapes"]
    assert [shape["group_id"] for shape in shapes] == ([None] if parts == 1 else [0] * parts)
    assert len(write(found)["yolo"].joinpath("labels/a.txt").read_text().splitlines()) == 1


def test_the_content_of_a_labelme_file(write):
    found = blobs(3, (60, 80), 40)
    content = json.loads(write(found)["labelme"].read_text(encoding="utf-8"))
    assert set(content) == {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert (content["imagePath"], content["imageData"]) == ("a.png", None)
    assert (content["imageHeight"], content["imageWidth"]) == (60, 80)
    for shape in content["shapes"]:
        assert shape["label"] in found.names
        assert shape["shape_type"] == "polygon"
        assert len(shape["points"]) >= 3
        assert {type(value) for point in shape["points"] for value in point} == {float}
        assert {"flags", "group_id", "description", "mask"} < set(shape)
    assert {shape["score"] for shape in content["shapes"]} == {0.9, 0.7, 0.5}


def test_the_image_is_named_as_seen_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (50, 40)).save("photos/a.png")
    letterbox, _ = letterbox_picture("photos/a.png", 3, ResizePolicy("square", 32, 64), remember=True)
    found = make([[5, 5, 20, 20]], np.ones((1, 28, 28)), remembered=letterbox.remembered)
    found.to_labelme("labels/a.json")
    content = json.loads((tmp_path / "labels" / "a.json").read_text())
    assert content["imagePath"] == "../photos/a.png"
    found.to_labelme("photos/a.json", "photos/b.png")
    assert json.loads((tmp_path / "photos" / "a.json").read_text())["imagePath"] == "b.png"
    assert read(tmp_path / "labels" / "a.json", "labelme", found) == [1]
    unknown = make([[5, 5, 20, 20]], np.ones((1, 28, 28)))
    with pytest.raises(InputError, match=r"image_path='street\.jpg'"):
        unknown.to_labelme("labels/b.json")


@pytest.mark.parametrize("path", ["", ".", "photos", "photos/", "a\0.png", 5, b"a.png", ["a.png"]])
def test_what_is_no_image_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"image_path is .*: expected (a path|the path of an image file)"):
        make([[5, 5, 20, 20]], np.ones((1, 28, 28))).to_labelme("a.json", path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("path", [5, None, b"a.txt", ["a.txt"]])
def test_what_is_no_target_is_refused(path):
    found = make([[5, 5, 20, 20]], np.ones((1, 28, 28)))
    for write in (found.to_yolo, lambda path: found.to_labelme(path, "a.png"), found.to_json):
        if (write, path) != (found.to_json, None):
            with pytest.raises(InputError, match=r"path is .*: expected a path, as str or pathlib\.Path"):
                write(path)


def test_the_image_is_found_through_linked_folders(tmp_path):
    found = make([[5, 5, 20, 20]], np.ones((1, 28, 28)))
    for folder in ("deep/er/labels", "photos", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "deep" / "er" / "labels", target_is_directory=True)
    (tmp_path / "same").symlink_to(tmp_path / "photos", target_is_directory=True)
    Image.new("RGB", (50, 40)).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "photos" / "b.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    for json_file, image in (
        ("linked/a.json", "photos/b.png"),
        ("same/a.json", "elsewhere/a.png"),
        ("photos/b.json", "same/b.png"),
        ("new/folder/a.json", "same/b.png"),
    ):
        found.to_labelme(tmp_path / json_file, tmp_path / image)
        named = json.loads((tmp_path / json_file).read_text())["imagePath"]
        assert (tmp_path / json_file).parent.joinpath(named).samefile(tmp_path / image)
    assert json.loads((tmp_path / "photos" / "b.json").read_text())["imagePath"] == "b.png"


def test_the_content_of_a_yolo_label(write):
    found = make([[5, 10, 25, 30], [0, 0, 50, 40]], np.ones((2, 28, 28)))
    lines = write(found)["yolo"].joinpath("labels/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]  # without the background
    shares = np.array([line.split()[1:] for line in lines], float).reshape(2, 4, 2)
    np.testing.assert_allclose(shares.min(1), [[0.1, 0.25], [0, 0]])
    np.testing.assert_allclose(shares.max(1), [[0.5, 0.75], [1, 1]])


def test_nothing_to_write(write):
    nothing = make(np.zeros((0, 4)), np.zeros((0, 28, 28)))
    paths = write(nothing)
    assert json.loads(paths["labelme"].read_text())["shapes"] == []
    assert (paths["yolo"] / "labels" / "a.txt").read_bytes() == b""
    assert read(paths["yolo"], "yolo", nothing) == []
    (record,) = scan_labelme(paths["labelme"], None, "empty", ReadOptions()).dataset.records
    assert record.load_instances() == ()
    empty = make([[5, 10, 25, 30], [0, 0, 50, 40]], np.stack([np.zeros((28, 28)), np.ones((28, 28))]))
    for format_, path in write(empty).items():
        assert read(path, format_, empty) == [1], format_


def test_files_are_whole_or_not_there(tmp_path):
    found = blobs(8, (60, 80), 50)
    methods = {"a.json": lambda path: found.to_labelme(path, "a.png"), "a.txt": found.to_yolo}
    methods["a.png"] = lambda path: save(Image.fromarray(np.zeros((99, 99, 3), np.uint8) + np.uint8(7)), path)
    for name, write in methods.items():
        path = tmp_path / name
        path.write_text("before")
        with file_size_limit(100), pytest.raises(OutputError, match="cannot write"):
            write(path)
        assert path.read_text() == "before"
        for wrong in (tmp_path / "a", tmp_path / "a.jpg.gz"):
            with pytest.raises(OutputError, match=r"has the suffix '(\.gz)?': "):
                {"a.png": found.save}.get(name, write)(wrong)
    assert {path.name for path in tmp_path.iterdir()} == set(methods)


def test_filling_takes_the_centers_of_pixels():
    for found in (blobs(12, (60, 80), 40, seed=1), ring(), ring(2)):
        for rings, (crop, _) in zip(found.polygons, found.mask_crops, strict=True):
            if rings:
                corners = np.concatenate(rings)
                low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
                rows, columns = np.nonzero(crop)
                expected = crop[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                np.testing.assert_array_equal(_filled(coco_polygons(rings), low, high), expected)
                strip = _filled(coco_polygons(rings), (low[0], low[1] + 1), (high[0], high[1] - 1))
                np.testing.assert_array_equal(strip, expected[1:-1])
    triangle = _filled([[0, 0, 8, 4, 0, 8]], (0, 0), (8, 8))
    assert triangle.sum(axis=1).tolist() == [1, 3, 5, 7, 7, 5, 3, 1]


def test_joined_parts_enclose_what_they_did():
    found = ring(3)
    polygons = short_polygons(found.polygons[0])
    joined = join_polygons(polygons)
    low, high = (0, 0), (50, 40)
    np.testing.assert_array_equal(_filled([joined], low, high), _filled(polygons, low, high))
    assert join_polygons(polygons[:1]) == polygons[0]
