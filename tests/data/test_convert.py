"""Datasets written in other formats, read back by this project's own readers."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotation_files import write_coco, write_json
from PIL import Image
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.data.synthetic.shapes import shapes_dataset
from maskrcnn.data.writers.convert import CLASS_ATTRIBUTE, convert_dataset
from maskrcnn.errors import DatasetError
from runtime.errors import OutputError
from runtime.masks.rle import decode, encode_crop

FORMATS = ("coco", "labelme", "via", "yolo")
SIZE = (90, 120)
NAMES = ("BG", "Zelle ß", "ash", "yes")  # not in alphabetical order; YAML would make a truth value of the last


def masks():
    """Masks of every kind that is hard to hold, by name."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    rng = np.random.default_rng(3)
    disk = np.hypot(y - 45, x - 60) < 30
    found = {
        "disk": disk,
        "pixel": (y == 7) & (x == 9),
        "corner pixel": (y == SIZE[0] - 1) & (x == SIZE[1] - 1),
        "first pixel": (y == 0) & (x == 0),
        "two pixels at a corner": ((y == 5) & (x == 5)) | ((y == 6) & (x == 6)),
        "row": y == 40,
        "column": x == SIZE[1] - 1,
        "diagonal": (y == x),
        "thin ring": np.abs(np.hypot(y - 45, x - 60) - 25) < 0.8,
        "hole": disk & ~(np.hypot(y - 45, x - 60) < 12),
        "hole of a pixel": disk & ~((y == 45) & (x == 60)),
        "holes": disk & ((y % 9 > 2) | (x % 9 > 2)),
        "island in a hole": (disk & ~(np.hypot(y - 45, x - 60) < 18)) | (np.hypot(y - 45, x - 60) < 6),
        "parts": (np.hypot(y - 20, x - 20) < 12) | (np.hypot(y - 60, x - 90) < 15) | ((y == 80) & (x == 3)),
        "frame": (y < 2) | (x < 2) | (y >= SIZE[0] - 2) | (x >= SIZE[1] - 2),
        "everything": np.ones(SIZE, np.bool_),
        "board": ((y + x) % 2 == 0) & (y < 12) & (x < 12),
        "noise": (rng.uniform(size=SIZE) < 0.2) & (y < 30) & (x < 30),
        "comb": (x % 4 < 2) & (y > 10) & (y < 70) | ((y > 5) & (y <= 10)),
    }
    for number in range(6):
        cells = rng.uniform(size=(9, 12)) < 0.25 + 0.1 * number
        found[f"blocks {number}"] = np.kron(cells, np.ones((10, 10), np.bool_))
    return {name: mask for name, mask in found.items() if mask.any()}


MASKS = masks()


@pytest.fixture
def dataset(tmp_path):
    """Two images in nested folders whose names have spaces and letters, one without objects."""
    records = []
    for number, name in enumerate(["ä ß/a 1.png", "ä ß/b/a 1.png", "empty.png"]):
        path = tmp_path / "photos ü" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (number, 0, 0)).save(path)
        instances = tuple(
            Instance(1 + row % 3, encode_crop(mask, (0, 0), SIZE))
            for row, mask in enumerate(list(MASKS.values())[: None if number == 0 else 3])
        )
        records.append(Record(name, path, () if name == "empty.png" else instances))
    return Dataset("made", NAMES, tuple(records))


def read(folder, to):
    return open_dataset(folder, class_attribute=CLASS_ATTRIBUTE if to == "via" else None)


def iou(one, other):
    one, other = decode(one), decode(other)
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_written_is_read_back(to, dataset, tmp_path):
    out = tmp_path / "else where" / "öut"
    lines = convert_dataset(dataset, out, to)
    found = read(out, to)
    assert found.class_names == (NAMES if to != "via" else ("BG", *sorted(NAMES[1:])))
    assert len(found) == 3
    by_file = {record.image.resolve(): record for record in found.records}
    for record in dataset.records:
        back = by_file[record.image.resolve()]
        names = [found.class_names[each.class_id] for each in back.load_instances()]
        assert names == [NAMES[each.class_id] for each in record.instances]
        for kind, one, other in zip(MASKS, record.instances, back.load_instances(), strict=False):
            assert iou(one.mask, other.mask) >= (1 if to == "coco" or MASKS[kind].sum() < 400 else 0.99), kind
    said = " ".join(lines)
    assert ("lines" in said) == (to in ("via", "yolo"))
    assert ("holes" in said) == (to != "coco")


