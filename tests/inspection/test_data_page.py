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
    assert (data["pictures"], data["pictures_in_all"], data["unreadable"]) == (4, 4, 0)
    assert data["objects"] == len(rows) == 6
    assert data["crowds"] == sum(row["iscrowd"] for row in rows) == 1
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
    for row in rows:
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
    assert data["file_boxes"] == 6
    assert data["boxes_differ"] == pytest.approx({"1": 1 / 6, "5": 1 / 6, "10": 0})


def test_the_page_says_what_the_files_say(data_folder, numbers, coco, read_page):
    """Each number on the page itself, also the setting to copy and the anchors of the configuration."""
    _, _, _, pixels = coco
    path = data_folder / "index.html"
    found, data = read_page(path).found, numbers["data"]
    for key in ("unreadable", "objects", "crowds", "empty", "pictures_without_objects", "file_boxes"):
        assert found[f"dataset.{key}", ""] == str(data[key])
    assert found["dataset.pictures", ""] == "4 of 4"
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
    assert sum(nearest.count(scale) for scale in scales) == 6


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
    assert (statistics.unreadable, statistics.numbers["objects"], statistics.mean_color) == (1, 1, None)
    assert image_blocks(statistics) == []
    assert statistics.boxes.tolist() == [[2, 2]]
    assert len(statistics.input_sides) == 0


def test_a_check_of_the_first_images_says_so(monkeypatch, tmp_path, mixed):
    monkeypatch.setattr("maskrcnn.inspection.data_statistics.MOST_PICTURES", 2)
    result = inspect("--dataset", mixed, "-o", tmp_path / "page", "--config", "shapes", "--limit", 1)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "Findings of the dataset check, of the first 2 images" in text
    assert "2 of 5" in text


def inspect(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


CASES = {
    "neither model nor dataset": ([], 2, "nothing to inspect: name a model, or a dataset"),
    "no dataset there": (["--dataset", "nowhere.json", "-o", "page"], 4, "nowhere.json"),
    "no such configuration": (
        ["--dataset", "MIXED", "--config", "nothing", "-o", "page"],
        4,
        "the configuration nothing",
    ),
    "option of a model": (["--dataset", "MIXED", "--layer", "conv1", "-o", "page"], 2, "are for a model"),
    "setting": (["--dataset", "MIXED", "--set", "model.nothing=1", "-o", "page"], 2, "nothing"),
    "no images": (["--dataset", "EMPTY", "-o", "page"], 4, "has no image"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_in_one_line(case, mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, message = CASES[case]
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    places = {"MIXED": mixed, "EMPTY": tmp_path / "empty.json"}
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
