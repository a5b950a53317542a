"""Rows without a cluster: the worker on tables, Parquet from one machine, and results from rows."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches.runs import MODEL, POISON, rows_of
from typer.testing import CliRunner

from maskrcnn.batch import PredictActor
from maskrcnn.batch.sources import read_pictures
from maskrcnn.cli import app
from maskrcnn.prediction.rows import row_schema
from runtime import Predictor
from runtime.errors import ArtifactError, InputError

USAGE, MISSING, UNUSABLE, PICTURE, OUTPUT = 2, 3, 4, 5, 6


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def failed(code, *arguments):
    """Return the error message of a command that must fail with this exit code: one line, no traceback."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("... "))
    return line


@pytest.fixture(scope="module")
def actor():
    made = PredictActor(MODEL)
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(photos, tmp_path_factory):
    """A folder that `maskrcnn predict` wrote as COCO and one that it wrote as Parquet."""
    folder = tmp_path_factory.mktemp("plain")
    for name in ("coco", "parquet"):
        assert call("predict", "demo", photos, "-o", folder / name, "--format", name).exit_code == PICTURE
    return folder


def test_a_worker_returns_a_row_per_image_in_order(actor, photos):
    paths = [*sorted(map(str, photos.rglob("*.png"))), str(photos / "part1" / "cut.jpg")]
    table = actor(read_pictures(paths))
    assert table.schema.equals(row_schema())
    assert table["path"].to_pylist() == paths
    rows = {Path(row["path"]).name: row for row in table.to_pylist()}
    assert {name for name, row in rows.items() if row["error"] is not None} == set(POISON)
    with Predictor(MODEL) as predictor:
        for name in ("001.png", "002.png"):
            expected = predictor(rows[name]["path"])
            found = rows[name]["detections"]
            assert [each["rle"] for each in found] == [rle["counts"] for rle in expected.rles]
            np.testing.assert_array_equal([each["score"] for each in found], expected.scores)
            np.testing.assert_allclose([each["box"] for each in found], expected.boxes, atol=0.005)


def test_a_table_of_failures_has_the_schema(actor):
    table = pa.table({"path": ["a", "b"], "bytes": pa.array([b"", b"x"], pa.binary())})  # as Ray reads files
    assert actor(table).schema.equals(row_schema())
    assert actor(table)["error"].to_pylist() == ["ImageError", "ImageError"]
    assert actor(table.slice(0, 0)).num_rows == 0


def test_settings_of_a_worker(photos):
    path = str(photos / "part1" / "001.png")
    made = PredictActor(MODEL, classes=("circle",), score_threshold=0.2, batch_size=2)
    names = {each["name"] for each in made(read_pictures([path, path])).to_pylist()[1]["detections"]}
    assert names == {"circle"}
    assert made.settings.classes == ("circle",)
    with pytest.raises(InputError, match="no class 'dog'"):
        PredictActor(MODEL, classes=("dog",))
    with pytest.raises(ArtifactError, match="put the same file on all machines"):
        PredictActor(MODEL, digest="0" * 64)


def test_parquet_of_one_machine(plain):
    folder = plain / "parquet"
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "_names.arrow", "detections", "failures.json", "results.parquet", "run.json",
    ]  # fmt: skip
    rows = rows_of(folder)
    assert len(rows) == 24
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert sum(row["error"] is not None for row in rows) == 4
    assert pq.read_schema(folder / "results.parquet").equals(row_schema())


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_results_of_rows_are_those_of_predict(plain, suffix, tmp_path):
    output = tmp_path / f"found.{suffix}"
    done = call("results", plain / "parquet", "-o", output)
    assert done.exit_code == 0, done.output
    assert "20 images" in done.stdout
    assert output.read_bytes() == (plain / "coco" / f"results.{suffix}").read_bytes()
    assert "already exists" in failed(OUTPUT, "results", plain / "parquet", "-o", output)
    assert call("results", plain / "parquet", "-o", output, "--force").exit_code == 0