@pytest.mark.parametrize("to", FORMATS)
def test_links_lead_to_the_images_also_when_all_is_moved(to, dataset, tmp_path):
    convert_dataset(dataset, tmp_path / "a" / "out", to)
    links = list((tmp_path / "a").rglob("*.png"))
    assert all(path.is_symlink() and not path.readlink().is_absolute() for path in links)
    assert {path.resolve() for path in links} == {record.image for record in dataset.records}
    for folder in ("a", "photos ü"):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / folder).rename(tmp_path / "new" / folder)
    assert len(read(tmp_path / "new" / "a" / "out", to)) == 3


def test_images_are_found_where_the_tools_look(dataset, tmp_path):
    for to in FORMATS:
        convert_dataset(dataset, tmp_path / to, to)
    for file in (tmp_path / "labelme").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content["imagePath"] == f"{file.stem}.png"  # beside it, as labelme lists images
        assert (file.parent / content["imagePath"]).is_file()
    project = json.loads((tmp_path / "via" / "via_project.json").read_text(encoding="utf-8"))
    for key, entry in project["_via_img_metadata"].items():
        path = tmp_path / "via" / project["_via_settings"]["core"]["default_filepath"] / entry["filename"]
        assert key == f"{entry['filename']}{path.stat().st_size}"
    assert {p.stem for p in (tmp_path / "yolo" / "labels").iterdir()} == {
        p.stem for p in (tmp_path / "yolo" / "images").iterdir()
    }
    content = json.loads((tmp_path / "coco" / "annotations.json").read_text(encoding="utf-8"))
    assert all((tmp_path / "coco" / "images" / image["file_name"]).is_file() for image in content["images"])
    kinds = [type(row["segmentation"]) for row in content["annotations"]]
    assert {list, dict} == set(kinds)  # polygons, and run lengths where there are holes


@pytest.mark.parametrize("to", FORMATS)
def test_crowds_and_classes_without_objects(to, tmp_path):
    source = open_dataset(write_coco(tmp_path))
    source = Dataset("d", ("BG", "cat", "dog", "eel"), source.records)
    lines = convert_dataset(source, tmp_path / "out", to)
    found = read(tmp_path / "out", to)
    crowds = sum(each.crowd for record in found.records for each in record.load_instances())
    assert crowds == (to == "coco")
    assert ("crowd regions left out" in " ".join(lines)) == (to != "coco")
    assert ("(eel): 1" in " ".join(lines)) == (to in ("labelme", "via"))
    assert found.class_names == ("BG", "cat", "dog", *(("eel",) if to in ("coco", "yolo") else ()))


@pytest.mark.parametrize("to", FORMATS)
def test_images_that_are_no_files(to, tmp_path):
    source = shapes_dataset(3, 0, size=(64, 64))
    lines = convert_dataset(source, tmp_path / "out", to)
    assert "images that were no files of their own, written as PNG: 3" in lines
    found = read(tmp_path / "out", to)
    for one, other in zip(source.records, found.records, strict=True):
        np.testing.assert_array_equal(one.load_image(), other.load_image())
        masks_ = zip(one.load_instances(), other.load_instances(), strict=True)
        assert min(iou(a.mask, b.mask) for a, b in masks_) >= 0.99


def test_chains_of_formats_lose_nothing(dataset, tmp_path):
    source = dataset
    for number, to in enumerate(("yolo", "labelme", "coco")):
        convert_dataset(source, tmp_path / str(number), to)
        source = read(tmp_path / str(number), to)
    for record in source.records:
        for kind, one, other in zip(MASKS, dataset.records[0].instances, record.load_instances(), strict=False):
            assert iou(one.mask, other.mask) >= 0.98, kind  # two formats move outlines
    assert {record.image.resolve() for record in source.records} == {record.image for record in dataset.records}


