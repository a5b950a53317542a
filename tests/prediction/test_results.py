"""The files that stand for a whole run, read back by the tools that they are made for."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from maskrcnn.data.readers.open import open_dataset
from maskrcnn.prediction.output_folder import OutputFolder
from maskrcnn.prediction.results import COLUMNS, write_failures, write_results
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Failure, Source
from runtime.detections import Detections
from runtime.output.formats import to_document

NAMES = ("BG", "cat", 'a, "b"\nc', "=1+1", "犬")
SETTINGS = RunSettings("0", NAMES, 0.5, 0.3)


def detections(boxes, class_ids, size=(20, 30)):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.array(class_ids, np.int32),
        np.ones((count, 28, 28), np.float32),
        size,
        NAMES,
        "aligned",
    )


@pytest.fixture
def written(tmp_path):
    """Two pictures, one of them without objects, and a video; what was found in each, and the totals."""
    folder = OutputFolder(tmp_path)
    found = {
        "a.png": detections([(2, 3, 9, 8), (0.5, 0, 30, 20)], [1, 2]),
        "-sub/b.jpg": detections([], [], (5, 7)),
        "c.mp4": detections([(1, 1, 4, 4), (2.25, 2, 5, 5), (3, 3, 6.125, 6)], [3, 4, 1]),
    }
    sources = [Source(tmp_path / "in" / name, name) for name in found]
    for source in sources:
        path, values = folder.document(source), to_document(found[source.name])
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [values]
        if source.is_video:
            lines = [{"video": 1}, *({"frame": n, "time": n / 10} | values for n in (0, 3)), {"frames": 5}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path, found, write_results(folder, SETTINGS, iter(sources))


def test_totals(written):
    _, _, totals = written
    assert (totals.pictures, totals.frames, totals.detections) == (2, 2, 8)


def test_coco_reads_the_file_as_data_set_and_as_results(written):
    folder, found, _ = written
    truth = COCO(folder / "results.json")
    assert [truth.imgs[n]["file_name"] for n in (1, 2, 3, 4)] == [
        "a.png", "-sub/b.jpg", "c.mp4#frame=0", "c.mp4#frame=3",
    ]  # fmt: skip
    assert (truth.imgs[4]["video"], truth.imgs[4]["frame"], truth.imgs[4]["time"]) == ("c.mp4", 3, 0.3)
    assert {key: each["name"] for key, each in truth.cats.items()} == dict(enumerate(NAMES[1:], 1))
    results = truth.loadRes(json.loads((folder / "results.json").read_text(encoding="utf-8"))["annotations"])
    for reader in (truth, results):
        for image_id, name in ((1, "a.png"), (2, "-sub/b.jpg"), (3, "c.mp4"), (4, "c.mp4")):
            rows = reader.loadAnns(reader.getAnnIds(image_id))
            assert [row["category_id"] for row in rows] == found[name].class_ids.tolist()
            if reader is truth:  # `loadRes` puts the area of the box in its place
                assert [row["area"] for row in rows] == found[name].areas.tolist()
            for row, mask, box in zip(rows, found[name].masks, found[name].boxes, strict=True):
                np.testing.assert_array_equal(reader.annToMask(row).astype(bool), mask)
                x, y, width, height = row["bbox"]
                np.testing.assert_allclose([x, y, x + width, y + height], box, atol=0.011)
            assert [row["score"] for row in rows] == found[name].scores.tolist()
    assert coco_mask.area(truth.anns[1]["segmentation"]) == 35


def test_our_own_reader_takes_it_for_a_data_set(written):
    folder, _, _ = written
    for name, size in (("a.png", (30, 20)), ("-sub/b.jpg", (7, 5))):
        from PIL import Image

        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / "in" / name)
    dataset = open_dataset(folder / "results.json", folder / "in", None, None, None, skip_bad=True)
    assert [len(record.instances) for record in dataset.records] == [1, 0]
    assert dataset.class_names == ("BG", "cat", "=1+1", "犬")  # a name with a line break is refused


def test_table(written):
    folder, found, _ = written
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [row[:2] for row in rows] == [["a.png", ""]] * 2 + [["c.mp4", "0"]] * 3 + [["c.mp4", "3"]] * 3
    assert [row[3] for row in rows] == ["cat", NAMES[2], "'=1+1", "犬", "cat", "'=1+1", "犬", "cat"]
    assert [float(value) for value in rows[3][5:9]] == [2.25, 2, 5, 5]
    assert [int(row[9]) for row in rows[:2]] == found["a.png"].areas.tolist()
    assert [int(row[2]) for row in rows[2:5]] == [3, 4, 1]
    np.testing.assert_allclose([float(row[4]) for row in rows[2:5]], found["c.mp4"].scores, atol=1e-6)


def written_cells(folder, name):
    """Return the cells of the table of one detection, read with commas, and the text of the table."""
    source = Source(folder / "x.png", name + ".png")
    row = {"class_id": 1, "name": name, "score": 0.5, "box": [-1, 0, 1, 1], "mask": {"size": [1, 1], "counts": "01"}}
    document = OutputFolder(folder).document(source)
    document.parent.mkdir(parents=True)
    document.write_text(json.dumps({"image_size": [1, 1], "detections": [row]}), encoding="utf-8")
    write_results(OutputFolder(folder), replace(SETTINGS, class_names=("BG", name)), [source])
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        text = file.read()
    _, cells = csv.reader(text.splitlines(keepends=True))
    return cells, text


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", " ="])
def test_no_cell_is_a_formula(tmp_path, sign):
    name = f"{sign}cmd|' /c calc'!A0"
    cells, _ = written_cells(tmp_path, name)
    assert cells[0] == f"'{name}.png"
    assert cells[3] == f"'{name}"
    assert cells[5] == "-1"  # a number stays one
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["categories"][0]["name"] == name


@pytest.mark.parametrize("between", ["", " ", '"', ' ""', "\t", "\r\n", "\n"])
@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d"])
@pytest.mark.parametrize("separator", [";", "|", "\t", ",", "\n", "\r"])
def test_no_part_of_a_cell_is_a_formula_at_another_separator(tmp_path, separator, sign, between):
    cells, text = written_cells(tmp_path, f"a{separator}{between}{sign}1+1")
    for part in (*re.split(rf"[{separator}\r\n]", cells[0]), *re.split(rf"[{separator}\r\n]", cells[3])):
        assert not part.strip('" \t').startswith(sign)
    if separator != ",":
        assert not [part for part in re.split(rf"[{separator}\r\n]", text) if part.strip('" \t').startswith(sign)]


@pytest.mark.parametrize("name", ["a;b", "a=b", "a-1;b+2", "x, y", "e-mail@home", "'quoted'", 'a"b'])
def test_other_cells_stay_as_they_are(tmp_path, name):
    cells, _ = written_cells(tmp_path, name)
    assert (cells[0], cells[3]) == (f"{name}.png", name)


def test_nothing_found_at_all(tmp_path):
    totals = write_results(OutputFolder(tmp_path), SETTINGS, [])
    assert (totals.pictures, totals.detections) == (0, 0)
    assert COCO(tmp_path / "results.json").getAnnIds() == []
    assert (tmp_path / "results.csv").read_text(encoding="utf-8") == ",".join(COLUMNS) + "\n"  # read as text


def test_failures(tmp_path):
    write_failures(tmp_path, [])
    assert json.loads((tmp_path / "failures.json").read_text(encoding="utf-8")) == []
    write_failures(tmp_path, [Failure("a.png", "in/a.png", "ImageError", "is 犬")])
    assert json.loads((tmp_path / "failures.json").read_text(encoding="utf-8")) == [
        {"name": "a.png", "path": "in/a.png", "error": "ImageError", "message": "is 犬"}
    ]
