"""A predictor in other processes: forked, spawned, in a pool; each in time, or a refusal."""

import multiprocessing
import pickle
import pickletools
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from runtime import EngineOptions, Predictor
from runtime.errors import ArtifactError, ArtifactNotFoundError, ClosedError

FORK = """
import atexit, os, sys, threading, warnings
import numpy as np
from itertools import repeat
from runtime import EngineOptions, Predictor
warnings.simplefilter("ignore")
path, engine = sys.argv[1], EngineOptions(threads=None if os.path.isdir(sys.argv[1]) else 2)
picture = np.load(sys.argv[2])

def equal(found):
    return all((getattr(found, n) == getattr(expected, n)).all() for n in ("boxes", "scores", "mask_probabilities"))

def tell(work):
    try:
        print(work(), flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)

predictor = Predictor(path, sys.argv[3], engine=engine)
expected = predictor(picture)
assert len(expected) > 0
results = predictor.predict_stream(repeat(picture))
next(results)
child = os.fork()
if child == 0:
{body}
    sys.exit(0)
_, status = os.waitpid(child, 0)
print("ended", status, equal(predictor(picture)), len(next(results)) == len(expected), flush=True)
results.close()
"""


@pytest.fixture(scope="module")
def forked(picture, tmp_path_factory):
    """Run lines in the forked child of a process that uses a predictor; return what both print."""
    array = tmp_path_factory.mktemp("fork") / "picture.npy"
    np.save(array, picture)

    def run(path, *lines, device="cpu"):
        script = FORK.replace("{body}", "\n".join("    " + line for line in lines))
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), str(array), device],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_forked_child_computes_with_an_engine_of_its_own(onnx_artifact, forked):
    """Eight threads at once, of which one opens it; nothing of the parent's is freed, which would wait forever."""
    lines = forked(
        onnx_artifact,
        "start = threading.Barrier(8)",
        "answers = []",
        "threads = [threading.Thread(target=lambda: (start.wait(), answers.append(equal(predictor(picture)))))"
        " for _ in range(8)]",
        "before = predictor._engine._backend",
        "[thread.start() for thread in threads], [thread.join() for thread in threads]",
        "print(answers, predictor._engine._backend is before)",
        "mine = predictor._engine._backend",
        "tell(lambda: (equal(predictor(picture)), predictor._engine._backend is mine))",
        "tell(lambda: next(results))",
        "results.close()",
        "tell(lambda: [equal(found) for found in predictor.predict_stream([picture] * 2)])",
        "predictor.close()",
        "tell(lambda: predictor(picture))",
    )
    assert lines[0] == f"{[True] * 8} False"
    assert lines[1] == "(True, True)"
    assert lines[2].startswith("EngineError this stream was started before the process was forked")
    assert lines[3] == "[True, True]"
    assert lines[4].startswith("ClosedError")
    assert lines[5:] == ["ended 0 True True"]


def test_forked_child_that_uses_nothing_ends(onnx_artifact, forked):
    assert forked(onnx_artifact, "pass") == ["ended 0 True True"]
    (text, status) = forked(onnx_artifact, "atexit.register(print, 'cleaned up')", "sys.exit(3)")
    assert (text, status) == ("cleaned up", f"ended {3 << 8} True True")  # as `os.waitpid` gives it


def test_forked_child_refuses_an_artifact_that_was_exchanged(onnx_artifact, forked, tmp_path):
    path = shutil.copy(onnx_artifact, tmp_path / "mine.onnx")
    (message, _) = forked(
        path,
        "from pathlib import Path",
        "from runtime.artifact_files.onnx_file import read_sealed, seal",
        "Path(path).write_bytes(seal(Path(path).read_bytes(), read_sealed(Path(path))))",
        "tell(lambda: predictor(picture))",
    )
    assert message.startswith(f"ArtifactError {path} is no longer the artifact that was opened")


