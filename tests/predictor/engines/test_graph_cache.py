"""The cache of optimised graphs: used, made again when damaged, never another artifact's, never half written."""

import inspect
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail as EngineFailure

from runtime import EngineOptions, Predictor
from runtime.artifact_files.onnx_file import metadata_entry
from runtime.engines.graph_cache import GRAPH, GraphCache
from runtime.engines.ort.cache import ArtifactCache
from runtime.errors import DeviceError, OutputError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "deep" / "cache"


@pytest.fixture
def start(onnx_artifact, cache, picture):
    """Open a predictor with the cache, and check that it computes what one without does."""
    expected = Predictor(onnx_artifact, "cpu")(picture)
    assert len(expected) >= 6

    def check(path=onnx_artifact, **options):
        found = Predictor(path, "cpu", engine=EngineOptions(cache=cache), **options)(picture)
        for name in ("boxes", "scores", "class_ids", "mask_probabilities"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

    return check


@pytest.fixture
def opened(monkeypatch):
    """What ONNX Runtime is asked to open, and whether it optimises."""
    import onnxruntime as ort

    real, calls = ort.InferenceSession, []

    def session(source, sess_options, providers, **_fallback):
        calls.append((source, sess_options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL))
        return real(source, sess_options=sess_options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", session)
    return calls


def entries(cache):
    found = sorted(cache.iterdir())
    assert all(path.name.startswith("graph-") for path in found)  # no drafts
    return found


def test_second_start_opens_the_optimised_graph(start, opened, cache, onnx_artifact):
    start()
    (entry,) = entries(cache)
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "graph.onnx", "weights.bin"]
    assert (entry / "weights.bin").stat().st_size > 0.9 * onnx_artifact.stat().st_size
    start()
    assert opened[-2:] == [(str(onnx_artifact), True), (str(entry / GRAPH), False)]
    assert entries(cache) == [entry]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change(entry, **changes):
    path = entry / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = {
    "one bit of the weights": lambda entry: flip(entry / "weights.bin"),
    "one bit of the graph": lambda entry: flip(entry / GRAPH),
    "weights cut short": lambda entry: os.truncate(entry / "weights.bin", 5000),
    "empty graph": lambda entry: os.truncate(entry / GRAPH, 0),
    "no weights": lambda entry: (entry / "weights.bin").unlink(),
    "no graph": lambda entry: (entry / GRAPH).unlink(),
    "no description": lambda entry: (entry / "entry.json").unlink(),
    "half a description": lambda entry: os.truncate(entry / "entry.json", 20),
    "description of another kind": lambda entry: (entry / "entry.json").write_text("[1]"),
    "another key": lambda entry: change(entry, key={}),
    "a file too many": lambda entry: (entry / "note").write_text("x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_repaired(start, opened, cache, onnx_artifact, damage, caplog):
    start()
    (entry,) = entries(cache)
    DAMAGES[damage](entry)
    del opened[:]
    start()
    assert opened == [(str(onnx_artifact), True)]
    assert [(record.levelname, "damaged" in record.message) for record in caplog.records] == [("WARNING", True)] * 2
    caplog.clear()
    start()
    assert opened[1:] == [(str(entry / GRAPH), False)]
    assert caplog.records == []


def test_graph_that_onnx_runtime_refuses_is_not_used(start, opened, cache, onnx_artifact, caplog):
    start()
    (entry,) = entries(cache)
    (entry / GRAPH).write_bytes(b"no graph")
    change(entry, files={path.name: crc(path) for path in entry.iterdir() if path.name != "entry.json"})
    start()
    assert opened[-2:] == [(str(entry / GRAPH), False), (str(onnx_artifact), True)]
    assert "refuses the cached graph" in caplog.text


def crc(path):
    import zlib

    return [path.stat().st_size, zlib.crc32(path.read_bytes())]


def test_another_artifact_has_another_entry(start, cache, onnx_artifact, tmp_path):
    start()
    path = tmp_path / "copy.onnx"
    path.write_bytes(onnx_artifact.read_bytes())
    start(path)
    assert len(entries(cache)) == 1  # the content counts, not the name
    path.write_bytes(metadata_entry("note", "added") + onnx_artifact.read_bytes())  # the recorded digest stays
    start(path, verify_digest=False)
    assert len(entries(cache)) == 2


def test_another_engine_or_processor_has_another_entry(start, cache, monkeypatch):
    import onnxruntime as ort

    start()
    monkeypatch.setattr(ort, "__version__", "99.0.0")
    start()
    monkeypatch.setattr("runtime.engines.ort.cache.processor", lambda: "another")
    start()
    assert len(entries(cache)) == 3


def test_parts_that_an_older_version_of_ours_cut_are_not_used(onnx_artifact, tmp_path, monkeypatch):
    def entry(part):
        return ArtifactCache(tmp_path, onnx_artifact, verified=True).graph([(CUDA, {})], part, {}).path

    whole, trunk = entry(""), entry("trunk")
    real = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: real(module) + "# changed")
    assert entry("") == whole  # ONNX Runtime gets the artifact as it is
    assert entry("trunk") != trunk


def test_many_at_once_leave_one_entry(start, cache):
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(start) for _ in range(4)]:
            done.result()
    assert len(entries(cache)) == 1


def test_first_writer_stays_and_a_damaged_entry_goes(tmp_path):
    entry = GraphCache(tmp_path, {"a": 1})
    for text in ("first", "second"):
        with entry.draft() as draft:
            (draft / GRAPH).write_text(text)
            assert entry.find() is None or text == "second"
            entry.publish(draft)
        assert entry.find().read_text() == "first"
    (entry.path / GRAPH).write_text("spoiled")
    with entry.draft() as draft:
        (draft / GRAPH).write_text("third")
        entry.publish(draft)
    assert entry.find().read_text() == "third"
    assert list(tmp_path.iterdir()) == [entry.path]


def test_what_is_not_published_is_gone(tmp_path):
    entry = GraphCache(tmp_path, {"a": 1})
    with entry.draft() as draft:
        (draft / GRAPH).write_text("half")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path):
    old, young = (tmp_path / f".graph-{name}.partial" for name in ("old", "young"))
    for path in (old, young):
        path.mkdir()
    past = time.time() - 25 * 3600
    os.utime(old, (past, past))
    with GraphCache(tmp_path, {"a": 1}).draft():
        assert young.exists()
        assert not old.exists()


