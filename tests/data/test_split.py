"""Splits: the same everywhere, groups never torn, and parts with the classes of the whole."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotation_files import write_coco, write_json, write_picture
from hypothesis import given, settings, strategies as st
from PIL import Image

from maskrcnn.data.readers.open import open_dataset, open_each
from maskrcnn.data.readers.parts import dataset_parts
from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.data.split import MOST_APART, SplitOptions, split_datasets
from maskrcnn.data.writers.coco import write_coco as write_parts
from maskrcnn.errors import DatasetError
from runtime.errors import OutputError
from runtime.masks.rle import encode_crop

MASK = encode_crop(np.ones((2, 2), np.bool_), (0, 0), (8, 8))


def picture(path, number):
    """Write an image of its own bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), number % 256, np.uint8) + np.uint8(number // 256)).save(path)
    return path


def labelme(folder, names, first=0):
    """A folder of labelme files with one square each, of two classes in turn, and images named like this."""
    for number, name in enumerate(names, first):
        path = picture(folder / name, number)
        points = [[1, 1], [5, 1], [5, 5], [1, 5]]
        shapes = [{"label": "ab"[number % 3 == 0], "points": points, "shape_type": "polygon"}]
        write_json(path.with_suffix(".json"), {"imagePath": path.name, "imageData": None, "shapes": shapes})
    return folder


def made(images, class_names):
    """A dataset in memory: images are given as the class ids of their objects."""
    records = tuple(
        Record(f"{number:04d}", lambda: None, tuple(Instance(i, MASK) for i in ids))
        for number, ids in enumerate(images)
    )
    return Dataset("made", ("BG", *class_names), records)


def names_of(split, part):
    return sorted(str(record.image_id) for data in split.parts[part] for record in data.records)


def shares(datasets):
    """Return the share of each class in the objects of datasets."""
    counts = Counter(i.class_id for data in datasets for r in data.records for i in r.load_instances() if not i.crowd)
    total = sum(counts.values())
    return {class_id: count / total for class_id, count in counts.items()}


PINNED = ["c12", "c14", "c16"]  # of SHA-256 digests and whole numbers: on every machine


def test_the_split_is_this_one(tmp_path):
    folder = labelme(tmp_path / "a b", [f"c{number:02d}.png" for number in range(20)])
    assert names_of(split_datasets([open_dataset(folder)], SplitOptions(0.2)), "val") == PINNED


@pytest.mark.parametrize("place", ["other/place", "Größe x"])
def test_neither_the_order_nor_the_place_of_files_matters(place, tmp_path):
    folder = labelme(tmp_path / place, [f"c{number:02d}.png" for number in range(20)])
    dataset = open_dataset(folder)
    for seed in range(5):
        records = list(dataset.records)
        random.Random(seed).shuffle(records)
        found = split_datasets([replace(dataset, records=tuple(records))], SplitOptions(0.2))
        assert names_of(found, "val") == PINNED
        assert found.parts["train"][0].records == tuple(r for r in records if r.image_id not in PINNED)


def test_random_hashes_of_python_do_not_matter(tmp_path):
    labelme(tmp_path / "x", [f"c{number:02d}.png" for number in range(20)])
    code = (
        "from maskrcnn.data.readers.open import open_dataset; from maskrcnn.data.split import *\n"
        "found = split_datasets([open_dataset('x')], SplitOptions(0.2))\n"
        "print(*sorted(r.image_id for r in found.parts['val'][0].records))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert done.stdout.decode().split() == PINNED


def test_another_seed_gives_another_split():
    dataset = made([[1]] * 40, ["a"])
    found = {tuple(names_of(split_datasets([dataset], SplitOptions(0.25, seed=seed)), "val")) for seed in range(20)}
    assert len(found) == 20
    assert {len(names) for names in found} == {10}


IMAGES = st.lists(st.lists(st.integers(1, 4), max_size=5), min_size=4, max_size=40)


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([0.0, 0.1]), st.integers(0, 9))
def test_parts_are_disjoint_and_whole(images, val, test, seed):
    dataset = made(images, "abcd")
    found = split_datasets([dataset], SplitOptions(val, test, seed))
    parts = [names_of(found, part) for part in found.parts]
    assert sorted(name for names in parts for name in names) == [record.image_id for record in dataset.records]
    assert all(parts), "a part without images"
    text = " ".join(found.warnings)
    whole = shares([dataset])
    for part, data in found.parts.items():
        own = shares(data)
        apart = max((abs(own.get(each, 0) - share) for each, share in whole.items()), default=0)
        assert apart <= MOST_APART or f"{part}: class" in text
        for class_id in whole:
            assert class_id in own or f"{part} has no object of" in text


@pytest.mark.parametrize("group", ["folder", "video"])
@pytest.mark.parametrize("seed", range(10))
def test_groups_are_never_torn(group, seed):
    rng = random.Random(seed)
    names = {
        "folder": [f"{folder}/{n}.png" for folder in "abcdefghi" for n in range(rng.randint(1, 9))],
        "video": [f"x/{v}_frame_{n:04d}.png" for v in "abcdefghi" for n in range(rng.randint(1, 9))],
    }[group]
    records = tuple(
        Record(name, lambda: None, tuple(Instance(rng.randint(1, 2), MASK) for _ in range(3))) for name in names
    )
    found = split_datasets([Dataset("d", ("BG", "a", "b"), records)], SplitOptions(0.3, 0.1, seed, group))
    where = {}
    for part in found.parts:
        for name in names_of(found, part):
            key = name.split("/")[0] if group == "folder" else name.split("_")[0]
            assert where.setdefault(key, part) == part
    assert set(where.values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("clip_0001.png", "clip_0999.png"),
        ("clip-frame12.jpg", "clip-frame7.jpg"),
        ("clip.mp4#frame=12", "clip.mp4#frame=3"),
        ("0001.png", "0002.png"),
        ("clip_0012_jpg.rf.0a1b2c.jpg", "clip_0013_jpg.rf.ffee01.jpg"),
        ("a/clip_1.png", "a/clip_2.png"),
    ],
)
def test_frames_of_a_video(one, other):
    records = tuple(Record(name, lambda: None, (Instance(1, MASK),)) for name in (one, other, "else.png", "more.png"))
    for seed in range(8):
        found = split_datasets([Dataset("d", ("BG", "a"), records)], SplitOptions(0.3, 0, seed, "video"))
        assert sum({one, other} <= set(names_of(found, part)) for part in found.parts) == 1


