"""A batch on a real cluster of this machine: its rows, what kills it, and what it refuses."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from batches.runs import (
    MODEL,
    POISON,
    DyingWorker,
    IncompleteWorker,
    driver,
    rows_of,
    write_pictures,
)
from typer.testing import CliRunner

from maskrcnn.batch import BatchOptions, predict_dataset, run
from maskrcnn.cli import app
from maskrcnn.errors import ClusterError
from maskrcnn.prediction.rows import row_schema
from runtime.errors import ArtifactError, MissingPackageError, OutputError

pytestmark = [
    # what Ray warns of in its own code
    pytest.mark.filterwarnings("ignore:`use_[a-z0-9_]+` is deprecated:DeprecationWarning"),
]
PICTURE, MISSING = 5, 3


def whole(output, pictures, failures):
    """Check that a run is complete, with one row per image, from its files alone."""
    rows = rows_of(output)
    assert len(rows) == len({row["path"] for row in rows}) == pictures
    assert sum(row["error"] is not None for row in rows) == failures
    stored = json.loads((output / "_SUCCESS").read_text(encoding="utf-8"))
    assert stored == {"pictures": pictures, "rows": pictures, "failures": failures, "missing": 0, "doubled": 0}
    assert not list((output / ".checkpoint").glob("*.pending.parquet"))
    return {Path(row["path"]).name: row for row in rows}


@pytest.fixture(scope="module")
def finished(cluster, photos, tmp_path_factory):
    """A finished run over all photos, by the command."""
    output = tmp_path_factory.mktemp("batch") / "out"
    options = ("--ray", cluster, "--workers", "2")
    done = CliRunner().invoke(app, ["predict", "demo", str(photos), "-o", str(output), *options])
    assert done.exit_code == PICTURE, done.output
    return output, done


def test_the_rows_are_what_predict_finds(finished, photos, tmp_path):
    output, done = finished
    rows = whole(output, 24, 4)
    assert sorted(name for name, row in rows.items() if row["error"] is not None) == list(POISON)
    assert rows["gone.png"]["content_sha256"] is None
    assert len(rows["text.png"]["content_sha256"]) == 64
    assert "24 images, 24 rows, 4 failures" in done.stdout
    assert all(f"failed: {photos / 'part1' / name}: ImageError: " in done.stderr for name in POISON)
    plain = CliRunner().invoke(app, ["predict", "demo", str(photos), "-o", str(tmp_path / "plain")])
    assert plain.exit_code == PICTURE
    for suffix in ("json", "csv"):
        name = f"results.{suffix}"
        written = CliRunner().invoke(app, ["results", str(output), "-o", str(tmp_path / name)])
        assert written.exit_code == 0, written.output
        assert (tmp_path / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    failures = {row["path"]: (row["error"], row["message"]) for row in rows.values() if row["error"] is not None}
    stored = json.loads((tmp_path / "plain" / "failures.json").read_text(encoding="utf-8"))
    assert failures == {row["path"]: (row["error"], row["message"]) for row in stored}


def test_every_file_has_the_schema(finished):
    import pyarrow.parquet as pq

    output, _ = finished
    files = list(output.glob("*.parquet"))
    assert len(files) > 2
    assert all(pq.read_schema(path).equals(row_schema()) for path in files)


def test_a_second_run_predicts_what_is_new(finished, photos, cluster):
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    again = predict_dataset(MODEL, [str(photos)], output, options=BatchOptions(workers=1))
    assert (again.made, again.counts.rows, again.counts.doubled) == (0, 24, 0)
    assert {path: path.stat().st_mtime_ns for path in output.glob("*.parquet")} == before
    with pytest.raises(OutputError, match=r"score_threshold was 0\.5 and is now 0\.9"):
        predict_dataset(MODEL, [str(photos)], output, options=BatchOptions(score_threshold=0.9, workers=1))


def test_an_image_that_ends_its_worker_is_named(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_Worker", DyingWorker)
    photos = write_pictures(tmp_path / "in", 10, ())
    poison = photos / "part0" / "poison.png"
    poison.write_bytes((photos / "part1" / "001.png").read_bytes())
    # Few images make small blocks; the neighbors of the poison must be in its block.
    monkeypatch.setattr(run, "_BLOCKS_PER_WORKER", 2)
    found = predict_dataset(MODEL, [str(photos)], tmp_path / "out", options=BatchOptions(workers=1))
    assert (found.counts.failures, found.counts.missing) == (1, 0)
    rows = whole(tmp_path / "out", 11, 1)
    assert rows["poison.png"]["error"] == "WorkerCrashed"
    assert len(poison.with_suffix(".log").read_text(encoding="utf-8").splitlines()) == 3
    assert all(row["detections"] for name, row in rows.items() if name != "poison.png")


def until(condition, process):
    """Wait for a condition while a process runs."""
    limit = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def files(output):
    return len(list(output.glob("*.parquet")))


def test_a_killed_worker_and_a_killed_driver_cost_no_row(cluster, photos, tmp_path):
    pids = Path(os.environ["MASKRCNN_PIDS"])
    output = tmp_path / "out"
    with driver(cluster, photos, output, "SlowWorker") as process:
        until(lambda: files(output) > 1, process)
        os.kill(int(pids.read_text(encoding="utf-8").split()[-1]), signal.SIGKILL)
        kept = files(output)
        until(lambda: files(output) > kept, process)
        process.kill()
    assert not (output / "_SUCCESS").exists()
    done = CliRunner().invoke(app, ["results", str(output), "-o", str(tmp_path / "results.json")])
    assert done.exit_code == 4
    assert "no complete run" in done.stderr
    found = predict_dataset(MODEL, [str(photos)], output, options=BatchOptions(workers=2))
    assert 0 < found.made < 24, kept
    whole(output, 24, 4)


def test_a_cluster_that_is_too_small(cluster, photos, tmp_path):
    for options in (BatchOptions(threads=4), BatchOptions(workers=4), BatchOptions(device="cuda")):
        begin = time.monotonic()
        with pytest.raises(ClusterError, match="the cluster is too small"):
            predict_dataset(MODEL, [str(photos)], tmp_path / "out", options=options)
        assert time.monotonic() - begin < 10
    assert not (tmp_path / "out").exists()


def test_errors_of_workers_are_ours(cluster, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "model_digest", lambda _path: "0" * 64)
    with pytest.raises(ArtifactError, match="where the run was started it is 000000000000: put the same file"):
        predict_dataset(MODEL, [str(photos)], tmp_path / "out")
    monkeypatch.setattr(run, "_Worker", IncompleteWorker)
    with pytest.raises(MissingPackageError, match=r"pip install 'maskrcnn-export\[onnx\]'"):
        predict_dataset(MODEL, [str(photos)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
