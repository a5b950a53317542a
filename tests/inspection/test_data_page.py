"""The page of a dataset without a model: its numbers against the files, NumPy and pycocotools."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.configuration.samples import sample_config
from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.inspection.data_pictures import mini_mask
from maskrcnn.inspection.data_report import image_blocks, inspect_dataset, object_blocks
from maskrcnn.inspection.data_statistics import dataset_statistics
from maskrcnn.inspection.scene import NEGATIVE, TRUTH
from maskrcnn.intermediates.color_map import color_map
from runtime.masks.rle import encode_crop


@pytest.fixture(scope="module")
def numbers(data_folder):
    return json.loads((data_folder / "figures.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def coco(mixed):
    """The images and annotations that can be used, as pycocotools reads them."""
    found = COCO(str(mixed))
    images = [row for row in found.dataset["images"] if row["id"] < 8]
    rows = [row for row in found.dataset["annotations"] if row["category_id"] < 81]
    pixels = [np.asarray(Image.open(mixed.parent / row["file_name"]).convert("RGB"), float) for row in images]
    return found, images, rows, pixels


def spread(values):
    return {"min": min(values), "median": pytest.approx(float(np.median(values))), "max": max(values)}


def shown_spread(values):
    return " / ".join(f"{value:.4g}" for value in (min(values), float(np.median(values)), max(values)))


def test_counts_are_those_of_the_file(numbers, coco):
    found, images, rows, _ = coco
    data, names = numbers["data"], {row["id"]: row["name"] for row in found.dataset["categories"]}
    assert (data["pictures"], data["pictures_in_all"], data["left_out"]) == (4, 6, 2)
    assert data["crowds"] == sum(row["iscrowd"] for row in rows) == 1
    rows = [row for row in rows if not row["iscrowd"]]
    assert data["objects"] == len(rows) == 5
    assert len(data["per_class"]) == 80
    for category, name in names.items():
        here = [row["image_id"] for row in rows if row["category_id"] == category]
        assert data["per_class"][name] == len(here)
        assert data["pictures_per_class"][name] == len(set(here))
    per_image = [sum(row["image_id"] == image["id"] for row in rows) for image in images]
    assert data["objects_per_picture"] == spread(per_image)
    assert data["pictures_without_objects"] == per_image.count(0) == 1


def test_sizes_and_colors_are_those_of_the_files(numbers, coco):
    _, images, _, pixels = coco
    data = numbers["data"]
    sizes = [f"{each.shape[1]} x {each.shape[0]}" for each in pixels]
    assert sizes == [f"{row['width']} x {row['height']}" for row in images]
    assert data["sizes"] == {size: sizes.count(size) for size in sizes}
    ratios = [each.shape[1] / each.shape[0] for each in pixels]
    assert data["aspect_ratios"] == spread(ratios)
    means = np.mean([each.mean(axis=(0, 1)) for each in pixels], axis=0)
    squares = np.mean([(each**2).mean(axis=(0, 1)) for each in pixels], axis=0)
    np.testing.assert_allclose(data["mean_color"], means, rtol=1e-9)
    np.testing.assert_allclose(data["std_color"], np.sqrt(squares - means**2), rtol=1e-9)


def test_boxes_are_those_of_pycocotools(numbers, coco):
    found, images, rows, _ = coco
    data, resize = numbers["data"], sample_config("shapes").resize
    shapes = {row["id"]: (row["height"], row["width"]) for row in images}
    boxes, areas, sides = [], [], []
    for row in (row for row in rows if not row["iscrowd"]):
        mask = found.annToMask(row)
        height, width = (np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (1, 0))
        boxes.append((int(height), int(width)))
        areas.append(int(mask.sum()))
        # Matterport's scale: as large as the longer side allows, as the shorter side must be.
        short, long = sorted(shapes[row["image_id"]])
        scale = max(1, resize.min_dim / short)
        scale = resize.max_dim / long if round(long * scale) > resize.max_dim else scale
        sides.append(math.sqrt(height * width) * scale)
    assert data["box_heights"] == spread([height for height, _ in boxes])
    assert data["box_widths"] == spread([width for _, width in boxes])
    assert data["box_aspect_ratios"] == spread([width / height for height, width in boxes])
    assert data["median_side"] == pytest.approx(np.median(np.sqrt(areas)))
    np.testing.assert_allclose(list(data["input_sides"].values()), [min(sides), np.median(sides), max(sides)])
    assert data["file_boxes"] == 5
    assert data["boxes_differ"] == pytest.approx({"1": 1 / 5, "5": 1 / 5, "10": 0})


def test_the_page_says_what_the_files_say(data_folder, numbers, coco, read_page):
    """Each number on the page itself, also the setting to copy and the anchors of the configuration."""
    _, _, _, pixels = coco
    path = data_folder / "index.html"
    found, data = read_page(path).found, numbers["data"]
    for key in ("left_out", "objects", "crowds", "empty", "pictures_without_objects", "file_boxes"):
        assert found[f"dataset.{key}", ""] == str(data[key])
    assert found["dataset.pictures", ""] == "4 of 6"
    assert found["dataset.sizes", ""] == "4"
    assert found["dataset.aspect_ratios", ""] == shown_spread([each.shape[1] / each.shape[0] for each in pixels])
    means = np.mean([each.mean(axis=(0, 1)) for each in pixels], axis=0)
    for channel, mean in enumerate(means):
        assert found[f"dataset.mean_color.{channel}", ""] == f"{mean:.2f}"
    text = path.read_text(encoding="utf-8")
    setting = "[" + ", ".join(f"{mean:.1f}" for mean in means) + "]"
    assert f"model.mean_pixel={setting}" in text
    assert f"&#34;mean_pixel&#34;: {setting}" in text
    assert [key for key in ("data", "images", "objects", "samples") if f'<section id="{key}">' in text] == [
        "data",
        "images",
        "objects",
        "samples",
    ]
    assert "<script>alert" not in text
    assert read_page(path).scripts == 1
    assert not (data_folder / "tensorboard").exists()


def test_findings_are_those_of_the_check(numbers, mixed):
    expected = [[each.level, each.kind, each.where, each.message, each.count] for each in check_dataset(mixed)]
    ours = [list(each.values()) for each in numbers["findings"]]

    def plain(rows):
        return [re.sub(r"/\S*/(?=\w+\.png|mixed)|/\S*?mixed\d*", "", " ".join(map(str, row))) for row in rows]

    assert plain(ours) == plain(expected)
    assert [each[1] for each in ours if each[0] == "error"] == ["missing-file", "unknown-category", "broken-image"]


def test_samples_and_anchors(numbers):
    """Anchors per level counted by hand; the largest mini masks lose nothing of a rectangle."""
    config = sample_config("shapes")
    side = config.resize.max_dim
    cells = {f"P{level}": 3 * math.ceil(side / 2**level) ** 2 for level in range(2, 7)}
    names = [each["name"] for each in numbers["pictures"]]
    assert names == ["image 1.png", "image 2.png", "image 3.png", "image 4.png"]
    for each in numbers["pictures"]:
        assert each["data.anchors"] == cells
    assert [len(each.get("data.mini_mask_ious", [])) for each in numbers["pictures"]] == [2, 3, 1, 0]
    assert numbers["pictures"][0]["data.mini_mask_ious"] == [1, 1]


def test_objects_by_the_nearest_anchor(mixed):
    config = sample_config("shapes")
    statistics = dataset_statistics(open_dataset(mixed, skip_bad=True), config)
    table = object_blocks(statistics, config)[-1]
    scales = config.model.anchor_scales
    nearest = [min(scales, key=lambda scale: abs(math.log(side / scale))) for side in statistics.input_sides]
    assert [row[1] for row in table.rows] == [f"{scale:g}" for scale in scales]
    assert [int(row[3]) for row in table.rows] == [nearest.count(scale) for scale in scales]
    assert sum(nearest.count(scale) for scale in scales) == 5


def test_a_mini_mask_shows_what_its_overlap_says(sample, demo):
    """Pixels of the third cell: kept, lost and added ones, counted where each pixel of the mask is a block."""
    from dataclasses import replace

    drawn = np.random.default_rng(1).random((6, 7)) < 0.6
    drawn[[0, -1]] = drawn[:, [0, -1]] = True
    crop = np.kron(drawn, np.ones((4, 4), np.bool_))[:, :24]  # 24 x 24: cells of 7 pixels
    strip, iou = mini_mask(replace(sample, crops=[(crop, (3, 5))]), 0, (5, 5), demo.config.detection.mask_paste)
    cell = np.asarray(strip)[3::7, 2 * 172 + 3 :: 7]
    assert cell.shape == (24, 24, 3)
    full = color_map(np.array([1.0]))[0]
    kept, lost, added = (int((cell == color).all(axis=2).sum()) for color in (full, NEGATIVE, TRUTH))
    assert kept + lost == crop.sum()
    assert lost > 0
    assert added > 0
    assert iou == pytest.approx(kept / (kept + lost + added))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_image_of_any_number_of_channels(channels):
    pixels = np.random.default_rng(channels).integers(0, 256, (5, 9, channels)).astype(np.uint8)
    config = Config(model=ModelConfig(image_channels=channels, mean_pixel=(1.0,) * channels))
    statistics = dataset_statistics(Dataset("x", ("BG", "a"), (Record(0, lambda: pixels, ()),)), config)
    np.testing.assert_allclose(statistics.mean_color, pixels.reshape(-1, channels).mean(axis=0))
    np.testing.assert_allclose(statistics.numbers["std_color"], pixels.reshape(-1, channels).std(axis=0))
    assert statistics.sizes.tolist() == [[5, 9]]
    shares = [[np.mean(pixels[..., c] == value) for value in range(256)] for c in range(channels)]
    np.testing.assert_allclose(statistics.values, shares)
    assert len(image_blocks(statistics)[1].charts) == 3


def test_a_dataset_without_annotations():
    dataset = Dataset("x", ("BG",), (Record(0, lambda: np.full((4, 6, 3), 7, np.uint8), ()),))
    found = inspect_dataset(dataset, sample_config("shapes"))
    data = found.figures["data"]
    assert (data["objects"], data["per_class"], data["box_heights"], data["input_sides"]) == (0, {}, None, None)
    assert data["mean_color"] == [7, 7, 7]
    assert data["std_color"] == [0, 0, 0]
    assert "data.mini_mask_ious" not in found.figures["pictures"][0]
    assert "Anchors, and objects" in found.to_html()


def test_a_dataset_whose_images_are_all_unreadable(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    mask = encode_crop(np.ones((2, 2), np.bool_), (0, 0), (4, 4))
    dataset = Dataset("x", ("BG", "a"), (Record(0, tmp_path / "a.jpg", (Instance(1, mask),)),))
    statistics = dataset_statistics(dataset)
    assert (statistics.pictures, statistics.left_out, statistics.numbers["objects"]) == (0, 1, 0)
    assert statistics.mean_color is None
    assert image_blocks(statistics) == []
    assert statistics.boxes.tolist() == []


def coco_folder(folder, names, objects=(), broken=(), missing=()):
    """Write a COCO dataset of small images; `objects` are image, class and whether it is a crowd, all of one square."""
    square = [[1, 1, 7, 1, 7, 7, 1, 7]]
    outlines = (square, {"size": [9, 9], "counts": [10, 7, 64]})
    for number, name in enumerate(names):
        if number in broken:
            (folder / name).write_bytes(b"not an image")
        elif number not in missing:
            Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(folder / name)
    images = [{"id": i, "file_name": name, "height": 9, "width": 9} for i, name in enumerate(names)]
    rows = [
        {"id": i, "image_id": image, "category_id": kind, "iscrowd": crowd, "segmentation": outlines[crowd]}
        | {"bbox": [1, 1, 6, 6], "area": 36}
        for i, (image, kind, crowd) in enumerate(objects)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog\u202egod"}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


def page_of(path, folder, *options):
    result = inspect("--dataset", path, "-o", folder / "page", "--config", "shapes", *options)
    assert result.exit_code == 0, result.output
    text = (folder / "page" / "index.html").read_text(encoding="utf-8")
    return json.loads((folder / "page" / "figures.json").read_text(encoding="utf-8")), text, result


def test_crowds_are_no_objects_anywhere(tmp_path):
    """The findings say the same as the statistics, and an image of a crowd alone is one without objects."""
    path = coco_folder(tmp_path, ["a.png", "b.png"], [(0, 1, 0), (0, 1, 1), (1, 1, 1)])
    found, text, _ = page_of(path, tmp_path)
    data = found["data"]
    assert (data["objects"], data["crowds"], data["pictures_without_objects"]) == (1, 2, 1)
    assert (data["per_class"]["cat"], data["pictures_per_class"]["cat"], data["file_boxes"]) == (1, 1, 1)
    assert data["objects_per_picture"] == {"min": 0, "median": 0.5, "max": 1}
    assert data["input_sides"]["min"] == data["input_sides"]["max"]
    messages = [each["message"] for each in found["findings"]]
    assert "1 object in 1 image" in messages
    assert "2 crowd regions, which count neither as objects nor as background" in messages
    assert any(message.startswith("1 of 2 images have no objects") for message in messages)
    assert "crowds, which are no objects" in text
    assert "cat (crowd): " in text  # its mini mask


def test_without_crowds_there_is_no_number_of_them(tmp_path):
    text = page_of(coco_folder(tmp_path, ["a.png"], [(0, 1, 0)]), tmp_path)[1]
    assert "<li>1 image</li>" in text
    assert "1 annotated object;" in text
    assert 'data-figure="dataset.objects"' in text
    assert 'data-figure="dataset.crowds"' not in text


def via_file(folder, names):
    square = {"name": "polygon", "all_points_x": [1, 7, 7, 1], "all_points_y": [1, 1, 7, 7]}
    entry = {"regions": [{"shape_attributes": square, "region_attributes": {}}]}
    path = folder / "via.json"
    path.write_text(json.dumps({name: entry | {"filename": name, "size": 1} for name in names}))
    return path


def labelme_files(folder, names):
    (folder / "package.json").write_text("{}")  # of something else
    for name in names:
        shapes = [{"label": "cat", "points": [[1, 1], [7, 1], [7, 7]], "shape_type": "polygon"}]
        content = {"imagePath": name, "shapes": shapes, "imageWidth": 9, "imageHeight": 9, "imageData": None}
        (folder / name).with_suffix(".json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("write", [coco_folder, via_file, labelme_files])
def test_images_that_are_left_out_are_counted(write, tmp_path, read_page):
    """One of three images is missing and one is broken."""
    names = ["a.png", "b.png", "c.png"]
    path = coco_folder(tmp_path, names, broken=[1], missing=[2])
    if write is not coco_folder:
        path.unlink()
        path = write(tmp_path, names)
    data = page_of(path, tmp_path)[0]["data"]
    assert (data["pictures"], data["pictures_in_all"], data["left_out"]) == (1, 3, 2)
    found = read_page(tmp_path / "page" / "index.html").found
    assert found["dataset.pictures", ""] == "1 of 3"
    assert found["dataset.left_out", ""] == "2"


def test_rows_of_one_file_are_one_image(tmp_path):
    path = coco_folder(tmp_path, ["a.png", "a.png"], [(0, 1, 0), (1, 1, 0)])
    data = page_of(path, tmp_path, "--by-name")[0]["data"]
    assert (data["pictures"], data["pictures_in_all"], data["left_out"], data["objects"]) == (1, 1, 0, 2)


@pytest.mark.parametrize(("broken", "missing"), [((0, 1), ()), ((), (0, 1)), ((0,), (1,))])
def test_a_dataset_without_a_usable_image_is_refused(broken, missing, tmp_path):
    path = coco_folder(tmp_path, ["a.png", "b.png"], [(0, 1, 0)], broken, missing)
    result = inspect("--dataset", path, "-o", tmp_path / "page")
    assert result.exit_code == 4, result.output
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("..."))
    assert ("none of its 2 images is in" if len(missing) == 2 else "has no image that can be used, first") in line
    assert "--skip-bad" not in line  # which would change nothing
    assert not (tmp_path / "page").exists()


def test_of_a_large_dataset_only_checked_images_count(monkeypatch, tmp_path):
    """A bad image among the others ends nothing, and what is lost in them is not counted with what is found before."""
    monkeypatch.setattr("maskrcnn.inspection.data_statistics.MOST_PICTURES", 3)
    rows = [(0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0)]
    path = coco_folder(tmp_path, [f"{number}.png" for number in range(6)], rows, broken=[1, 3])
    content = json.loads(path.read_text())
    for image, bad in ((0, 1), (4, 5)):  # objects without an outline
        content["annotations"] += [
            {"id": 10 * bad + i, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1]]}
            | {"bbox": [1, 1, 6, 6], "area": 36}
            for i in range(bad)
        ]
    path.write_text(json.dumps(content))
    found, text, result = page_of(path, tmp_path)
    assert [each["name"] for each in found["pictures"]] == ["0.png", "2.png"]
    data = found["data"]
    assert (data["pictures"], data["pictures_in_all"], data["left_out"], data["objects"]) == (2, 6, 1, 2)
    (cats,) = (each["message"] for each in found["findings"] if "'cat'" in each["where"])
    assert cats == "2 objects in 2 images; 2 are left out"
    assert "Findings of the dataset check (3 of 6 images)" in text
    assert len(re.findall("dataset check: 3 of 3", result.stderr)) == 1


def test_names_that_turn_text_around_are_escaped(tmp_path):
    text = page_of(coco_folder(tmp_path, ["a\u202egnp.png", "b.png"], [(0, 2, 0)]), tmp_path)[1]
    assert not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    assert "dog\\u202egod" in text
    assert "a\\u202egnp.png" in text


def test_the_speed_of_the_check_is_that_of_all_its_images(monkeypatch, tmp_path):
    """It counts from the start of the first image, not from its end."""
    counted = []
    monkeypatch.setattr("maskrcnn.commands.progress_bar._Lines.__call__", lambda _, *state: counted.append(state))
    page_of(coco_folder(tmp_path, ["a.png", "b.png"], [(0, 1, 0)]), tmp_path)
    assert counted == [("dataset check", done, 2) for done in (0, 1, 2)]


def inspect(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


CASES = {
    "neither model nor dataset": ([], 2, "nothing to inspect: name a model, or a dataset"),
    "no dataset there": (["--dataset", "nowhere.json", "-o", "page"], 4, "nowhere.json"),
    "no such configuration": (
        ["--dataset", "MIXED", "--config", "nothing", "-o", "page"],
        4,
        "there is no configuration nothing",
    ),
    "option of a model": (["--dataset", "MIXED", "--layer", "conv1", "-o", "page"], 2, "--layer: for a model"),
    "options of a model": (
        ["--dataset", "MIXED", "--nms-threshold", "0.5", "--family", "torchvision", "-o", "page"],
        2,
        "--family, --nms-threshold: for a model",
    ),
    "device": (["--dataset", "MIXED", "--device", "cuda", "-o", "page"], 2, "--device: for a model"),
    "device that does not exist": (["--dataset", "MIXED", "--device", "nonsense", "-o", "page"], 2, "--device: for"),
    "skipping": (["--dataset", "MIXED", "--skip-bad", "-o", "page"], 2, "leaves out what cannot be used"),
    "classes": (
        ["--dataset", "MIXED", "--set", 'model.class_names=["BG", "x"]', "-o", "page"],
        2,
        "the classes are those of the dataset",
    ),
    "image in place of the model": (["--dataset", "MIXED", "x.png", "-o", "page"], 2, "name a model before the images"),
    "image without anything": (["photo.JPG", "-o", "page"], 2, "name a model before the images"),
    "image of another name": (["--dataset", "MIXED", "photo", "-o", "page"], 4, "there is no artifact at photo"),
    "setting": (["--dataset", "MIXED", "--set", "model.nothing=1", "-o", "page"], 2, "nothing"),
    "no such augmentation": (["--dataset", "MIXED", "--augment-with", "a.py:b", "-o", "page"], 2, "no file a.py"),
    "augmentation that fails": (
        ["--dataset", "MIXED", "--augment-with", "json:dumps", "--limit", "1", "-o", "page"],
        2,
        "it takes (image, boxes, masks)",
    ),
    "no images": (["--dataset", "EMPTY", "-o", "page"], 4, "has no image"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_in_one_line(case, mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, message = CASES[case]
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    places = {"MIXED": mixed, "EMPTY": tmp_path / "empty.json"}
    monkeypatch.setattr("maskrcnn.commands.inspect.import_tensorflow", lambda: pytest.fail("it takes seconds"))
    result = inspect(*(places.get(each, each) for each in arguments))
    assert result.exit_code == code, result.output
    assert message in re.sub(r"\s+", " ", result.stderr)
    assert len([line for line in result.stderr.splitlines() if not line.startswith("...")]) == 1
    assert not (tmp_path / "page").exists()
    assert not (tmp_path / "runs").exists()


def test_only_a_report_is_replaced(mixed, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "thesis.txt").write_text("years of work")
    assert inspect("--dataset", mixed, "-o", tmp_path / "page", "--force").exit_code == 6
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["thesis.txt"]
