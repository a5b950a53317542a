"""Rows of one machine: the digest is of the bytes that were predicted, taken once, and of nothing that is endless."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from maskrcnn.prediction import pictures as walk, rows as writing
from maskrcnn.prediction.predict import PredictOptions, predict_paths
from runtime.errors import ImageError

pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, extra [batch]")


@pytest.fixture
def run(fake, tmp_path):
    def predict(*paths, **options):
        given = PredictOptions(parquet=True, **options)
        return predict_paths(list(map(str, paths)), tmp_path / "out", lambda: (fake, "m"), given, lambda *_: None)

    return predict


def digests(tmp_path):
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    return {Path(row["path"]).name: row["content_sha256"] for row in rows}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("views", [(), ("overlay",)])
def test_the_digest_is_of_the_bytes_that_were_predicted(run, save, fake, tmp_path, monkeypatch, views):
    image, text = save(tmp_path / "in" / "a.png"), tmp_path / "in" / "text.png"
    text.write_text("no image")
    expected = {"a.png": sha256(image), "text.png": sha256(text)}
    real = fake.run

    def changed(*arguments):
        image.write_bytes(image.read_bytes() + b"later")
        return real(*arguments)

    monkeypatch.setattr(fake, "run", changed)
    run(tmp_path / "in", views=views)
    assert digests(tmp_path) == expected


def test_an_image_that_changes_while_it_is_read_has_no_digest(run, save, fake, tmp_path, monkeypatch):
    image, real = save(tmp_path / "in" / "a.png"), fake.prepare

    def changed(source):
        found = real(source)
        image.write_bytes(image.read_bytes() + b"now")
        return found

    monkeypatch.setattr(fake, "prepare", changed)
    run(image)
    assert digests(tmp_path) == {"a.png": None}


def test_a_run_again_reads_no_image(run, save, tmp_path, monkeypatch):
    image = save(tmp_path / "in" / "a.png")
    run(image)
    before = digests(tmp_path)
    monkeypatch.setattr(walk, "content_digest", None)
    assert run(image).made == 0
    assert digests(tmp_path) == before == {"a.png": sha256(image)}
    document = tmp_path / "out" / "detections" / "a.png.json"
    stored = json.loads(document.read_text(encoding="utf-8"))
    assert stored.pop("content_sha256") == sha256(image)
    document.write_text(json.dumps(stored), encoding="utf-8")  # as older versions wrote it
    assert run(image).made == 0
    assert digests(tmp_path) == {"a.png": None}


def test_pipes_and_endless_files_are_not_read(run, save, tmp_path):
    good = save(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere")
    assert len(run(tmp_path / "in").failures) == 3
    assert digests(tmp_path) == {"a.png": sha256(good), "pipe.png": None, "zero.png": None, "gone.png": None}


def test_names_that_are_not_utf_8_are_refused(run, save, tmp_path):
    good = save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / os.fsdecode(b"x\xff.png")).write_bytes(good.read_bytes())
    (tmp_path / "in" / os.fsdecode(b"x\xfe.png")).write_bytes(good.read_bytes())
    with pytest.raises(ImageError, match="a file name that is not UTF-8: rename it, or leave out --format parquet"):
        run(tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_names_are_written_before_rows(run, save, tmp_path, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            assert (tmp_path / "out" / "_names.arrow").exists()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", Full)
    with pytest.raises(OSError, match="No space left"):
        run(save(tmp_path / "in" / "a.png"))
    assert not (tmp_path / "out" / writing.ROWS_FILE).exists()