def test_forked_child_refuses_tensorflow(savedmodel_artifact, forked):
    """The parent's predictor, and one that the child opens: both would hang."""
    lines = forked(
        savedmodel_artifact,
        "tell(lambda: predictor(picture))",
        "tell(lambda: Predictor(path, 'cpu'))",
        "predictor.close()",
    )
    for line in lines[:2]:
        assert line.startswith(f"EngineError {savedmodel_artifact} cannot be run in this process")
        assert "'spawn'" in line
    assert lines[2:] == ["ended 0 True True"]


def test_forked_child_refuses_openvino(pytestconfig, forked):
    """The parent's predictor, and one that the child opens: both would hang; one in ONNX Runtime works."""
    pytest.importorskip("runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError)
    path = pytestconfig.rootpath / "maskrcnn" / "demo.onnx"
    lines = forked(
        path,
        "tell(lambda: predictor(picture))",
        "tell(lambda: Predictor(path, 'openvino'))",
        "tell(lambda: len(Predictor(path, 'cpu')(picture)) == len(expected))",
        "predictor.close()",
        "sys.exit(3)",
        device="openvino",
    )
    assert lines[0].startswith(f"EngineError {path} cannot be run in this process, which was forked after device 'open")
    assert lines[1].startswith(f"EngineError {path} cannot be run in this process, which was forked after OpenVINO was")
    assert lines[2:] == ["True", f"ended {3 << 8} True True"]


def found_in(predictor, picture):
    found = predictor(picture)
    return found.boxes, found.scores, found.class_ids, found.mask_probabilities, predictor.device


def test_pool_of_spawned_processes(predictor, picture):
    expected = found_in(predictor, picture)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(found_in, [predictor] * 2, [picture] * 2, timeout=120):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_pickle_holds_how_it_was_opened_and_nothing_else(artifact, picture, monkeypatch):
    monkeypatch.chdir(artifact.parent)
    predictor = Predictor(artifact.name, "auto", score_threshold=0.25, nms_threshold=0.4)
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    copy = pickle.loads(pickled)
    assert copy.path == artifact
    assert (copy.score_threshold, copy.nms_threshold, copy.device) == (0.25, 0.4, predictor.device)
    np.testing.assert_array_equal(copy(picture).boxes, predictor(picture).boxes)
    # Of classes and functions it names only ours, and pathlib's.
    texts = [text for _, text, _ in pickletools.genops(pickled) if isinstance(text, str)]
    assert {text.split(".")[0] for text in texts if text in sys.modules} <= {"runtime", "pathlib"}
    assert pickle.loads(pickle.dumps(copy)).score_threshold == 0.25


def test_options_travel(onnx_artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = EngineOptions(threads=1, cache="cache")
    copy = pickle.loads(pickle.dumps(Predictor(onnx_artifact, "cpu", engine=engine, verify_digest=False)))
    assert copy._engine.opening.engine == EngineOptions(threads=1, cache=tmp_path / "cache")
    assert copy._engine.opening.verify_digest is False


def test_another_artifact_at_the_path_is_refused(artifact, doctored, picture):
    path = doctored()
    predictor = Predictor(path, "cpu")
    pickled = pickle.dumps(predictor)
    assert pickle.loads(pickled).class_names[1] == "square"
    doctored(class_names=["BG", "a", "b", "c"])
    with pytest.raises(ArtifactError, match="is no longer the artifact that was opened") as refused:
        pickle.loads(pickled)
    assert "\n" not in str(refused.value)
    with pytest.raises(ArtifactError, match="is no longer the artifact that was opened"):
        predictor.explain(picture)  # reads the file again
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(ArtifactNotFoundError):
        pickle.loads(pickled)


def test_closed_predictor_is_not_pickled(artifact):
    predictor = Predictor(artifact, "cpu")
    predictor.close()
    with pytest.raises(ClosedError):
        pickle.dumps(predictor)
