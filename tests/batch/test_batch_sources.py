"""The images of a batch: which are found, how they are named, and which are refused."""

import errno
import os
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches.runs import write_pictures
from pyarrow import fs

from maskrcnn.batch import run, sources
from maskrcnn.batch.sources import file_system, find_pictures, plain, read_pictures
from maskrcnn.errors import ArgumentError
from maskrcnn.prediction.rows import Marks, row_table
from maskrcnn.prediction.sources import find_sources
from runtime.errors import ImageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("in"), 4, ("text.png",))


def found(*given, output="nowhere"):
    return find_pictures([str(source) for source in given], str(output))


def test_folders_and_patterns_are_those_of_one_machine(folder):
    for source in (folder, folder / "**" / "*.png", folder / "part0" / "000.jpg"):
        expected, _ = find_sources([str(source)], folder / "out")
        assert found(source) == {str(each.path): each.name for each in sorted(expected)}


ODD_NAMES = ("p%41.png", "pA.png", "a#1.png", "q?1.png", "a b.png", "ü.png", "100%.png", "a+b&c=d;e.png", "[1].png")
OPTIONS = "?region=us-east-1&scheme=http"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that is served as `store://bucket`, whose URLs pyarrow reads; the options of each call."""
    asked = []

    def served(text):
        base, _, options = plain(text).partition("?")
        asked.append(options)
        return fs.FileSystem.from_uri(base.replace("store://bucket", tmp_path.as_uri(), 1))

    monkeypatch.setattr(sources, "file_system", served)
    return asked


@pytest.mark.parametrize("base", ["store://bucket/in one", "store://bucket/in%20one/", "file://localhost{}/in%20one"])
def test_a_url_of_a_folder_or_file(tmp_path, store, base):
    """Every file name is found and read back, with the options of the URL."""
    place = tmp_path / "in one" / "päge"
    place.mkdir(parents=True)
    for name in ODD_NAMES:
        (place / name).write_bytes(name.encode())
    local = base.startswith("file:")
    url = base.format(tmp_path) + ("" if local else OPTIONS)
    names = found(url)
    assert set(names.values()) == {f"päge/{name}" for name in ODD_NAMES}
    read = read_pictures(list(names)).to_pylist()
    assert [(row["bytes"], row["error"]) for row in read] == [
        (name.removeprefix("päge/").encode(), None) for name in names.values()
    ]
    if local:
        assert set(names) == {str(place / name) for name in ODD_NAMES}
    else:
        assert set(store) == {OPTIONS[1:]}
        assert all(path.endswith(OPTIONS) for path in names)
        one = next(iter(names))
        assert found(one) == {one: names[one].removeprefix("päge/")}


def test_a_url_has_one_form():
    """So that an image that is named in two ways, or found in a folder and listed, is one image."""
    for name in ODD_NAMES:
        url = f"s3://b/{quote(name)}{OPTIONS}"
        assert plain(plain(url)) == plain(url) == plain(f"s3://b/{quote(name, safe='')}{OPTIONS}")
        if not {"?", "#"} & set(name) and "%41" not in name:
            assert plain(f"s3://b/{name}{OPTIONS}") == plain(url)
    assert plain("s3://key:se%2Fcret@b/a b?x=%41") == "s3://key:se%2Fcret@b/a%20b?x=%41"


def test_suffixes_come_before_the_options_of_a_url(tmp_path, store):
    (tmp_path / "list.txt").write_text("a.png\n", encoding="utf-8")
    assert list(found(f"store://bucket/list.txt{OPTIONS}").values()) == ["a.png"]
    (tmp_path / "list.txt").write_text(f"store://bucket/a.mp4{OPTIONS}\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="is a video"):
        found(f"store://bucket/list.txt{OPTIONS}")


def test_a_path_and_its_url_are_one_image(folder):
    path = folder / "part0" / "000.jpg"
    for url in (path.as_uri(), path.as_uri().replace("file://", "FILE://localhost"), path.as_uri().replace("0", "%30")):
        assert list(found(url)) == [str(path)]
    assert found(folder.as_uri(), output=(folder / "part0").as_uri()) == found(folder, output=folder / "part0")


@pytest.mark.parametrize("url", ["s3://b/a#1.png", "s3://b/a.png?region=x#1", "file:///a?1.png", "file:///a#1.png"])
def test_urls_that_would_be_cut_are_refused(url):
    with pytest.raises(ArgumentError, match="write # as %23 and"):
        file_system(url)
    assert "write # as %23" in read_pictures([url])["error"][0].as_py()


@pytest.mark.parametrize("kind", ["txt", "parquet", "url"])
def test_a_list(folder, tmp_path, kind):
    """A path that does not exist is a row with an error later on, not the end of a list of millions."""
    entries = [str(folder / "part0" / "000.jpg"), f"{folder.as_uri()}/part1/001.png", str(tmp_path / "gone.png")]
    path = tmp_path / ("list.parquet" if kind == "parquet" else "list.txt")
    if kind == "parquet":
        pq.write_table(pa.table({"other": [1, 2, 3], "path": entries}), path)
    else:
        path.write_text("\n".join([*entries, "", "  "]), encoding="utf-8")
    assert found(path.as_uri() if kind == "url" else path) == dict(sorted((plain(entry), entry) for entry in entries))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "string", "large_string"], ids=str)
def test_texts_of_all_kinds_in_a_list(tmp_path, kind):
    """The pandas of today writes large strings, its categories are dictionaries."""
    entries = [str(tmp_path / name) for name in ("a.png", "b.png")]
    if isinstance(kind, str):
        column = pa.array(entries, getattr(pa, kind)()).dictionary_encode()
    else:
        column = pa.array(entries, kind)
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": column}), path)
    assert list(found(path)) == entries
    for nothing in (None, ""):
        pq.write_table(pa.table({"path": pa.array([entries[0], nothing]).cast(column.type)}), path)
        with pytest.raises(ImageError, match=r"has no path in row 1 \(the first is 0\)"):
            found(path)


def test_lines_of_a_list(tmp_path):
    """Spaces, and what Python takes for ends of lines, are parts of names; marks of editors are not."""
    names = ["a.png", " b.png", "c.png ", "d\u2028.png", "e\x0b\x0c\x1c\x85f.png", "g\rh.png", "\ufeffi.png"]
    for end in ("\n", "\r\n"):
        for mark in ("", "\ufeff"):
            (tmp_path / "list.txt").write_bytes((mark + end.join(["a.png", "", "  ", *names[1:], ""])).encode())
            assert sorted(found(tmp_path / "list.txt").values()) == sorted(names)


def test_a_folder_in_a_list_is_refused(folder, tmp_path):
    for entry in (folder, folder.as_uri(), f"{folder}/"):
        (tmp_path / "list.txt").write_text(f"{folder / 'a.png'}\n{entry}\n", encoding="utf-8")
        with pytest.raises(ImageError, match=r"lists the folder .*: expected images; name folders in the command"):
            found(tmp_path / "list.txt")


def test_relative_paths_of_a_list(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    (tmp_path / "list.txt").write_text("part0/000.jpg\n", encoding="utf-8")
    assert found(tmp_path / "list.txt") == {str(folder / "part0" / "000.jpg"): "part0/000.jpg"}


def test_names_are_unique(folder, tmp_path, store):
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "000.jpg").write_bytes(b"")
    names = found(folder / "part0", twin, "store://bucket/twin")
    assert len(names) > 2
    assert len(set(names.values())) == len(names)


def twice(folder, tmp_path):
    path = folder / "part0" / "000.jpg"
    yield path, path
    yield folder, path
    yield folder, folder / "*" / "*.png"
    yield folder.as_uri(), f"{folder.as_uri()}/part1/001.png"
    yield path, path.as_uri()
    listed = tmp_path / "urls.txt"
    for one, other in (("a ü.png", "a%20%C3%BC.png"), ("a(1).png", "%61%281%29.png"), ("%c3%bc%2f%", "ü/%25")):
        listed.write_text(f"s3://b/{one}\ns3://b/{other}\n", encoding="utf-8")
        yield (listed,)
    listed.write_text(f"{path}\n{path.as_uri()}\n", encoding="utf-8")
    yield (listed,)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{path}\n{os.path.dirname(path)}/../part0/000.jpg\n", encoding="utf-8")  # noqa: PTH120
    yield (listed,)
    listed = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [str(path), str(path)]}), listed)
    yield (listed,)


def test_an_image_that_is_named_twice_is_refused(folder, tmp_path):
    for given in twice(folder, tmp_path):
        with pytest.raises(ArgumentError, match="is named twice: each image of a batch is predicted once"):
            found(*given)


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
        (f"{tmp_path.as_uri()}/%FF.png", "not UTF-8"),
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


PASSING = (
    OSError("When reading: AWS Error SLOW_DOWN during GetObject operation"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    TimeoutError("timed out"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
)
LASTING = (
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    NotADirectoryError(errno.ENOTDIR, "Not a directory"),
    OSError(errno.EINVAL, "it is not a file"),
    OSError(errno.ENAMETOOLONG, "File name too long"),
    OSError("AWS Error ACCESS_DENIED during HeadObject operation"),
    OSError("Not a regular file: 'bucket/photos'"),
    ArgumentError("the URL cannot be used"),
    ValueError("embedded null byte"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    pa.ArrowException("odd"),
    pa.ArrowKeyError("odd"),
    MemoryError(),
    RuntimeError("two\nlines \udcff"),
)


def failing(monkeypatch, error, times):
    """Make reading the path "bad" fail that often; the list of its attempts."""
    attempts, cause = [], ArgumentError("a region cannot be found")
    cause.__cause__ = error

    def read(path):
        if path == "good":
            return b"good"
        attempts.append(path)
        if len(attempts) <= times:
            raise error if len(attempts) % 2 or not isinstance(error, OSError) else cause
        return b"late"

    monkeypatch.setattr(sources, "_read", read)
    return attempts


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_error_that_passes_costs_no_image(monkeypatch, error):
    for times, expected in ((1, b"late"), (3, b"late"), (9, None)):
        attempts = failing(monkeypatch, error, times)
        table = read_pictures(["good", "bad", "good"], pauses=(0, 0, 0))
        assert table["bytes"].to_pylist() == [b"good", expected, b"good"]
        assert len(attempts) == min(times + 1, 4)
        assert (table["error"][1].as_py() is None) == (expected is not None)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_any_other_error_costs_one_image_and_no_time(monkeypatch, error):
    attempts = failing(monkeypatch, error, 9)
    table = read_pictures(["good", "bad", "good"], pauses=(1000,))
    assert table["bytes"].to_pylist() == [b"good", None, b"good"]
    assert table["error"][1].as_py().startswith("cannot open 'bad': ")
    assert len(table["error"][1].as_py().splitlines()) == 1
    assert attempts == ["bad"]


def test_odd_paths_are_read_without_an_exception():
    for path in (
        "a\0b.png",
        "x" * 5000,
        "file:///a%00b.png",
        "gopher://a/b.png",
        "s3://",
        "s3://b/a%FF?region=x&odd=1",
    ):
        assert read_pictures([path])["error"][0].as_py().startswith("cannot open ")


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), MemoryError(), pa.ArrowInvalid("odd"), ValueError()])
def test_an_image_alone_always_gets_a_row(folder, monkeypatch, error):
    class Failing(run._Worker):
        def __init__(self):
            self._marks = Marks("model", "settings")

        def __call__(self, _table):
            raise error

    row = Failing().alone(str(folder / "part0" / "000.jpg"))
    assert (row["error"], row["path"]) == (type(error).__name__, str(folder / "part0" / "000.jpg"))
    assert row_table([row]).num_rows == 1