def test_cache_that_is_a_file(start, cache):
    cache.parent.mkdir()
    cache.write_text("not a folder")
    with pytest.raises(OutputError, match=r"cannot write to the cache .*: .*"):
        start()


def test_disk_that_is_full(start, cache, monkeypatch):
    import onnxruntime as ort

    real = ort.InferenceSession

    def session(source, sess_options, providers, **_fallback):
        if sess_options.optimized_model_filepath:
            raise EngineFailure("No space left on device\nsecond line")
        return real(source, sess_options=sess_options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(OutputError, match=r"cannot write to the cache .*: No space left on device$"):
        start()
    assert entries(cache) == []


def test_cuda_that_does_not_load_leaves_no_graph_of_its_own(onnx_artifact, cache, monkeypatch, caplog):
    import onnxruntime as ort

    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda **_options: None, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", lambda path, sess_options, **_rest: real(path, sess_options, [CPU]))
    caplog.set_level(logging.WARNING, logger="runtime")
    with pytest.raises(DeviceError):
        Predictor(onnx_artifact, "cuda", engine=EngineOptions(cache=cache))
    assert not cache.exists()
    assert Predictor(onnx_artifact, "auto", engine=EngineOptions(cache=cache)).device == "cpu"
    (entry,) = entries(cache)
    assert json.loads((entry / "entry.json").read_text())["key"]["providers"] == [CPU]