def test_images_with_one_stem(tmp_path):
    records = []
    for name in ("a.png", "a.bmp", "A.tif", "b/a.png", "b__a.png", "c.json", "labels.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path, format=None if path.suffix in Image.registered_extensions() else "PNG")
        records.append(Record(name, path, (Instance(1, encode_crop(np.ones((5, 5), np.bool_), (2, 2), (20, 20))),)))
    for to in FORMATS:
        convert_dataset(Dataset("d", ("BG", "a"), tuple(records)), tmp_path / to, to)
        found = read(tmp_path / to, to)
        assert {record.image.resolve() for record in found.records} == {record.image for record in records}
        assert all(len(record.load_instances()) == 1 for record in found.records)


def test_turned_images_keep_their_frame(tmp_path):
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    mask = encode_crop(np.ones((9, 4), np.bool_), (20, 15), (30, 20))
    for to in FORMATS:
        for instances in ((Instance(1, mask),), ()):
            place = tmp_path / f"{to}{len(instances)}"
            convert_dataset(Dataset("d", ("BG", "a"), (Record(1, tmp_path / "a.jpg", instances),)), place, to)
        assert read(tmp_path / f"{to}1", to).records[0].load_instances()[0].mask == mask


def test_outputs(dataset, tmp_path):
    convert_dataset(dataset, tmp_path / "out", "yolo")
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(OutputError, match="already exists"):
        convert_dataset(dataset, tmp_path / "out", "yolo")
    with pytest.raises(OutputError, match="never replaced"):
        convert_dataset(dataset, tmp_path / "out", "coco", overwrite=True)
    convert_dataset(read(tmp_path / "out", "yolo"), tmp_path / "out", "yolo", overwrite=True)
    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*")) == before
    assert all(path.exists() for path in (tmp_path / "out").rglob("*"))
    (tmp_path / "photos ü" / "data.yaml").touch()
    with pytest.raises(OutputError, match=r"has the image a 1\.png, which would be lost"):
        convert_dataset(dataset, tmp_path / "photos ü", "yolo", overwrite=True)
    with pytest.raises(DatasetError, match="expected one of coco, labelme, via, yolo"):
        convert_dataset(dataset, tmp_path / "no", "masks")
    (dataset.records[0].image).unlink()
    dataset.records[2].image.unlink()
    with pytest.raises(DatasetError, match=r"image empty\.png"):
        convert_dataset(dataset, tmp_path / "no", "yolo")
    assert not (tmp_path / "no").exists()


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path)
    result = CliRunner().invoke(app, ["data", "convert", "data.json", "-o", "my labels", "--to", "via"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote my labels\n"
    assert "warning: crowd regions left out" in result.stderr
    check = next(line for line in result.stderr.splitlines() if line.startswith("next: "))
    assert check == "next: maskrcnn data check 'my labels' --class-attribute class"
    result = CliRunner().invoke(app, ["data", "split", "my labels", "-o", "split", "--val", "0.5", "--json"])
    document = json.loads(result.stdout)
    assert document["images"] == {"train": 1, "val": 1}
    assert document["written"] == ["split/train.json", "split/val.json"]
    assert [Path(path).exists() for path in document["written"]] == [True, True]


def test_a_dataset_is_not_replaced_by_what_is_made_of_it(tmp_path, monkeypatch):
    """Its images are elsewhere, so they would stay."""
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path)
    assert CliRunner().invoke(app, ["data", "convert", "data.json", "-o", "made", "--to", "labelme"]).exit_code == 0
    assert CliRunner().invoke(app, ["data", "split", "made", "-o", "parts", "--val", "0.5"]).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    for command in (
        ["convert", "made", "-o", "made", "--to", "labelme"],
        ["split", "parts/train.json", "-o", "parts"],
    ):
        result = CliRunner().invoke(app, ["data", *command, "--force"])
        assert result.exit_code == 6
        assert "has the dataset itself, which would be lost: choose another folder" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_labels_give_the_order_only(tmp_path):
    points = [[1, 1], [9, 1], [9, 9]]
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    shapes = [{"label": name, "points": points} for name in ("b", "c", "a")]
    write_json(tmp_path / "a.json", {"imagePath": "a.png", "shapes": shapes})
    assert open_dataset(tmp_path).class_names == ("BG", "a", "b", "c")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nc\nunused\na\nc\n")
    assert open_dataset(tmp_path).class_names == ("BG", "c", "a", "b")
