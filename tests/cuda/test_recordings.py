"""Recordings: one for each shape, whatever threads there are, and nothing disturbs them."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from cuda_standin import inputs_of

from runtime import EngineOptions, Predictor
from runtime.engines.ort.binding import KEPT_SHAPES
from runtime.errors import ArtifactError

pytestmark = pytest.mark.cuda_standin
SIZES = [(256, 256), (192, 256), (256, 192)]


def recorded(artifacts, **options):
    return Predictor(artifacts / "demo.onnx", "cuda", engine=EngineOptions(cuda_graph=True, **options))


def test_a_replay_takes_the_place_of_the_trunk(log, artifacts):
    predictor, launches = Predictor(artifacts / "demo.onnx", "cuda"), {}
    for name, each in (("plain", predictor), ("recorded", recorded(artifacts))):
        for _ in range(2):
            each.run(*inputs_of(256, 256))
        log.clear()
        each.run(*inputs_of(256, 256))
        launches[name] = log.events.launches.total()
        assert log.events.count("replay") == (name == "recorded")
    assert launches["recorded"] < 0.8 * launches["plain"]


def test_with_nms_in_steps_only_the_proposals_are_not_recorded(log, artifacts):
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda", engine=EngineOptions(cuda_graph=True))
    images, windows = inputs_of(256, 256)
    for _ in range(2):
        predictor.run(images, windows)
    assert log.events.count("refused") == 0
    log.clear()
    predictor.run(images, windows)
    assert log.events.count("replay") == 2
    assert log.events.launches.total() <= 50
    # For the number of proposals, for the end of their run, which gives memory back, and for the results.
    assert log.events.waits == 3
    assert log.events.count("allocate", "device") == 0
    predictor.score_threshold = 0.25  # the recording reads it where it was
    log.clear()
    predictor.run(images, windows)
    assert log.events.copies("htod") == [256 * 256 * 3, 4]
    assert log.events.count("begin-recording") == 0


def test_one_recording_for_each_size_from_eight_threads(log, artifacts):
    predictor = recorded(artifacts)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: predictor.run(*inputs_of(*SIZES[number % 3])), range(200)))
    assert log.events.count("begin-recording") == 3
    assert log.events.count("refused") == 0
    assert len(log.events.threads("replay")) <= 3  # of one session for each size


def test_new_threads_do_not_record_again(log, artifacts):
    predictor = recorded(artifacts)
    for _ in range(5):
        thread = threading.Thread(target=predictor.run, args=inputs_of(256, 256))
        thread.start()
        thread.join()
    list(predictor.predict_stream([]))
    assert log.events.count("begin-recording") == 1


def test_the_ninth_size_runs_without_a_recording(log, artifacts):
    predictor = recorded(artifacts, gpu_memory_limit=2**30)  # one session for all sizes
    sizes = [(64 * row, 64) for row in range(1, KEPT_SHAPES + 2)]
    for _ in range(3):
        for size in sizes:
            predictor.run(*inputs_of(*size))
    assert log.events.count("begin-recording") == KEPT_SHAPES
    log.clear()
    predictor.run(*inputs_of(*sizes[0]))
    assert log.events.count("replay") == 1
    predictor.run(*inputs_of(*sizes[-1]))
    assert log.events.count("replay") == 1
    assert log.events.count("allocate", "pinned") == 0  # its tensors are kept


def test_other_work_of_the_process_waits_for_a_recording(log, artifacts):
    predictor, stop, failures = Predictor(artifacts / "demo.onnx", "cuda"), threading.Event(), []

    def disturb():
        side = 0
        while not stop.is_set():
            side = side % 9 + 1
            try:
                predictor.run(*inputs_of(64 * side, 64))  # allocates and copies
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                failures.append(error)
                return

    threads = [threading.Thread(target=disturb) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            for size in SIZES:
                recorded(artifacts).run(*inputs_of(*size))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert log.events.count("begin-recording") >= 9
    assert log.events.count("refused") == 0


def test_a_recording_that_fails_is_made_again(log, artifacts, monkeypatch):
    predictor = recorded(artifacts)
    monkeypatch.setenv("CUDA_STANDIN_MEMORY", "1")
    with pytest.raises(MemoryError):
        predictor.run(*inputs_of(256, 256))
    monkeypatch.delenv("CUDA_STANDIN_MEMORY")
    for _ in range(2):
        predictor.run(*inputs_of(256, 256))
    log.clear()
    predictor.run(*inputs_of(256, 256))
    assert log.events.count("replay") == 1


def close(predictor):
    predictor.close()


def drop(predictor):
    predictor.itself = predictor  # only the garbage collector finds it
    del predictor
    gc.collect()


@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}], ids=str)
@pytest.mark.parametrize("end", [close, drop])
def test_memory_that_is_freed_during_a_recording_does_not_spoil_it(log, artifacts, monkeypatch, tmp_path, end, options):
    other = [Predictor(artifacts / "demo-cuda.onnx", "cuda", engine=EngineOptions(**options))]
    other[0].run(*inputs_of(256, 256))
    predictor = recorded(artifacts)
    hold = tmp_path / "hold"
    hold.touch()
    monkeypatch.setenv("CUDA_STANDIN_HOLD", str(hold))
    log.clear()
    thread = threading.Thread(target=predictor.run, args=inputs_of(256, 256))
    thread.start()
    while not log.events.count("begin-recording"):
        time.sleep(0.001)
    end(other.pop())
    assert log.events.count("end-recording") == log.events.count("free") == 0
    hold.unlink()
    thread.join()
    assert log.events.count("refused") == 0
    assert log.events.count("free", "device") > 0
    log.clear()
    predictor.run(*inputs_of(256, 256))
    assert log.events.count("replay") == 1


def test_a_stream_is_on_the_device_of_its_sessions_in_any_thread(log, artifacts):
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda:1", engine=EngineOptions(cuda_graph=True))
    log.clear()
    in_new_thread = threading.Thread(target=predictor.run, args=inputs_of(256, 256, 2))
    in_new_thread.start()
    in_new_thread.join()
    assert log.events.count("begin-recording") == 2
    assert {device for (device,) in log.events.of("create-stream")} == {"1"}


def test_a_stream_is_freed_after_the_sessions_that_use_it_also_if_another_cannot_be_opened(log, artifacts, monkeypatch):
    refuse = ArtifactError("no inputs")
    monkeypatch.setattr("runtime.engines.ort.gpu_sessions.check_graph_inputs", Mock(side_effect=refuse))
    with pytest.raises(ArtifactError):
        Predictor(artifacts / "demo-cuda.onnx", "cuda", engine=EngineOptions(cuda_graph=True))
    freed = [words for _, *words in log.events.lines if words[0] in ("free", "destroy-stream")]
    assert freed[-1] == ["destroy-stream"]
