"""A run on CUDA: what is copied, how often the host waits, what is allocated, and what reaches the terminal."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cuda_standin import inputs_of

from runtime import EngineOptions, Predictor

pytestmark = pytest.mark.cuda_standin
PLAIN, RECORDED = {}, {"cuda_graph": True}


def warm(predictor, log, batch=1):
    for _ in range(2):
        predictor.run(*inputs_of(256, 256, batch))
    log.clear()


@pytest.mark.parametrize("options", [PLAIN, RECORDED], ids=["plain", "recorded"])
@pytest.mark.parametrize("name", ["demo", "demo-cuda", "demo-fp16"])
def test_images_go_up_once_and_outputs_come_down_once(log, artifacts, name, options):
    predictor = Predictor(artifacts / f"{name}.onnx", "cuda", engine=EngineOptions(**options))
    warm(predictor, log)
    predictor.run(*inputs_of(256, 256))
    events = log.events
    how_up = "queued" if options else "blocking"
    assert events.of("copy", "htod") == [(str(256 * 256 * 3), how_up, "pinned")]
    down = Counter(int(size) for size, *how in events.of("copy", "dtoh") if how == ["queued", "pinned"])
    assert down - Counter([4, 4, 50 * 4, 50 * 4, 50 * 4 * 4, 50 * 28 * 28 * 4]) == Counter()  # 4: a count of the graph
    assert down.total() >= 5
    assert not events.of("wait", "device")
    blocking = [words for direction in ("htod", "dtoh", "dtod") for words in events.of("copy", direction)]
    assert sum(words[1] == "blocking" for words in blocking) == (how_up == "blocking")
    assert events.count("allocate", "pinned") == 0


@pytest.mark.parametrize("options", [PLAIN, RECORDED], ids=["plain", "recorded"])
@pytest.mark.parametrize("name", ["demo", "demo-cuda", "demo-fp16"])
def test_results_are_read_when_they_are_complete(log, artifacts, name, options):
    """Until the host has waited for the stream, the stand-in's results are NaN and -1; then they are zeros."""
    predictor = Predictor(artifacts / f"{name}.onnx", "cuda", engine=EngineOptions(**options))
    images, windows = inputs_of(256, 256)
    for value in range(4):  # recorded and replayed
        found = predictor.run(images + np.uint8(value), windows)
        assert not any(array.any() for array in found.values())
    assert log.events.count("changed") == 0  # images of a run were not overwritten by those of the next


def test_the_parts_of_a_recorded_run_are_on_one_stream(log, artifacts):
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda", engine=EngineOptions(**RECORDED))
    warm(predictor, log)
    predictor.run(*inputs_of(256, 256))
    replays = log.events.of("replay")
    assert len(replays) == 2
    assert len({stream for *_, stream in replays}) == 1
    assert log.events.lines[-1][1:] == ("wait", "stream")


def test_inputs_that_change_are_copied_again(log, artifacts):
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda")
    warm(predictor, log)
    images, windows = inputs_of(256, 256)
    predictor.run(images, windows - 1)
    assert 16 in log.events.copies("htod")
    log.clear()
    predictor.run(images, windows - 1)
    assert 16 not in log.events.copies("htod")
    predictor.score_threshold, before = 0.125, log.events.copies("htod").count(4)
    predictor.run(images, windows - 1)
    assert log.events.copies("htod").count(4) == before + 1


@pytest.mark.parametrize("name", ["demo", "demo-cuda", "demo-fp16"])
def test_everything_runs_on_the_device(log, artifacts, name):
    placement = Predictor(artifacts / f"{name}.onnx", "cuda").explain()
    nodes = Counter()
    for (provider, _), count in placement.counts.items():
        nodes[provider] += count
    assert nodes["CPUExecutionProvider"] <= 10
    assert nodes["CUDAExecutionProvider"] > 300
    assert not [operator for _, operator in placement.counts if operator.startswith("Memcpy")]


