"""The folder of a batch: what a kill leaves is removed, other runs are kept out, and the rows are counted."""

import json

import pyarrow.parquet as pq
import pytest

from maskrcnn.batch.folder import CHECKPOINT, Counts, open_batch
from maskrcnn.prediction.output_folder import open_output
from maskrcnn.prediction.rows import Marks, failed_row, row_table
from maskrcnn.prediction.settings import RunSettings
from runtime.errors import OutputError

SETTINGS = RunSettings("m", ("BG", "cat"), 0.5, 0.3)
OTHER = RunSettings("m", ("BG", "cat"), 0.9, 0.3)
NAMES = {"/a": "a", "/b": "b", "/c": "c"}


def row(path):
    return failed_row(path, None, "ImageError", "no", Marks.of(SETTINGS))


def write(path, *images):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(row_table([row(image) for image in images]), path)


@pytest.fixture(params=["path", "url"])
def output(request, tmp_path):
    """A folder, by its path and by its URL, which is treated as an object store."""
    return str(tmp_path / "out") if request.param == "path" else (tmp_path / "out").as_uri()


def opened(output, settings=SETTINGS, *, force=False):
    return open_batch(output, settings, force=force)


def test_rows_are_kept_and_torn_files_removed(output, tmp_path):
    place = tmp_path / "out"
    with opened(output) as folder:
        assert folder.begin() == set()
        folder.add_names({"/a": "a"})
        folder.add_rows([row("/a")], 0)
    write(place / "old_x_000001-0.parquet", "/b")
    (place / "old_x_0000010-0.parquet").write_bytes(b"PAR1 torn")  # not of the task 1, but of 10
    (place / "old_x_000002-0.parquet").write_bytes(b"PAR1 torn")
    for name in ("000002", "0000010"):
        write(place / CHECKPOINT / f"old_x_{name}.pending.parquet", "/c")
    with opened(output) as folder:
        assert folder.begin() == {"/a", "/b"}
        folder.add_names(NAMES)
        folder.add_rows([row("/c")], 0)
        counts = folder.count(NAMES)
        folder.finish(counts)
    assert counts == Counts(3, 3, 3, 0, 0)
    assert json.loads((place / "_SUCCESS").read_text(encoding="utf-8")) == counts._asdict()
    assert not list((place / CHECKPOINT).iterdir())
    assert len(list(place.glob("*.parquet"))) == 3
    assert not list(place.glob(".*.new"))


def test_rows_of_a_dead_attempt_that_come_late_are_removed(output, tmp_path):
    with opened(output) as folder:
        folder.begin()
        write(tmp_path / "out" / "late_x_000000-0.parquet", "/a")
        write(tmp_path / "out" / f"{folder.attempt}_x_000000-0.parquet", "/a", "/b")
        assert folder.end_pass() == {"/a", "/b"}
        assert folder.count(NAMES) == Counts(3, 2, 2, 1, 0)


def test_doubled_and_damaged_rows_are_noticed(output, tmp_path):
    write(tmp_path / "out" / "a.parquet", "/a", "/b")
    write(tmp_path / "out" / "b.parquet", "/b")
    (tmp_path / "out" / "run.json").write_text(json.dumps(SETTINGS.to_dict()), encoding="utf-8")
    with opened(output) as folder:
        folder.begin()
        assert folder.count(NAMES) == Counts(3, 3, 3, 1, 1)
        assert folder.failures(2) == [("/a", "ImageError", "no"), ("/b", "ImageError", "no")]
        (tmp_path / "out" / "b.parquet").write_bytes(b"PAR1")
        with pytest.raises(OutputError, match="has a damaged file of rows"):
            folder.begin()


def test_other_runs_are_kept_out(output, tmp_path):
    place = tmp_path / "out"
    with opened(output) as folder:
        folder.add_names(NAMES)
        folder.add_rows([row("/a")], 0)
        write(place / CHECKPOINT / "x.parquet", "/a")
    with pytest.raises(OutputError, match=r"score_threshold was 0\.5 and is now 0\.9"), opened(output, OTHER):
        pass
    with opened(output, SETTINGS, force=True) as folder:
        assert folder.begin() == {"/a"}
    with opened(output, OTHER, force=True) as folder:
        assert folder.begin() == set()
    assert sorted(path.name for path in place.iterdir() if path.name != ".lock") == [CHECKPOINT, "run.json"]
    (place / "detections").mkdir()
    with pytest.raises(OutputError, match="without --ray"), opened(output, OTHER):
        pass


def test_unrelated_files_are_left_alone(output, tmp_path):
    place = tmp_path / "out"
    write(place / "mine.parquet", "/a")
    with pytest.raises(OutputError, match=r"other files in it and no run\.json"), opened(output, force=True):
        pass
    assert [path.name for path in place.iterdir()] == ["mine.parquet"]


def test_one_run_at_a_time(tmp_path):
    with opened(str(tmp_path / "out")), pytest.raises(OutputError, match="in use"), opened(str(tmp_path / "out")):
        pass


def test_a_run_of_one_machine_keeps_out_of_it(tmp_path):
    with opened(str(tmp_path)) as folder:
        folder.add_rows([row("/a")], 0)
    with pytest.raises(OutputError, match="results of a run with --ray"), open_output(tmp_path, SETTINGS, force=True):
        pass
