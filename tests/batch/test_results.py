"""What `maskrcnn results` refuses, and how it names images: on folders that are made here, without a predictor."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn.batch.folder import Counts, open_batch
from maskrcnn.batch.results import write_row_results
from maskrcnn.errors import ConfigError
from maskrcnn.prediction.rows import WRITING, Marks, failed_row, found_row, names_content, row_table
from maskrcnn.prediction.settings import RunSettings
from runtime.errors import OutputError

SETTINGS = RunSettings("m", ("BG", "cat"), 0.5, 0.3)
OTHER = RunSettings("m", ("BG", "cat"), 0.9, 0.3)


def good(path, settings=SETTINGS):
    document = {"image_size": [4, 6], "device": "cpu", "detections": []}
    return found_row(path, None, document, Marks.of(settings))


def bad(path):
    return failed_row(path, None, "ImageError", "no", Marks.of(SETTINGS))


def run(output, *rows, names=None):
    """Do what a run does, for rows that are given."""
    names = {row["path"]: row["path"].rpartition("/")[2] for row in rows} if names is None else names
    with open_batch(str(output), SETTINGS, force=False) as folder:
        folder.begin()
        folder.add_names(names)
        folder.add_rows(list(rows), 0)
        counts = folder.count(names)
        folder.finish(counts)
        return counts, folder.failures(20, names)


@pytest.fixture
def place(tmp_path):
    run(tmp_path / "out", good("/a/1.png"), good("/a/2.png"))
    run(tmp_path / "out", good("/b/3.png"), bad("/b/4.png"))
    return tmp_path / "out"


def names_in(place, tmp_path):
    target = tmp_path / "found.json"
    write_row_results(str(place), target, overwrite=True)
    return [image["file_name"] for image in json.loads(target.read_text(encoding="utf-8"))["images"]]


def refused(place, tmp_path, said):
    """Check that neither reads the folder: `results` in one line, and the next run, if the rows are why."""
    with pytest.raises(ConfigError, match=said) as found:
        write_row_results(str(place), tmp_path / "none.json")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "none.json").exists()


def files(place):
    return sorted(place.glob("*.parquet"))


def test_rows_that_are_fewer_or_more_than_recorded(place, tmp_path):
    assert names_in(place, tmp_path) == ["1.png", "2.png", "3.png"]
    pq.write_table(row_table([good("/c")]), place / "more.parquet")
    refused(place, tmp_path, "has 5 rows, and 4 when its run ended")
    (place / "more.parquet").unlink()
    files(place)[0].unlink()
    refused(place, tmp_path, "has 2 rows, and 4 when its run ended")
    for content in (b"", b"{}", b"[]", b"\xff", b'{"rows": "4"}'):
        (place / "_SUCCESS").write_bytes(content)
        refused(place, tmp_path, "run the same 'maskrcnn predict' command again")


def test_a_kill_while_rows_are_replaced_leaves_no_complete_run(place, tmp_path, monkeypatch):
    from maskrcnn.batch.folder import BatchFolder

    real = BatchFolder._delete

    def delete(self, name):
        if name.endswith(".parquet"):
            raise KeyboardInterrupt
        real(self, name)

    monkeypatch.setattr(BatchFolder, "_delete", delete)
    with pytest.raises(KeyboardInterrupt), open_batch(str(place), OTHER, force=True):
        pass
    refused(place, tmp_path, "has no complete run")


@pytest.mark.parametrize("second", ["1.png", "1.PNG"])
def test_images_of_two_commands_have_two_names(tmp_path, second):
    place = tmp_path / "out"
    for folder, name in (("a", "1.png"), ("b", second), ("c", second), ("a", "1.png")):
        run_again = folder == "a" and place.exists()
        run(place, *([] if run_again else [good(f"/{folder}/1.png")]), names={f"/{folder}/1.png": name})
    found = names_in(place, tmp_path)
    assert found[0] == "1.png"
    assert len({name.casefold() for name in found}) == 3
    assert all(name.lower().endswith(".png") and "~" in name for name in found[1:])


def test_an_image_without_a_name_does_not_cost_the_others_theirs(place, tmp_path):
    names = {"/a/2.png": "two", "/b/3.png": "three", "/a/0.png": "zero"}
    (place / "_names.arrow").write_bytes(names_content(names))
    assert names_in(place, tmp_path) == ["/a/1.png", "two", "three"]


def foreign(kind):
    if kind == "list":
        return pa.table({"path": ["/x"]})
    if kind == "settings":
        return row_table([good("/x", OTHER)])
    if kind == "model":
        return row_table([good("/x") | {"model_sha256": "other"}])
    return row_table([good("/x")]).append_column("more", pa.array([1]))


@pytest.mark.parametrize("kind", ["list", "settings", "model", "column"])
def test_foreign_files_of_rows_are_named(place, tmp_path, kind):
    pq.write_table(foreign(kind), place / "mine.parquet")
    success = json.loads((place / "_SUCCESS").read_text(encoding="utf-8"))
    (place / "_SUCCESS").write_text(json.dumps(success | {"rows": 5}), encoding="utf-8")
    refused(place, tmp_path, r"mine\.parquet has .*: move it away")
    with open_batch(str(place), SETTINGS, force=False) as folder, pytest.raises(OutputError, match=r"mine\.parquet"):
        folder.begin()
    if kind in ("list", "column"):  # not ours to remove
        with pytest.raises(OutputError, match=r"mine\.parquet"), open_batch(str(place), OTHER, force=True):
            pass
        assert (place / "mine.parquet").exists()


@pytest.mark.parametrize("content", [b"", b"x", b"ARROW1\0\0", "cut", "other"])
def test_damaged_names(place, tmp_path, content):
    path = place / "_names.arrow"
    if content == "cut":
        content = path.read_bytes()[:-20]
    if content == "other":
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, pa.schema({"path": pa.int8()})):
            pass
        content = sink.getvalue().to_pybytes()
    path.write_bytes(content)
    refused(place, tmp_path, r"_names\.arrow is damaged")
    with open_batch(str(place), SETTINGS, force=False) as folder, pytest.raises(OutputError, match="is damaged"):
        folder.add_names({"/x": "x"})
    path.unlink()
    refused(place, tmp_path, r"has no _names\.arrow")


def test_damaged_pages(place, tmp_path):
    """Wherever a byte of the data is another one, it is an error or the rows are the same."""
    path, expected = files(place)[0], names_in(place, tmp_path)
    whole = path.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # of the pages
    said = []
    for position in range(4, end, 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert names_in(place, tmp_path) == expected
        except ConfigError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all("has a damaged file of rows" in message and path.name in message for message in said)
    with open_batch(str(place), SETTINGS, force=False) as folder:
        path.write_bytes(whole[:-20] + whole[-8:])
        with pytest.raises(OutputError, match="has a damaged file of rows"):
            folder.begin()


@pytest.mark.parametrize(
    "changed",
    [
        {"class_names": 5}, {"class_names": [1]}, {"model": []}, {"score_threshold": "high"}, {"classes": "cat"},
        {"every": None}, {"value_range": [None]}, {"bands": {}}, {"more": 1}, None, [], "text",
    ],
)  # fmt: skip
def test_settings_of_other_types(place, tmp_path, changed):
    content = SETTINGS.to_dict() | changed if isinstance(changed, dict) else changed
    (place / "run.json").write_text(json.dumps(content), encoding="utf-8")
    refused(place, tmp_path, r"has no run\.json of a prediction run")


def test_a_folder_that_is_none(place, tmp_path):
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    for folder in (file, file.as_uri(), tmp_path / "gone", file / "below"):
        refused(folder, tmp_path, r"has no run\.json of a prediction run")
    for output in (str(file), file.as_uri()):
        with pytest.raises(OutputError), open_batch(output, SETTINGS, force=False):
            pass
    (place / "run.json").unlink()
    (place / "run.json").mkdir()
    refused(place, tmp_path, r"run\.json")


def test_failures_are_those_of_the_command(tmp_path):
    place = tmp_path / "out"
    assert run(place, bad("/a"), good("/b"))[0] == Counts(2, 2, 1, 0, 0)
    counts, failures = run(place, good("/c"))
    assert (counts, failures) == (Counts(1, 3, 0, 0, 0), [])
    assert run(place, bad("/d"))[1] == [("/d", "ImageError", "no")]


def test_a_full_disk_leaves_nothing(place, monkeypatch):
    shutil.copy(files(place)[0], place / ".old-single-000000.parquet.new")  # of a kill
    with open_batch(str(place), SETTINGS, force=False) as folder:
        folder.begin()
        assert not list(place.glob(".*.new"))

        class Full:
            def __getattr__(self, name):
                return getattr(system, name)

            def move(self, *_):
                raise OSError(28, "No space left on device")

        system, folder.system = folder.system, Full()
        with pytest.raises(OutputError, match="No space left"):
            folder.add_rows([good("/x")], 0)
    assert not list(place.glob(".*.new"))


def test_a_file_that_comes_while_a_run_begins_is_not_counted(place, monkeypatch):
    """Rows of a killed attempt that come after the scan are removed later, so their images must be predicted."""
    with open_batch(str(place), SETTINGS, force=False) as folder:
        real, calls = folder.row_files, []

        def late():
            found = real()
            calls.append(found)
            if len(calls) == 2:  # the first call looks for half-written files
                pq.write_table(row_table([good("/late")]), place / "late.parquet", **WRITING)
            return found

        monkeypatch.setattr(folder, "row_files", late)
        assert "/late" not in folder.begin()
        monkeypatch.setattr(folder, "row_files", real)
        assert "/late" not in folder.end_pass()
    assert not (place / "late.parquet").exists()