def test_classes_keep_their_shares_where_a_random_split_loses_them():
    rng = random.Random(0)
    for case in range(25):
        classes = rng.randint(2, 8)
        weights = [rng.random() ** 2 + 0.05 for _ in range(classes)]
        images = [rng.choices(range(1, classes + 1), weights, k=rng.randint(1, 6)) for _ in range(rng.randint(40, 90))]
        dataset = made(images, "abcdefgh"[:classes])
        found = split_datasets([dataset], SplitOptions(0.2, 0.1, case))
        whole = shares([dataset])
        for part in found.parts.values():
            assert max(abs(shares(part).get(each, 0) - share) for each, share in whole.items()) <= MOST_APART
        assert [len(part[0]) / len(dataset) for part in found.parts.values()] == pytest.approx(
            [0.7, 0.2, 0.1], abs=0.03
        )
        assert not [line for line in found.warnings if "points apart" in line]


def test_what_cannot_be_reached_is_said():
    found = split_datasets([made([[1]] * 30 + [[2] * 40], "ab")], SplitOptions(0.2))
    text = "\n".join(found.warnings)
    assert "more than 5 points apart: of 31 images, one ('0030') has 40 of its 40 objects" in text
    assert "val has no object of 'b' (1 image), of which there are too few to divide" in text


def test_a_group_less_than_parts():
    with pytest.raises(
        DatasetError, match=r"made has 1 image, which cannot be split into train, val: give it more images"
    ):
        split_datasets([made([[1]], "a")], SplitOptions(0.2))
    with pytest.raises(DatasetError, match=r"has 1 folder, .*or leave out --group"):
        split_datasets([made([[1]] * 9, "a")], SplitOptions(0.2, group="folder"))


@pytest.mark.parametrize(("val", "test"), [(0, 0), (1, 0), (0.5, 0.5), (-0.1, 0), (0.2, -0.1), (float("nan"), 0)])
def test_shares_out_of_range(val, test):
    with pytest.raises(DatasetError, match="expected a share such as"):
        SplitOptions(val, test)


def test_copies_stay_together(tmp_path):
    folder = labelme(tmp_path, [f"c{number:02d}.png" for number in range(12)])
    shutil.copy(folder / "c03.png", folder / "c07.png")
    shutil.copy(folder / "c03.png", folder / "c11.png")
    for seed in range(12):
        found = split_datasets([open_dataset(folder)], SplitOptions(0.25, seed=seed))
        assert sum(len({"c03", "c07", "c11"} & set(names_of(found, part))) in (1, 2) for part in found.parts) == 0
        assert found.notes[-1].startswith("2 images with the bytes of another one")


def test_a_class_of_crowds_only_and_images_without_objects():
    records = [Record(n, lambda: None, (Instance(1 + n % 2, MASK, crowd=n % 2 == 1),)) for n in range(10)]
    records += [Record(n, lambda: None, ()) for n in range(10, 20)]
    found = split_datasets([Dataset("d", ("BG", "a", "b"), tuple(records))], SplitOptions(0.2))
    assert [len(part[0]) for part in found.parts.values()] == [16, 4]
    assert not found.warnings


