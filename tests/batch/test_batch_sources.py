"""The images of a batch: which are found, how they are named, and which are refused."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches.runs import write_pictures

from maskrcnn.batch.sources import file_system, find_pictures, read_pictures
from maskrcnn.errors import ArgumentError
from maskrcnn.prediction.sources import find_sources
from runtime.errors import ImageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("in"), 4, ("text.png",))


def found(*sources, output="nowhere"):
    return find_pictures([str(source) for source in sources], str(output))


def test_folders_and_patterns_are_those_of_one_machine(folder):
    for source in (folder, folder / "**" / "*.png", folder / "part0" / "000.jpg"):
        expected, _ = find_sources([str(source)], folder / "out")
        assert found(source) == {str(each.path): each.name for each in sorted(expected)}


def test_a_url_of_a_folder_or_file(folder):
    url = folder.as_uri()
    assert found(f"{url}/") == {f"{url}/{name}": name for name in sorted(found(folder).values())}
    assert found(f"{url}/part0/000.jpg") == {f"{url}/part0/000.jpg": "000.jpg"}


@pytest.mark.parametrize("kind", ["txt", "parquet", "url"])
def test_a_list(folder, tmp_path, kind):
    """A path that does not exist is a row with an error later on, not the end of a list of millions."""
    entries = [str(folder / "part0" / "000.jpg"), f"{folder.as_uri()}/part1/001.png", str(tmp_path / "gone.png")]
    path = tmp_path / ("list.parquet" if kind == "parquet" else "list.txt")
    if kind == "parquet":
        pq.write_table(pa.table({"other": [1, 2, 3], "path": entries}), path)
    else:
        path.write_text("\n".join([*entries, "", "  "]), encoding="utf-8")
    assert found(path.as_uri() if kind == "url" else path) == dict(sorted(zip(entries, entries, strict=True)))


def test_relative_paths_of_a_list(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    (tmp_path / "list.txt").write_text("part0/000.jpg\n", encoding="utf-8")
    assert found(tmp_path / "list.txt") == {str(folder / "part0" / "000.jpg"): "part0/000.jpg"}


def test_names_are_unique(folder, tmp_path):
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "000.jpg").write_bytes(b"")
    names = found(folder / "part0", twin, twin.as_uri())
    assert len(set(names.values())) == len(names)


def twice(folder, tmp_path):
    path = folder / "part0" / "000.jpg"
    yield path, path
    yield folder, path
    yield folder, folder / "*" / "*.png"
    yield folder.as_uri(), f"{folder.as_uri()}/part1/001.png"
    listed = tmp_path / "list.txt"
    listed.write_text(f"{path}\n{os.path.dirname(path)}/../part0/000.jpg\n", encoding="utf-8")  # noqa: PTH120
    yield (listed,)
    listed = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [str(path), str(path)]}), listed)
    yield (listed,)


def test_an_image_that_is_named_twice_is_refused(folder, tmp_path):
    for sources in twice(folder, tmp_path):
        with pytest.raises(ArgumentError, match="is named twice: each image of a batch is predicted once"):
            found(*sources)


def test_videos_are_refused(folder, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "list.txt").write_text("b.MOV\n", encoding="utf-8")
    for source in (tmp_path, tmp_path / "a.mp4", tmp_path.as_uri(), tmp_path / "list.txt"):
        with pytest.raises(ArgumentError, match="is a video, and a batch has one row per image: leave out --ray"):
            found(source)


def test_what_cannot_be_used_is_said(folder, tmp_path):
    (tmp_path / "odd.parquet").write_bytes(b"odd")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.txt").write_bytes(b"")
    pq.write_table(pa.table({"path": [1]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"file": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"")
    for source, message in (
        ("nowhere", "does not exist"),
        ("file:///nowhere/at/all", "does not exist"),
        ("nowhere.txt", "does not exist"),
        (tmp_path / "odd.parquet", "cannot be read as a list"),
        (tmp_path / "odd.txt", "cannot be read as a list"),
        (tmp_path / "empty.txt", "contains no image"),
        (tmp_path / "numbers.parquet", "has no column 'path'"),
        (tmp_path / "other.parquet", "has no column 'path'"),
        (tmp_path / "*.png", "not UTF-8"),
    ):
        with pytest.raises(ImageError, match=message):
            found(source)
    with pytest.raises(ArgumentError, match="cannot be used"):
        file_system("gopher://somewhere/photos")


def test_reading_raises_nothing(folder, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", 2**31)
    good = folder / "part0" / "000.jpg"
    paths = [str(good), good.as_uri(), str(tmp_path / "gone.png"), "file:///gone.png", str(tmp_path)]
    table = read_pictures([*paths, str(tmp_path / "pipe.png"), str(tmp_path / "large.png")])
    assert table["bytes"].to_pylist()[:2] == [good.read_bytes()] * 2
    errors = table["error"].to_pylist()
    assert errors[:2] == [None, None]
    assert all(error.startswith("cannot open ") for error in errors[2:])