def test_resumed_and_changed_formats(photos, tmp_path):
    """Documents are shared; each format leaves no file of the other."""
    folder, one = tmp_path / "out", photos / "part1" / "001.png"
    for name, present, absent in (
        ("parquet", "results.parquet", "results.json"),
        ("coco", "results.json", "results.parquet"),
    ):
        done = call("predict", "demo", one, "-o", folder, "--format", name)
        assert done.exit_code == 0, done.output
        assert (folder / present).exists()
        assert not (folder / absent).exists()
    assert "0 predicted in this run, 1 in earlier ones" in done.stdout


def rewrite(folder, rows_by_file):
    for path in folder.glob("*.parquet"):
        path.unlink()
    for name, rows in rows_by_file.items():
        pq.write_table(pa.Table.from_pylist(rows, row_schema()), folder / name, row_group_size=3)


def ended(folder, rows):
    (folder / "_SUCCESS").write_text(json.dumps({"rows": rows}), encoding="utf-8")


def test_results_of_many_files_in_any_order(plain, tmp_path):
    """Files whose ranges of paths overlap, in an order of their own."""
    import shutil

    folder = shutil.copytree(plain / "parquet", tmp_path / "many")
    rows = rows_of(folder)
    order = np.random.default_rng(0).permutation(len(rows))
    rewrite(folder, {f"{n}.parquet": [rows[place] for place in order[n::3]] for n in range(3)})
    assert "no complete run" in failed(UNUSABLE, "results", folder, "-o", tmp_path / "a.json")
    ended(folder, len(rows))
    assert call("results", folder, "-o", tmp_path / "a.json").exit_code == 0
    assert (tmp_path / "a.json").read_bytes() == (plain / "coco" / "results.json").read_bytes()
    rewrite(folder, {"a.parquet": rows, "b.parquet": rows[7:8]})
    ended(folder, len(rows) + 1)
    assert f"two rows for {rows[7]['path']!r}" in failed(UNUSABLE, "results", folder, "-o", tmp_path / "b.json")
    (folder / "b.parquet").write_bytes(b"PAR1")
    assert "b.parquet" in failed(UNUSABLE, "results", folder, "-o", tmp_path / "b.json")
    (folder / "run.json").unlink()
    assert "has no run.json" in failed(UNUSABLE, "results", folder, "-o", tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
    assert ".json or .csv" in failed(USAGE, "results", plain / "parquet", "-o", tmp_path / "b.xml")


def test_without_pyarrow(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = failed(MISSING, "predict", "demo", photos, "-o", tmp_path / "out", "--format", "parquet")
    assert "'maskrcnn-export[batch]'" in line
    assert "'maskrcnn-export[batch]'" in failed(MISSING, "results", tmp_path, "-o", tmp_path / "a.json")
    assert "'maskrcnn-export[batch]'" in failed(
        MISSING, "predict", "demo", photos, "-o", tmp_path / "out", "--ray", "local"
    )
    assert not (tmp_path / "out").exists()


def snippet(title):
    """Return the code of a Python block of the page, the one that begins with this comment."""
    page = (MODEL.parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    (found,) = (
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if block.startswith(f"# {title}")
    )
    return found


@pytest.fixture
def frame(photos):
    """What Spark's `binaryFile` and the snippet for Dask give: paths and bytes in pandas."""
    import pandas as pd

    paths = [photos / "part1" / name for name in ("001.png", "text.png", "003.jpg")]
    return pd.DataFrame({"path": list(map(str, paths)), "content": [path.read_bytes() for path in paths], "length": 1})


def test_the_snippet_for_spark(frame):
    names = {}
    exec(snippet("Spark").partition("# On the driver")[0].replace("mine.onnx", str(MODEL)), names)
    first, second = names["predict"](iter([frame, frame[:0]]))
    assert list(first["path"]) == list(frame["path"])
    assert first["error"].isna().tolist() == [True, False, True]
    assert len(second) == 0
    declared = [
        part.split(" ", 1)[0]
        for part in re.findall(r"(\w+ (?:string|int|array<struct<[^>]+>[^>]*>+))", names["SCHEMA"])
    ]
    assert declared == list(first.columns) == row_schema().names


def test_the_snippet_for_dask(frame):
    names = {}
    exec(snippet("Dask").partition("# On the client")[0].replace("mine.onnx", str(MODEL)), names)
    found = names["predict"](frame[["path"]])
    assert list(found.columns) == row_schema().names
    assert found["error"].isna().tolist() == [True, False, True]
    assert names["actor"]() is names["actor"]()