def test_several_datasets_are_split_as_one(tmp_path):
    for first, name in enumerate(("one", "two")):
        labelme(tmp_path / name, [f"{name}{number}.png" for number in range(10)], 10 * first)
    found = split_datasets(open_each([tmp_path / "one", tmp_path / "two"]), SplitOptions(0.2))
    assert [data.name for data in found.parts["val"]] == ["one", "two"]
    assert 3 <= sum(map(len, found.parts["val"])) <= 5


@pytest.fixture
def parts(tmp_path):
    """A dataset and its parts, written."""
    folder = labelme(tmp_path / "photos ä", [f"c {number:02d}.png" for number in range(10)])
    found = split_datasets([open_dataset(folder)], SplitOptions(0.2, 0.1))
    out = tmp_path / "else where" / "split"
    write_parts({name: data for name, (data,) in found.parts.items()}, out, overwrite=False)
    return out, found, folder


def test_written_parts_refer_to_the_images(parts):
    out, found, folder = parts
    assert set(dataset_parts(out)) == {"train", "val", "test"}
    for name, path in dataset_parts(out).items():
        (given_,) = found.parts[name]
        read = open_dataset(path)
        assert read.class_names == given_.class_names
        assert len(read) == len(given_)
        for one, other in zip(read.records, given_.records, strict=True):
            assert one.image.samefile(other.image)
            assert [(i.class_id, i.mask) for i in one.instances] == [(i.class_id, i.mask) for i in other.instances]
    assert all(link.is_symlink() for link in (out / "images").iterdir())
    assert len(list(folder.glob("*.png"))) == 10


def test_ids_and_crowds_of_coco_stay(tmp_path):
    path = write_coco(tmp_path)
    source = open_dataset(path)
    write_parts({"train": source}, tmp_path / "out", overwrite=False)
    read = open_dataset(tmp_path / "out" / "train.json")
    assert read.category_ids == source.category_ids
    assert [record.image_id for record in read.records] == [1, 5]
    assert [replace(i, file_box=None) for r in read.records for i in r.instances] == [
        replace(i, file_box=None) for r in source.records for i in r.instances
    ]


def test_an_existing_output_and_one_with_the_images(parts):
    out, found, folder = parts
    written = {name: data for name, (data,) in found.parts.items()}
    with pytest.raises(OutputError, match="already exists"):
        write_parts(written, out, overwrite=False)
    before = (out / "train.json").read_bytes()
    write_parts(written, out, overwrite=True)
    assert (out / "train.json").read_bytes() == before
    # Read from the output itself, the links still lead to the originals.
    again = {name: open_dataset(path) for name, path in dataset_parts(out).items()}
    write_parts(again, out, overwrite=True)
    assert all(link.samefile(folder / link.name) for link in (out / "images").iterdir())
    (folder / "train.json").write_text("{}")
    with pytest.raises(OutputError, match="has the image"):
        write_parts(written, folder, overwrite=True)
    with pytest.raises(OutputError, match="is never replaced"):
        write_parts(written, folder.parent, overwrite=True)


def test_parts_of_a_dataset(tmp_path):
    coco = json.loads(write_coco(tmp_path / "c").read_text())
    for name in ("train", "val"):
        write_json(tmp_path / "files" / f"{name}.json", coco)
        write_json(tmp_path / "below" / "annotations" / f"{name}.json", coco)
        write_json(tmp_path / "others" / f"{name}.json", coco)
        write_json(tmp_path / "folders" / {"val": "valid"}.get(name, name) / "_annotations.coco.json", coco)
        write_picture(tmp_path / "yolo" / "images" / name / "a.png", 8, 8)
        (tmp_path / "yolo" / "labels" / name).mkdir(parents=True)
    write_json(tmp_path / "others" / "more.json", coco)
    write_json(tmp_path / "one" / "train.json", coco)
    (tmp_path / "yolo" / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    expected = {
        "files": ("train.json", "val.json"), "below": ("annotations/train.json", "annotations/val.json"),
        "others": None, "folders": ("train", "valid"), "yolo": ("images/train", "images/val"),
        "one": None, "c": None, "missing": None,
        "yolo/data.yaml": ("../images/train", "../images/val"), "files/train.json": None,
    }  # fmt: skip
    for name, found in expected.items():
        parts = (
            {}
            if found is None
            else dict(zip(("train", "val"), (tmp_path / name / each for each in found), strict=True))
        )
        assert {k: v.resolve() for k, v in dataset_parts(tmp_path / name).items()} == {
            k: Path(os.path.normpath(v)) for k, v in parts.items()
        }, name