def test_four_batch_sizes_have_a_session_each(log, artifacts, monkeypatch):
    import onnxruntime as ort

    real, opened = ort.InferenceSession, []

    def record(*arguments, **options):
        opened.append(real(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(ort, "InferenceSession", record)
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda")
    for batch in (2, 3, 4, 1, 2, 5, 1, 2, 4, 3):  # 5 drives out 3, which was used longest ago
        predictor.run(*inputs_of(256, 256, batch))
    batches = [session.get_inputs()[0].shape[0] for session in opened[1:]]  # after the one of the probe
    assert batches == [1, 2, 3, 4, 5, 3]


@pytest.mark.parametrize("options", [PLAIN, RECORDED], ids=["plain", "recorded"])
def test_memory_of_sessions_that_are_given_up_is_freed(log, artifacts, options):
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda", engine=EngineOptions(**options))

    held = []
    for batch in (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4):
        predictor.run(*inputs_of(256, 256, batch))
        held.append(log.events.held("device"))
    assert held[3] > 3 * held[0] / 2
    assert held[-1] < 1.1 * held[3]  # the sessions of the same four batch sizes
    predictor.close()
    # Tensors that we allocate come from a pool of ONNX Runtime that lives as long as the process.
    assert log.events.held("device") < 16 * 2**20
    assert log.events.held("pinned") < 2**20


@pytest.mark.parametrize("options", [PLAIN, RECORDED], ids=["plain", "recorded"])
def test_the_limit_holds_for_the_memory_of_a_session(log, artifacts, options):
    limit = 256 * 2**20
    predictor = Predictor(artifacts / "demo.onnx", "cuda", engine=EngineOptions(gpu_memory_limit=limit, **options))
    for side in (256, 320, 384):
        predictor.run(*inputs_of(side, side))
    sizes = [int(size) for (size,) in log.events.of("allocate", "device")]
    assert 2**22 < sum(sizes) < (2 if options else 1) * limit + 2**22  # of each part; images and probes are outside


@pytest.mark.parametrize("options", [PLAIN, RECORDED], ids=["plain", "recorded"])
def test_weights_are_on_the_device_once(log, artifacts, options):
    log.clear()
    predictor = Predictor(artifacts / "demo.onnx", "cuda", engine=EngineOptions(**options))
    weights = (artifacts / "demo.onnx").stat().st_size
    assert sum(log.events.copies("htod")) < 1.2 * weights
    assert predictor.device == "cuda:0"


@pytest.mark.parametrize("options", [PLAIN, RECORDED], ids=["plain", "recorded"])
def test_nothing_is_printed(log, artifacts, options, capfd, monkeypatch):
    predictor = Predictor(artifacts / "demo-fp16.onnx", "cuda", engine=EngineOptions(**options))
    for side in (256, 192, 256):
        predictor.run(*inputs_of(side, side) if side == 256 else inputs_of(256, 256, 2))
    predictor.explain()
    monkeypatch.setenv("CUDA_STANDIN_MEMORY", "1")
    with pytest.raises(MemoryError):
        predictor.run(*inputs_of(256, 256, 3))
    with pytest.raises(RuntimeError, match="Invalid device ID"):
        Predictor(artifacts / "demo-fp16.onnx", "cuda:7")
    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_speaks_again_afterwards_and_to_those_who_debug(log, artifacts, capfd):
    import onnxruntime as ort

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    Predictor(artifacts / "demo.onnx", "cuda")
    assert capfd.readouterr().err == ""
    ort.InferenceSession(str(artifacts / "demo.onnx"), providers=providers)
    assert "ScatterND with reduction" in capfd.readouterr().err
    logger = logging.getLogger("runtime.engines.ort.cuda_work")
    logger.setLevel(logging.DEBUG)
    try:
        Predictor(artifacts / "demo.onnx", "cuda")
    finally:
        logger.setLevel(logging.NOTSET)
    assert "ScatterND with reduction" in capfd.readouterr().err


def test_threads_have_tensors_of_their_own(log, artifacts):
    predictor = Predictor(artifacts / "demo-cuda.onnx", "cuda")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: predictor.run(*inputs_of(256, 256)), range(40)))
    assert 1 <= log.events.count("allocate", "pinned") / 6 <= 5  # images and five outputs; 4 threads
    assert not any(np.shares_memory(found[0]["masks"], other["masks"]) for other in found[1:])


@pytest.mark.parametrize(
    ("options", "most_launches", "replays", "most_waits"),
    [(PLAIN, 340, 0, 6), (RECORDED, 50, 2, 3)],
    ids=["plain", "recorded"],
)
@pytest.mark.parametrize("name", ["demo-cuda", "demo-fp16"])
def test_a_run_hardly_waits_and_allocates_nothing(log, artifacts, name, options, most_launches, replays, most_waits):
    predictor = Predictor(artifacts / f"{name}.onnx", "cuda", engine=EngineOptions(**options))
    warm(predictor, log)
    predictor.run(*inputs_of(256, 256))
    events = log.events
    assert events.launches.total() <= most_launches
    assert events.count("replay") == replays
    assert events.waits <= most_waits
    assert events.count("allocate") == events.count("free") == 0
    assert not [kernel for kernel in events.launches if "Sub<double" in kernel or "OP_SubIdd" in kernel]
