"""`predict --labelme`: polygons to correct, which come back as the masks that were predicted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.writers.convert import convert_dataset
from maskrcnn.errors import ArgumentError
from maskrcnn.prediction.output_folder import OutputFolder
from maskrcnn.prediction.predict import PredictOptions, predict_paths
from maskrcnn.prediction.sources import Source
from maskrcnn.prediction.views import write_labelme
from runtime.masks.rle import decode, encode_crop

ROOT = Path(__file__).parents[2]


def iou(one, other):
    one, other = decode(one), decode(other)
    return (one & other).sum() / (one | other).sum()


def predict(*arguments):
    result = CliRunner().invoke(app, ["predict", "demo", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Predictions of the demo model for two images with objects and one without, in folders with spaces and letters."""
    folder = tmp_path_factory.mktemp("labelme")
    (folder / "new photos ü" / "b").mkdir(parents=True)
    with Image.open(ROOT / "maskrcnn" / "demo.jpg") as image:
        image.save(folder / "new photos ü" / "a 1.png")
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "new photos ü" / "b" / "a 1.png")
        Image.new("RGB", image.size).save(folder / "new photos ü" / "empty.png")
    result = predict(folder / "new photos ü", "-o", folder / "found", "--labelme", "--json")
    assert str(folder / "found" / "labelme") in json.loads(result.stdout)["written"]
    return folder


def documents(folder):
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "found" / "detections").rglob("*.json")]
    return {Path(row["source"]["path"]).resolve(): row for row in rows}


def test_files_that_labelme_opens(found):
    files = sorted((found / "found" / "labelme").glob("*.json"))
    assert [file.name for file in files] == ["a 1.json", "b__a 1.json", "empty.json"]
    corners = []
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        image = file.parent / content["imagePath"]
        assert content["imagePath"] == f"{file.stem}.png"  # labelme looks for the file of an image beside it
        document = documents(found)[image.resolve()]
        assert [content["imageHeight"], content["imageWidth"]] == document["image_size"]
        assert bool(content["shapes"]) == (file.stem != "empty")
        assert {shape["label"] for shape in content["shapes"]} == {row["name"] for row in document["detections"]}
        scores = {f"score {row['score']:.2f}" for row in document["detections"]}
        assert {shape["description"] for shape in content["shapes"]} == scores
        corners += [len(shape["points"]) for shape in content["shapes"]]
    assert 3 <= np.median(corners) <= 60  # few enough to move by hand


@pytest.mark.parametrize("way", ["labelme", "results.json", "labelme coco", "results.json yolo", "results.json via"])
def test_predicted_masks_come_back(way, found, tmp_path):
    name, *formats = way.split()
    images = found / "new photos ü" if name == "results.json" else None
    dataset = open_dataset(found / "found" / name, images)
    for to in formats:
        convert_dataset(dataset, tmp_path / to, to)
        dataset = open_dataset(tmp_path / to, class_attribute="class" if to == "via" else None)
    expected = documents(found)
    assert len(dataset) == 3
    for record in dataset.records:
        rows = expected.pop(record.image.resolve())["detections"]
        objects = record.load_instances()
        assert [dataset.class_names[each.class_id] for each in objects] == [row["name"] for row in rows]
        for row, each in zip(rows, objects, strict=True):
            assert iou(row["mask"], each.mask) >= (1 if way == "results.json" else 0.99)
    assert not expected


def test_the_folder_can_be_checked_and_split(found, tmp_path):
    folder = found / "found" / "labelme"
    result = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["data", "split", str(folder), "-o", str(tmp_path / "parts"), "--val", "0.3"])
    assert result.exit_code == 0, result.output
    assert len(open_dataset(tmp_path / "parts" / "train.json")) == 2


@pytest.mark.parametrize("seed", range(4))
def test_masks_of_all_kinds_come_back(seed, tmp_path):
    rng = np.random.default_rng(seed)
    size = (60, 80)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = [np.kron(rng.uniform(size=(12, 16)) < share, np.ones((5, 5), np.bool_)) for share in rng.uniform(size=12)]
    for _ in range(6):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        masks += [(y == top) & (x == left), (y == top), (x == left), np.abs(np.hypot(y - top, x - left) - 20) < 1]
        masks += [(np.hypot(y - top, x - left) < 30) & (np.hypot(y - top, x - left) > 9)]
    masks = [mask for mask in masks if mask.any()]
    rows = [{"name": "ab"[i % 2], "score": 0.5, "mask": encode_crop(m, (0, 0), size)} for i, m in enumerate(masks)]
    Image.new("RGB", size[::-1]).save(tmp_path / "a.png")
    source = Source(tmp_path / "a.png", "a.png")
    write_labelme(OutputFolder(tmp_path / "out", {"a.png": "a.png"}), source, size, rows)
    (record,) = open_dataset(tmp_path / "out" / "labelme").records
    for mask, row, each in zip(masks, rows, record.load_instances(), strict=True):
        assert iou(row["mask"], each.mask) >= (1 if mask.sum() < 400 else 0.99)


@pytest.fixture
def run(fake, save, tmp_path, monkeypatch):
    """A run of the stand-in for a network over `photos`."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "photos" / "a.png")
    save(tmp_path / "photos" / "b.png", (0, 0, 0))

    def call(*paths, model="m", **options):
        values = PredictOptions(("labelme",), **options)
        return predict_paths(paths or ("photos",), Path("out"), lambda: (fake, model), values, lambda *_: None)

    return call


def test_corrected_files_are_kept_when_a_run_is_repeated(run, fake):
    assert run().made == 2
    file = Path("out/labelme/a.json")
    assert len(json.loads(file.read_text())["shapes"]) == 1
    assert json.loads(Path("out/labelme/b.json").read_text())["shapes"] == []
    file.write_text("corrected")
    assert run().made == 0
    assert file.read_text() == "corrected"
    Path("out/labelme/b.json").unlink()
    assert run().made == 0  # written again, without the network
    assert len(fake.batches) == 2
    assert Path("out/labelme/b.json").exists()
    run(model="other", force=True)
    assert file.read_text() != "corrected"


def test_a_file_is_removed_with_the_document(run, save):
    run()
    save(Path("photos/a.png"), (0, 0, 255))  # which the network refuses
    assert [failure.name for failure in run().failures] == ["a.png"]
    assert sorted(path.name for path in Path("out/labelme").iterdir()) == ["b.json", "b.png", "labels.txt"]


def test_images_of_one_stem_have_files_of_their_own(run, save):
    for name in ("b/a.png", "a.bmp", "b__a.png"):
        save(Path("photos") / name)
    run()
    links = [path for path in Path("out/labelme").iterdir() if path.is_symlink()]
    assert {path.resolve() for path in links} == {path.resolve() for path in Path("photos").rglob("*.*")}
    assert all(path.with_suffix(".json").is_file() for path in links)
    assert len({path.stem for path in links}) == len(links) == 5


def test_links_lead_to_the_images_after_a_move(run, tmp_path):
    run()
    (tmp_path / "moved").mkdir()
    for name in ("out", "photos"):
        shutil.move(name, tmp_path / "moved" / name)
    assert [record.image.exists() for record in open_dataset(tmp_path / "moved" / "out" / "labelme").records] == [
        True
    ] * 2


def test_a_video_has_no_labelme_file(run):
    Path("photos/clip.mp4").touch()
    with pytest.raises(ArgumentError, match=r"'clip\.mp4' is a video, and labelme files are for images"):
        run()
    assert not Path("out").exists()
