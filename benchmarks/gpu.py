"""An artifact on a GPU, beside torchvision: one file that needs Python, NumPy and onnxruntime-gpu, not this project.

    python gpu.py r50.npz r50-fp16.npz --torchvision --predictor -o results.json

Takes artifacts (`.onnx`) and skeletons (`.npz`, see skeleton.py), whose weights are computed here, bit for bit. Without
any, it takes those beside it. An `onnxruntime.tar.xz` beside it (see gpu_bundle.py) is used instead of what is
installed.
`--predictor` also measures `Predictor` on the artifacts, if the project's folder `runtime` is beside this file. Steps
follow one another, each with the device to itself. The JSON is written after each step, so it has what was measured
before one fails, or before `--seconds` are over. `--device cpu` runs all that needs no GPU.

Exit codes: 0 done, 2 wrong arguments, 3 an artifact cannot be used, 4 the device or a package is missing, 5 the
device's detections differ from the CPU's, 6 a step failed or there was no time for it.
"""

import argparse
import atexit
import contextlib
import copy
import functools
import gc
import hashlib
import importlib.util
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import traceback
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

BAD_INPUT, NO_DEVICE, DIFFERENT, INCOMPLETE = 3, 4, 5, 6
WARM_UP = 3  # runs of each case before it is timed; an engine chooses its algorithms in them
ENGINE_ARCHIVE, ENGINE_FOLDER = "onnxruntime.tar.xz", "MASKRCNN_GPU_ENGINE"  # a file; a variable of the environment
Arrays = dict[str, np.ndarray]


class Failure(Exception):  # noqa: N818 - it carries an exit code
    """What the user is told in one line, with the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- Weights ---------------------------------------------------------------------------------------------------------

_ONE = 1 << 24
_ONNX_TYPES = {"float32": 1, "float16": 10}


def load(path: Path) -> bytes:
    """A serialised `ModelProto`: an artifact as it is, or a skeleton with its weights filled in.

    Raises:
        Failure: It cannot be read, or the weights are not those the skeleton was made from.
    """
    try:
        if path.suffix != ".npz":
            return path.read_bytes()
        with np.load(path) as archive:
            recipe = json.loads(archive["recipe"].tobytes())
            graph, factors = archive["graph"].tobytes(), archive["factors"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Failure(BAD_INPUT, f"{path} cannot be read: {first_line(error)}") from error
    digest, initializers = hashlib.sha256(), bytearray()
    for entry in recipe["tensors"]:
        array = weight(entry, factors)
        digest.update(array.tobytes())
        initializers += _field(5, _initializer(entry["name"], array))
    if digest.hexdigest() != recipe["sha256"]:
        raise Failure(BAD_INPUT, f"{path}: the weights computed here have another SHA-256: make the skeleton again")
    # Protocol buffers concatenate: a second graph field adds its initializers to those of the first.
    return graph + _field(7, bytes(initializers))


def weight(entry: dict[str, Any], factors: np.ndarray) -> np.ndarray:
    """One tensor: a seeded kernel, laid out anew, multiplied by a factor per row, rounded."""
    kernel = (kernel_base(entry) * entry["limit"]).astype(np.float32).transpose(entry["layout"])
    begin, end = entry["factors"]
    if end > begin:
        kernel = kernel.reshape(end - begin, -1).astype(np.float64) * factors[begin:end, None]
        kernel = kernel.astype(np.float32)  # as it was before it became half precision
    return np.ascontiguousarray(kernel.astype(entry["dtype"]).reshape(entry["dims"]))


def kernel_base(entry: dict[str, Any]) -> np.ndarray:
    """Integers of a named random stream between -1 and 1, less their mean where the layer is centred; float64."""
    shape, fan_in = entry["shape"], tuple(entry["fan_in"])
    raw = np.random.PCG64(entry["stream"]).random_raw(math.prod(shape)) >> np.uint64(40)
    integers = (2 * raw.astype(np.int64) - (_ONE - 1)).reshape(shape)
    if not entry["centred"]:
        return integers / _ONE
    size = math.prod(shape[axis] for axis in fan_in)
    return (integers * size - integers.sum(axis=fan_in, keepdims=True)) / (float(size) * _ONE)


def _initializer(name: str, array: np.ndarray) -> bytes:
    """An encoded `TensorProto`."""
    dims = b"".join(_varint(1 << 3) + _varint(size) for size in array.shape)
    kind = _varint(2 << 3) + _varint(_ONNX_TYPES[array.dtype.name])
    return dims + kind + _field(8, name.encode()) + _field(9, array.tobytes())


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


# --- Sessions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """Where things run, and how.

    Attributes:
        kind: "cpu" or "cuda".
        index: Of the CUDA device.
        options: Of the CUDA provider.
        fixed: Whether ONNX Runtime is told the sizes of its inputs, so that it can compute all that hangs on them
            (anchors among it) when it opens the file.
    """

    kind: str
    index: int = 0
    options: dict[str, str] = field(default_factory=dict)
    fixed: bool = False


def open_session(content: bytes, device: Device, pictures: np.ndarray, profile: str = "") -> tuple[Any, Arrays]:
    """A session that is where it was asked to be, and what to feed it.

    Raises:
        Failure: The device cannot be used, or ONNX Runtime refuses the graph.
    """
    ort, settings = engine(), quiet_settings()
    settings.enable_profiling = bool(profile)
    settings.profile_file_prefix = profile or "profile"
    if device.fixed:
        for name, size in zip(("batch", "height", "width"), pictures.shape, strict=False):
            settings.add_free_dimension_override_by_name(name, size)
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.kind == "cuda":
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise Failure(NO_DEVICE, f"onnxruntime {ort.__version__} is a build without CUDA: install onnxruntime-gpu")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": str(device.index), **device.options}))
    try:
        session = ort.InferenceSession(content, settings, providers=providers, enable_fallback=0)
    except Exception as error:  # its exceptions have no common base
        code = NO_DEVICE if device.kind == "cuda" and "CUDA" in str(error) else BAD_INPUT
        raise Failure(code, f"onnxruntime {ort.__version__} opens no session: {first_line(error)}") from error
    if device.kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        # ONNX Runtime only logs when the CUDA libraries do not load, and goes on with the CPU.
        raise Failure(NO_DEVICE, f"the CUDA libraries of onnxruntime {ort.__version__} cannot be loaded")
    return session, make_feeds(session, pictures)


def quiet_settings() -> Any:
    """Session options without messages: errors are exceptions, too."""
    settings = engine().SessionOptions()
    settings.log_severity_level = 4
    return settings


@functools.cache
def carried_engine() -> Path | None:
    """The folder of the ONNX Runtime that was carried here, unpacked for this process and those that it starts."""
    archive = Path(__file__).with_name(ENGINE_ARCHIVE)
    if not archive.exists() or ENGINE_FOLDER in os.environ:
        return Path(os.environ[ENGINE_FOLDER]) if ENGINE_FOLDER in os.environ else None
    folder = Path(tempfile.mkdtemp(prefix="onnxruntime-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    nvidia = importlib.util.find_spec("nvidia")  # the folder of CUDA's libraries, as torch's wheels bring them
    if nvidia is not None and nvidia.submodule_search_locations:
        (folder / "nvidia").symlink_to(next(iter(nvidia.submodule_search_locations)))
    os.environ[ENGINE_FOLDER] = str(folder)
    return folder


def engine() -> Any:
    """ONNX Runtime, with the CUDA libraries that pip installed beside it."""
    folder = carried_engine()
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        import onnxruntime as ort  # noqa: PLC0415 - so that its absence is one line
    except ImportError as error:
        raise Failure(NO_DEVICE, f"onnxruntime cannot be imported ({error}): pip install onnxruntime-gpu") from error
    if hasattr(ort, "preload_dlls") and "CUDAExecutionProvider" in ort.get_available_providers():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls(directory="")
    ort.set_default_logger_severity(4)  # it warns at each opening, and of each algorithm that cuDNN does not offer
    return ort


def first_line(error: object) -> str:
    """Of a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def metadata(session: Any) -> dict[str, Any]:
    """What an artifact says about itself."""
    return json.loads(session.get_modelmeta().custom_metadata_map.get("maskrcnn", "{}"))


def make_feeds(session: Any, pictures: np.ndarray) -> Arrays:
    """Inputs of an artifact, or of a part of one; score 0 keeps every detection there is."""
    count, height, width, _ = pictures.shape
    known = {
        "images": pictures,
        "windows": np.tile(np.array([0, 0, height, width], np.float32), (count, 1)),
        "score_threshold": np.array(0, np.float32),
        "nms_threshold": np.array(metadata(session).get("nms_threshold", 0.5), np.float32),
    }
    unknown = [value.name for value in session.get_inputs() if value.name not in known]
    if unknown:
        raise Failure(BAD_INPUT, f"the graph has an input {unknown[0]!r}: expected an artifact of maskrcnn-export")
    return {value.name: known[value.name] for value in session.get_inputs()}


def make_pictures(count: int, size: int) -> np.ndarray:
    """Overlapping coloured rectangles on a gradient, each picture another; uint8 [count, size, size, 3]."""
    random = np.random.default_rng(0)
    ramp = np.linspace(40, 200, size)
    picture = np.stack([ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], (ramp[:, None] + ramp) / 2], axis=-1)
    for _ in range(60):
        top, left = random.integers(0, size, 2)
        height, width = random.integers(size // 32, size // 3, 2)
        picture[top : top + height, left : left + width] = random.integers(0, 256, 3)
    picture = (picture + random.normal(0, 8, picture.shape)).clip(0, 255).astype(np.uint8)
    return np.stack([np.roll(picture, 37 * row, axis=(0, 1)) for row in range(count)])


def run(session: Any, feeds: Arrays) -> Arrays:
    """Outputs by name."""
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


class Bound:
    """Inputs and outputs that stay on the device, at the same addresses in every run."""

    def __init__(self, session: Any, feeds: Arrays, device: Device, like: Arrays) -> None:
        value, place = engine().OrtValue, (device.kind, device.index)
        self._session, self._binding = session, session.io_binding()
        # Suppression may read thresholds on the host. ONNX Runtime copies scalars where they are needed.
        self.inputs = {
            name: value.ortvalue_from_numpy(array, *(place if array.ndim else ("cpu", 0)))
            for name, array in feeds.items()
        }
        self.outputs = {
            name: value.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, *place)
            for name, array in like.items()
        }
        for name, tensor in self.inputs.items():
            self._binding.bind_ortvalue_input(name, tensor)
        for name, tensor in self.outputs.items():
            self._binding.bind_ortvalue_output(name, tensor)

    def __call__(self) -> None:
        """Run, and wait until the device is done."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def fetch(self) -> Arrays:
        """Outputs in host memory."""
        return {name: tensor.numpy() for name, tensor in self.outputs.items()}


# --- Masks -----------------------------------------------------------------------------------------------------------


def lerp(begin: Any, end: Any, pixels: Any, cells: Any) -> Any:
    """Bilinear weights [N, P, M] of mask cells at pixel centres; zero outside the box. NumPy or torch."""
    inside = (pixels + 0.5 - begin[:, None]) / (end - begin).clip(1e-3, 1e9)[:, None]
    place = (inside * len(cells) - 0.5).clip(0, len(cells) - 1)
    return (1 - abs(place[..., None] - cells)).clip(0, 1) * ((inside >= 0) & (inside <= 1))[..., None]


def run_lengths(boxes: np.ndarray, masks: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """COCO's counts of each mask: run lengths over columns, beginning with zeros. No bitmap is made."""
    counts, cells = [], np.arange(masks.shape[-1], dtype=np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        left, top = np.clip(np.floor(box[:2]), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(box[2:]), (left, top), (width, height)).astype(int)
        columns = lerp(box[:1], box[2:3], np.arange(left, right, dtype=np.float32), cells)[0]
        rows = lerp(box[1:2], box[3:], np.arange(top, bottom, dtype=np.float32), cells)[0]
        # A zero above and below each column, so that runs end with it.
        crop = np.zeros((right - left, bottom - top + 2), bool)
        crop[:, 1:-1] = columns @ mask.T @ rows.T >= 0.5
        column, row = np.divmod(np.flatnonzero(np.diff(crop.ravel())) + 1, crop.shape[1])
        edges = (left + column) * height + top + row - 1
        meets = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1  # a column's end and the next one's begin
        edges = np.delete(edges, [meets, meets + 1])
        lengths = np.diff(np.concatenate([[0], edges, [height * width]]))
        counts.append(lengths[:-1] if lengths[-1] == 0 else lengths)
    return counts


def bitmaps(torch: Any, boxes: np.ndarray, masks: np.ndarray, height: int, width: int, device: str) -> Any:
    """The same masks as bool [N, H, W] on a torch device, by two batched matrix products."""
    corners, cells = torch.from_numpy(boxes).to(device), torch.arange(masks.shape[-1], device=device).float()
    vertical = lerp(corners[:, 1], corners[:, 3], torch.arange(height, device=device).float(), cells)
    horizontal = lerp(corners[:, 0], corners[:, 2], torch.arange(width, device=device).float(), cells)
    return vertical @ torch.from_numpy(masks).to(device) @ horizontal.transpose(1, 2) >= 0.5


# --- Cases -----------------------------------------------------------------------------------------------------------

NETWORK, ON_DEVICE, ON_HOST = "network", "to bitmaps on the device", "to masks on the host"


@dataclass
class Case:
    """Something to time: what of whom, on how many pictures, where it begins and ends."""

    model: str
    how: str
    end: str
    batch: int
    call: Callable[[], Any]
    times: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """JSON-ready; milliseconds per call."""
        p50, p90, p99 = (1000 * float(value) for value in np.percentile(self.times, (50, 90, 99)))
        names = {"model": self.model, "how": self.how, "end": self.end, "batch": self.batch}
        return names | {"p50": p50, "p90": p90, "p99": p99, "images_per_second": 1000 * self.batch / p50}


def measure(cases: Sequence[Case], runs: int) -> None:
    """Time all cases in turns, so that what else the machine does touches them alike."""
    for number in range(WARM_UP + runs):
        for case in cases:
            begin = perf_counter()
            case.call()
            if number >= WARM_UP:
                case.times.append(perf_counter() - begin)


def time_ours(
    model: str, content: bytes, device: Device, pictures: np.ndarray, torch: Any, runs: int
) -> list[dict[str, Any]]:
    """Time the graph from NumPy to NumPy and with bound tensors; and, of a whole artifact, from picture to masks.

    The session is gone afterwards, and with it its memory on the device.
    """
    session, feeds = open_session(content, device, pictures)
    like, batch = run(session, feeds), len(pictures)
    bound = Bound(session, feeds, device, like)
    cases = [
        Case(model, "arrays", "network, arrays in and out", batch, lambda: run(session, feeds)),
        Case(model, "bound", NETWORK, batch, bound),
    ]
    size = pictures.shape[1:3]

    def detections() -> list[tuple[np.ndarray, np.ndarray]]:
        bound.inputs["images"].update_inplace(pictures)
        bound()
        found = bound.fetch()
        return [(found["boxes"][row, :n], found["masks"][row, :n]) for row, n in enumerate(found["num_detections"])]

    def to_bitmaps() -> None:
        _ = [bitmaps(torch, boxes, masks, *size, torch_place(device)) for boxes, masks in detections()]
        synchronize(torch, device)

    def to_lengths() -> None:
        _ = [run_lengths(*each, *size) for each in detections()]

    if "masks" in like:
        cases.append(Case(model, "NumPy run lengths", ON_HOST, batch, to_lengths))
        if torch is not None:
            cases.append(Case(model, "torch pastes", ON_DEVICE, batch, to_bitmaps))
    measure(cases, runs)
    return [case.summary() for case in cases]


def torch_place(device: Device) -> str:
    """The device as torch calls it."""
    return f"cuda:{device.index}" if device.kind == "cuda" else "cpu"


def synchronize(torch: Any, device: Device) -> None:
    """Wait for the device."""
    if device.kind == "cuda":
        torch.cuda.synchronize(device.index)


# --- What is looked at beside time -----------------------------------------------------------------------------------


def compare(ours: Arrays, reference: Arrays) -> dict[str, Any]:
    """Worst differences over rows of the same class that overlap most; of a part of a graph, relative ones."""
    if "masks" not in ours:
        return {
            name: float(np.abs(ours[name] - array).max() / max(np.abs(array).max(), 1e-30))
            for name, array in reference.items()
        }
    counts = int(ours["num_detections"][0]), int(reference["num_detections"][0])
    first, second = (
        {name: array[0, :count] for name, array in found.items() if name != "num_detections"}
        for found, count in zip((ours, reference), counts, strict=True)
    )
    overlap = iou(first["boxes"], second["boxes"]) * (first["class_ids"][:, None] == second["class_ids"])
    pairs = []
    while overlap.size and overlap.max() > 0.5:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((row, column))
        overlap[row], overlap[:, column] = 0, 0
    rows, columns = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    worst = {
        name: float(np.abs(first[name][rows] - second[name][columns]).max(initial=0))
        for name in ("boxes", "scores", "masks")
    }
    return {"detections": counts[0], "reference": counts[1], "matched": len(pairs), **worst}


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union [N, M] of x1, y1, x2, y2."""
    low, high = (choose(first[:, None, part], second[:, part]) for choose, part in _CORNERS)
    shared = (high - low).clip(0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)


_CORNERS = ((np.maximum, slice(0, 2)), (np.minimum, slice(2, 4)))


def placement(content: bytes, device: Device, pictures: np.ndarray) -> dict[str, Any]:
    """Nodes and milliseconds from the profile of the last of several runs.

    "Shape arithmetic" are nodes on the CPU whose outputs have at most 64 elements, as shapes and their parts have.
    """
    with tempfile.TemporaryDirectory() as folder:
        session, feeds = open_session(content, device, pictures, str(Path(folder) / "profile"))
        for _ in range(WARM_UP + 1):
            run(session, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    begin = [event["ts"] for event in events if event.get("name") == "model_run"][-1]
    nodes = [e for e in events if e.get("cat") == "Node" and e["args"].get("provider") and e["ts"] >= begin]
    counts: Counter[str] = Counter()
    milliseconds: defaultdict[str, float] = defaultdict(float)
    large, copies, before = [], [], "the inputs"
    for event in sorted(nodes, key=lambda each: each["ts"]):
        facts, name = event["args"], event["name"].removesuffix("_kernel_time")
        counts[facts["provider"]] += 1
        milliseconds[facts["op_name"]] += event["dur"] / 1000
        shapes = [shape for output in facts.get("output_type_shape", []) for shape in output.values()]
        if facts["op_name"].startswith("Memcpy"):
            copies.append(f"{facts['op_name']} {shapes} after {before}")
            continue
        before = name
        if (
            device.kind == "cuda"
            and facts["provider"] == "CPUExecutionProvider"
            and any(math.prod(shape) > 64 for shape in shapes)
        ):
            large.append(f"{facts['op_name']} {name} {shapes}")
    by_time = sorted(milliseconds.items(), key=lambda row: -row[1])
    return {"nodes": dict(counts), "copies": copies, "large_on_cpu": large, "milliseconds": dict(by_time)}


def graph_attempt(content: bytes, device: Device, pictures: np.ndarray, runs: int) -> dict[str, Any]:
    """Time an artifact bound, with and without a CUDA graph.

    To be called in a process of its own: what breaks while a graph is captured can break the device's context.
    """
    if device.kind != "cuda":
        raise Failure(NO_DEVICE, "a CUDA graph needs a CUDA device")
    session, feeds = open_session(content, device, pictures)
    like = run(session, feeds)
    capturing = replace(device, options={**device.options, "enable_cuda_graph": "1"})
    captured, _ = open_session(content, capturing, pictures)
    pair = [Bound(each, feeds, device, like) for each in (session, captured)]
    names = ("bound", "CUDA graph")
    cases = [Case("", how, NETWORK, len(pictures), call) for how, call in zip(names, pair, strict=True)]
    measure(cases, runs)
    return {"cases": [case.summary() for case in cases], "difference": compare(pair[1].fetch(), like)}


def ask_gpu(device: Device) -> dict[str, str]:
    """Name, driver and memory in use as nvidia-smi tells them; {} without it."""
    query = "name,driver_version,memory.total,memory.used"
    command = ["nvidia-smi", f"--id={device.index}", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(query.split(","), answer.stdout.strip().split(", "), strict=False))


# --- The peer --------------------------------------------------------------------------------------------------------


def peer_package() -> Any:
    """The torch module.

    Raises:
        Failure: torch or torchvision cannot be used.
    """
    try:
        import torch  # noqa: PLC0415 - the peer is optional
        import torchvision  # noqa: PLC0415

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        raise Failure(NO_DEVICE, f"torchvision cannot be used: {first_line(error)}") from error
    return torch


class Peer:
    """torchvision's Mask R-CNN with random weights, and the ways it is run.

    Its batch norms are `BatchNorm2d`, which cuDNN computes, not the slower frozen ones that come with its weights.
    """

    def __init__(self, torch: Any, picture: np.ndarray, device: Device) -> None:
        import torchvision  # noqa: PLC0415

        self._torch, self._device, size = torch, device, picture.shape[1]
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        build = torchvision.models.detection.maskrcnn_resnet50_fpn
        model = build(weights=None, weights_backbone=None, num_classes=91, min_size=size, max_size=size)
        self._model = model.eval().to(torch_place(device))
        with torch.inference_mode():
            self.proposals = calibrate(torch, self._model, self._prepare(picture))
        self._half = torch.float16 if device.kind == "cuda" else torch.bfloat16
        half = str(self._half).removeprefix("torch.")
        # By name: whether it is channels-last in half precision, TF32 is allowed, and the backbone is compiled.
        self.ways = {"eager float32": (False, False, False), "eager, TF32 allowed": (False, True, False)}
        self.ways |= {
            f"channels-last {half}": (True, True, False),
            f"compiled, channels-last {half}": (True, True, True),
        }

    def _prepare(self, pictures: np.ndarray) -> list[Any]:
        tensors = self._torch.from_numpy(pictures).to(torch_place(self._device))
        return list(tensors.permute(0, 3, 1, 2).float() / 255)

    def time(self, way: str, pictures: np.ndarray, runs: int) -> tuple[list[dict[str, Any]], int]:
        """Time one way up to the three ends; also returns the number of detections of a picture."""
        torch, (half, tf32, compiled) = self._torch, self.ways[way]
        network = copy.deepcopy(self._model).to(memory_format=torch.channels_last) if half else self._model
        if compiled:
            network.backbone = torch.compile(network.backbone)
        paste, ready = type(network.transform).postprocess.__get__(network.transform), self._prepare(pictures)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32

        def forward(end: str) -> list[Any]:
            network.transform.postprocess = (lambda result, *_: result) if end == NETWORK else paste
            given = ready if end == NETWORK else self._prepare(pictures)
            with torch.inference_mode(), torch.autocast(self._device.kind, dtype=self._half, enabled=half):
                masks = [found["masks"] for found in network(given)]
                masks = masks if end == NETWORK else [each > 0.5 for each in masks]
            masks = [each.cpu() for each in masks] if end == ON_HOST else masks
            synchronize(torch, self._device)
            return masks

        ends = (NETWORK, ON_DEVICE, ON_HOST)
        cases = [Case("torchvision", way, end, len(pictures), functools.partial(forward, end)) for end in ends]
        measure(cases, runs)
        return [case.summary() for case in cases], len(forward(NETWORK)[0])


def calibrate(torch: Any, model: Any, images: list[Any]) -> int:
    """Scale random weights until 1000 proposals survive and 500 (row, class) pairs pass 0.05, so 100 detections.

    Residual branches end small, objectness has a standard deviation of 2, deltas small ones; class logits are centred,
    and the background's bias is bisected. Returns the number of proposals.
    """
    for name, layer in model.backbone.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(layer.weight, 0.3)

    def spread(layer: Any, inputs: list[Any], wanted: float) -> None:
        values = torch.cat([layer(each).transpose(0, 1).flatten(1) for each in inputs], 1)  # [channels, anything]
        mean = values.mean(1)
        factor = wanted / (values - mean[:, None]).std()
        layer.weight.mul_(factor)
        layer.bias.copy_((layer.bias - mean) * factor)

    batch, _ = model.transform(images)
    features = model.backbone(batch.tensors)
    hidden = [model.rpn.head.conv(each) for each in features.values()]
    spread(model.rpn.head.cls_logits, hidden, 2.0)
    spread(model.rpn.head.bbox_pred, hidden, 0.1)
    proposals, _ = model.rpn(batch, features)
    heads = model.roi_heads
    rows = heads.box_head(heads.box_roi_pool(features, proposals, batch.image_sizes))
    spread(heads.box_predictor.cls_score, [rows], 2.0)
    spread(heads.box_predictor.bbox_pred, [rows], 0.5)
    logits, low, high = heads.box_predictor.cls_score(rows), 0.0, 40.0
    for _ in range(40):
        middle = (low + high) / 2
        shifted = logits + middle * torch.eye(logits.shape[1], device=logits.device)[0]
        passed = int((shifted.softmax(1)[:, 1:] > 0.05).sum())
        low, high = (middle, high) if passed > 500 else (low, middle)
    heads.box_predictor.cls_score.bias[0] += high
    return len(proposals[0])


# --- Predictor -------------------------------------------------------------------------------------------------------


def time_predictor(path: Path, device: Device, options: dict[str, Any], runs: int) -> dict[str, Any]:
    """What a user of `Predictor` gets: parity with the CPU, times, placement, and nothing on the terminal."""
    from runtime import EngineOptions, Predictor  # noqa: PLC0415 - the project is optional here

    name = f"cuda:{device.index}" if device.kind == "cuda" else "cpu"
    with said() as lines:
        reference = Predictor(path, "cpu", score_threshold=0.0)
        _, height, width = reference.metadata.input_shape
        side = reference.metadata.resize.max_dim
        picture = make_pictures(1, max(height or side, width or side))[:, : height or side, : width or side]
        window = np.array([[0, 0, *picture.shape[1:3]]], np.float32)
        expected = reference.run(picture, window)
        before, begin = ask_gpu(device), perf_counter()
        predictor = Predictor(path, name, score_threshold=0.0, engine=EngineOptions(**options))
        facts: dict[str, Any] = {"device": predictor.device, "open_s": perf_counter() - begin}
        begin = perf_counter()
        found = predictor.run(picture, window)
        facts |= {"first_run_s": perf_counter() - begin, "parity": compare(found, expected)}
        batch = np.repeat(picture, 4, 0), np.repeat(window, 4, 0)
        kind = ", ".join(options) or "plain"
        cases = [
            Case(
                path.stem,
                f"Predictor.run, {kind}",
                "network, arrays in and out",
                1,
                lambda: predictor.run(picture, window),
            ),
            Case(path.stem, f"Predictor, {kind}", "detections of an image", 1, lambda: predictor(picture[0])),
            Case(path.stem, f"Predictor.run, {kind}", "network, arrays in and out", 4, lambda: predictor.run(*batch)),
        ]
        for case in cases:  # one after another: with another batch size in between, a session's turn would be cold
            measure([case], runs)
        threads = [Case(path.stem, "", "", 1, lambda: in_new_thread(lambda: predictor.run(picture, window)))]
        measure(threads, 5)
        placed = predictor.explain(picture[0])
        facts["gpu_memory"] = [each.get("memory.used", "unknown") for each in (before, ask_gpu(device))]
        predictor.close()
    nodes: Counter[str] = Counter()
    for (where, operator), count in placed.counts.items():
        nodes[f"copies: {operator}" if operator.startswith("Memcpy") else where] += count
    facts |= {"new_threads": threads[0].summary(), "nodes": dict(nodes), "said": lines}
    return facts | {"cases": [case.summary() for case in cases]}


def in_new_thread(call: Callable[[], Any]) -> None:
    """Call something in a thread of its own, and wait for it."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """Collect what is written to stdout and stderr, also by libraries, as lines."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        kept = [os.dup(descriptor) for descriptor in (1, 2)]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        try:
            yield lines
        finally:
            for descriptor, copied in zip((1, 2), kept, strict=True):
                os.dup2(copied, descriptor)
                os.close(copied)
            file.seek(0)
            lines += file.read().splitlines()[:20]


# --- The report ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write."""
    given, device = parse(arguments)
    try:
        if given.graph_attempt:
            content, pictures = load(given.artifacts[0]), make_pictures(1, given.size)
            print(json.dumps(graph_attempt(content, replace(device, fixed=given.fixed), pictures, given.runs)))
            return 0
        report = benchmark(given, device)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.code
    print_facts(report)
    for name, reason in report["failed"].items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return DIFFERENT if report["different"] else INCOMPLETE if report["failed"] else 0


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Device]:
    """Arguments, and the device they name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="*", type=Path, help=".onnx artifacts or .npz skeletons")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 8], help="(default 1 4 8)")
    parser.add_argument("--runs", type=int, default=50, help="timed runs of a case, fewer in batches (default 50)")
    parser.add_argument("--size", type=int, default=1024, help="side of the picture, a multiple of 64 (default 1024)")
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument("--torchvision", action="store_true", help="measure the peer, too; torch also pastes our masks")
    parser.add_argument("--predictor", action="store_true", help="measure Predictor on the .onnx files, too")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no step after that long (default 3600)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the CUDA provider")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    parser.add_argument("--graph-attempt", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fixed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    beside = Path(__file__).parent
    given.artifacts = given.artifacts or sorted([*beside.glob("*.onnx"), *beside.glob("*.npz")])
    if not given.artifacts:
        parser.error("give an artifact, or put one beside this file")
    kind, _, index = given.device.partition(":")
    pairs = [option.partition("=") for option in given.option]
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit() or not all(middle for _, middle, _ in pairs):
        parser.error("--device is cuda, cuda:N or cpu; --option is KEY=VALUE")
    if min(given.runs, *given.batches) < 1 or given.size < 64 or given.size % 64:
        parser.error("--runs and --batches are at least 1, --size is a multiple of 64")
    # The provider's own search times every algorithm again for each picture size.
    options = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    options |= {key: value for key, _, value in pairs}
    return given, Device(kind, int(index or 0), options)


class Steps:
    """Steps of a run and its report, which is written after each."""

    def __init__(self, report: dict[str, Any], output: Path | None, seconds: float) -> None:
        self.report, self._output, self._end = report, output, perf_counter() + seconds
        report["failed"], report["seconds"] = {}, {}

    def take(self, name: str, step: Callable[[], Any]) -> Any:
        """Take a step; None if it fails or there is no time for it, and the reason is in the report."""
        begin, result = perf_counter(), None
        if begin > self._end:
            self.report["failed"][name] = "there was no time for it"
        else:
            try:
                result = step()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other steps are taken
                line = traceback.extract_tb(error.__traceback__)[-1].lineno
                where = "" if isinstance(error, Failure) else f" ({type(error).__name__}, line {line})"
                self.report["failed"][name] = f"{first_line(error)}{where}"
            self.report["seconds"][name] = round(perf_counter() - begin, 1)
            gc.collect()  # what a failed step held on the device
        if self._output:
            partial = self._output.with_name(f"{self._output.name}.part")
            partial.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
            partial.replace(self._output)
        return result

    def cases(self, name: str, step: Callable[[], list[dict[str, Any]]]) -> None:
        """Take a step that measures cases, and print them."""
        found = self.take(name, step) or []
        self.report["cases"] += found
        print_table(found)


@dataclass(frozen=True)
class Artifact:
    """Something to measure: a whole artifact or a part, the side of its pictures, and what the CPU makes of one."""

    path: Path
    content: bytes
    side: int
    precision: str
    expected: Arrays

    @classmethod
    def open(cls, path: Path, size: int) -> "Artifact":
        """Load it, and run it on the CPU.

        Raises:
            Failure: It cannot be used, or it detects nothing.
        """
        content = load(path)
        session, feeds = open_session(content, Device("cpu"), make_pictures(1, size))
        sides = next(value.shape for value in session.get_inputs() if value.name == "images")[1:3]
        if all(isinstance(side, int) for side in sides):  # it takes one size only
            size = max(sides)
            feeds = make_feeds(session, make_pictures(1, size))
        try:
            expected = run(session, feeds)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise Failure(BAD_INPUT, f"{path} does not run on the CPU: {first_line(error)}") from error
        if not expected.get("num_detections", np.ones(1)).all():
            raise Failure(BAD_INPUT, f"{path} detects nothing: its time would say nothing about pictures with objects")
        return cls(path, content, size, metadata(session).get("precision", "fp32"), expected)

    @property
    def is_whole(self) -> bool:
        """Whether it goes from images to masks."""
        return "masks" in self.expected


def benchmark(given: argparse.Namespace, device: Device) -> dict[str, Any]:
    """All measurements; the table of each step is printed when it is there."""
    torch = peer_package() if given.torchvision else None
    artifacts = [Artifact.open(path, given.size) for path in given.artifacts]
    open_session(artifacts[0].content, device, make_pictures(1, artifacts[0].side))  # or a Failure
    report: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="minutes")}
    report |= {"command": " ".join(["python", Path(__file__).name, *sys.argv[1:]]), "machine": machine(device, torch)}
    report |= {"size": given.size, "runs": given.runs, "sessions": {}, "predictor": {}, "different": [], "peer": {}}
    report["cases"] = []
    steps = Steps(report, given.output, given.seconds)
    measure_sessions(steps, artifacts, device, torch, given)
    if given.predictor:
        for artifact in artifacts:
            measure_predictor(steps, artifact, device, given.runs)
    if torch is not None:
        measure_peer(steps, torch, device, given)
    report["ratios"] = ratios(report["cases"])
    steps.take("ratios", lambda: None)
    return report


def measure_sessions(
    steps: Steps, artifacts: Sequence[Artifact], device: Device, torch: Any, given: argparse.Namespace
) -> None:
    """Take the steps of our sessions: what there is to know of each, then its times."""
    for batch in given.batches:
        for artifact in artifacts:
            for mode, moded in modes(artifact.precision, device):
                label, pictures = f"{artifact.path.stem}, {mode}", make_pictures(batch, artifact.side)
                if batch == given.batches[0]:
                    look_at(steps, artifact, label, moded, given)
                elif not artifact.is_whole or mode.endswith(tuple(VARIANTS)):
                    continue  # these are measured with the first batch size alone
                runs = max(min(given.runs, 10), given.runs // batch)
                step = functools.partial(time_ours, label, artifact.content, moded, pictures, torch, runs)
                steps.cases(f"{label}: batch {batch}", step)


def look_at(steps: Steps, artifact: Artifact, label: str, device: Device, given: argparse.Namespace) -> None:
    """Take the steps of what there is to know of a mode beside its times."""
    step = functools.partial(look, artifact.content, device, make_pictures(1, artifact.side), artifact.expected)
    facts = steps.take(f"{label}: look", step)
    if facts is None:
        return
    steps.report["sessions"][label] = facts
    if artifact.precision == "fp32" and "TF32" not in label and differs(facts["parity"]):
        steps.report["different"].append(label)
    if not artifact.is_whole:  # the whole has steps that wait for the host, which cannot be recorded
        attempt = functools.partial(attempt_elsewhere, artifact.path, given, device)
        facts["cuda_graph"] = steps.take(f"{label}: CUDA graph", attempt)


def measure_predictor(steps: Steps, artifact: Artifact, device: Device, runs: int) -> None:
    """Take the steps of `Predictor` with an artifact."""
    if artifact.path.suffix != ".onnx":
        return
    for options in PREDICTOR_OPTIONS if device.kind == "cuda" else ({},):
        name = f"{artifact.path.stem}, Predictor, {', '.join(options) or 'plain'}"
        facts = steps.take(name, functools.partial(time_predictor, artifact.path, device, options, runs))
        if facts is None:
            continue
        steps.report["predictor"][name] = facts
        print_table(facts["cases"])
        if artifact.precision == "fp32" and not options.get("tf32") and differs(facts["parity"]):
            steps.report["different"].append(name)


def measure_peer(steps: Steps, torch: Any, device: Device, given: argparse.Namespace) -> None:
    """Take the steps of torchvision; the compiled one comes last, because it takes longest."""
    peer = steps.take("torchvision", lambda: Peer(torch, make_pictures(1, given.size), device))
    for way in peer.ways if peer else ():
        for batch in given.batches:
            name = f"torchvision, {way}: batch {batch}"
            pictures, runs = make_pictures(batch, given.size), max(min(given.runs, 10), given.runs // batch)
            found, detections = steps.take(name, functools.partial(peer.time, way, pictures, runs)) or ([], 0)
            steps.report["cases"] += found
            print_table(found)
            steps.report["peer"].setdefault(str(batch), {"proposals": peer.proposals})[way] = detections


PREDICTOR_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"cuda_graph": True}, {"tf32": True})
VARIANTS = {"NHWC": {"prefer_nhwc": "1"}, "doubling arena": {"arena_extend_strategy": "kNextPowerOfTwo"}}


def modes(precision: str, device: Device) -> list[tuple[str, Device]]:
    """Names of the ways an artifact can compute; TF32, the provider's default, only for float32."""
    ways = [(precision, device)]
    if device.kind == "cuda":
        strict, loose = (replace(device, options={"use_tf32": flag, **device.options}) for flag in "01")
        ways = [(precision, strict)] + ([("TF32", loose)] if precision == "fp32" else [])
    named = [(name + ", fixed" * fixed, replace(way, fixed=fixed)) for name, way in ways for fixed in (False, True)]
    if device.kind == "cuda" and precision != "fp32":
        for name, options in VARIANTS.items():
            named.append((f"{precision}, fixed, {name}", replace(strict, options=strict.options | options, fixed=True)))
    return named


def look(content: bytes, device: Device, picture: np.ndarray, expected: Arrays) -> dict[str, Any]:
    """What there is to know of a mode before it is timed: cold start, memory, parity, placement."""
    before, begin = ask_gpu(device), perf_counter()
    session, feeds = open_session(content, device, picture)
    opened = perf_counter()
    found = run(session, feeds)
    facts: dict[str, Any] = {"open_s": opened - begin, "first_run_s": perf_counter() - opened}
    facts["gpu_memory"] = [each.get("memory.used", "unknown") for each in (before, ask_gpu(device))]
    return facts | {"parity": compare(found, expected)} | placement(content, device, picture)


def differs(parity: dict[str, Any]) -> bool:
    """Whether a strict float32 run found other things than the CPU: a tenth of the rows, or a part's tensors."""
    if "matched" in parity:
        return parity["matched"] < 0.9 * max(parity["detections"], parity["reference"])
    return max(parity.values()) > 1e-2


def attempt_elsewhere(path: Path, given: argparse.Namespace, device: Device) -> dict[str, Any]:
    """`graph_attempt` in another process; the reason where it is impossible."""
    if device.kind != "cuda":
        return {"reason": "a CUDA graph needs a CUDA device"}
    command = [sys.executable, __file__, str(path), "--graph-attempt", f"--size={given.size}", f"--runs={given.runs}"]
    command += ["--fixed"] * device.fixed
    command += [f"--device=cuda:{device.index}", *(f"--option={key}={value}" for key, value in device.options.items())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return (
            json.loads(done.stdout.splitlines()[-1])
            if not done.returncode
            else {"reason": done.stderr.strip().splitlines()[-1]}
        )
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        return {"reason": first_line(error)}


def machine(device: Device, torch: Any) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": engine().__version__}
    if torch is not None:
        versions |= {name: sys.modules[name].__version__ for name in ("torch", "torchvision")}
    facts = {"device": device.kind, "cores": os.cpu_count(), "versions": versions, "options": device.options}
    return facts | ({"gpu": ask_gpu(device)} if device.kind == "cuda" else {})


def ratios(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times longer the peer takes than we, for the same batch and the same end."""
    return [
        {"ours": f"{ours['model']}, {ours['how']}", "peer": peer["how"], "end": peer["end"], "batch": peer["batch"]}
        | {"ratio": peer["p50"] / ours["p50"]}
        for ours in cases
        for peer in cases
        if peer["model"] == "torchvision" != ours["model"] and all(peer[key] == ours[key] for key in ("end", "batch"))
    ]


def print_table(cases: Sequence[dict[str, Any]]) -> None:
    """Milliseconds of each case."""
    if not cases:
        return
    print(f"\n{'model':36}{'how':36}{'end':28}{'batch':>6}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'images/s':>10}")
    for case in cases:
        numbers = "".join(f"{case[key]:10.2f}" for key in ("p50", "p90", "p99", "images_per_second"))
        print(f"{case['model']:36}{case['how']:36}{case['end']:28}{case['batch']:6}{numbers}")


def print_facts(report: dict[str, Any]) -> None:
    """All that is no time of a case."""
    print(f"\n{json.dumps(report['machine'])}\npeer: {json.dumps(report['peer'])}")
    for label, facts in report["sessions"].items():
        print(f"\n{label}: opened in {facts['open_s']:.2f} s, first run {facts['first_run_s']:.2f} s")
        print(f"  GPU memory {' -> '.join(facts['gpu_memory'])}; parity with the CPU: {json.dumps(facts['parity'])}")
        print(f"  nodes {json.dumps(facts['nodes'])}, {len(facts['copies'])} copies between host and device")
        for key in ("copies", "large_on_cpu"):
            print("".join(f"  {key}: {line}\n" for line in facts[key][:20]), end="")
        top = list(facts["milliseconds"].items())[:8]
        print("  ms by operator: " + ", ".join(f"{name} {value:.2f}" for name, value in top))
        print(f"  CUDA graph: {json.dumps(facts.get('cuda_graph'))}")
    for label, facts in report["predictor"].items():
        print(
            f"\n{label} on {facts['device']}: opened in {facts['open_s']:.2f} s, first run {facts['first_run_s']:.2f} s"
        )
        print(f"  GPU memory {' -> '.join(facts['gpu_memory'])}; parity with the CPU: {json.dumps(facts['parity'])}")
        print(f"  nodes {json.dumps(facts['nodes'])}; ms in new threads {facts['new_threads']['p50']:.2f}")
        print("".join(f"  said: {line}\n" for line in facts["said"]), end="")
    for row in report["ratios"]:
        print(f"{row['ratio']:6.2f} x  {row['ours']} / torchvision {row['peer']}, {row['end']}, batch {row['batch']}")


if __name__ == "__main__":
    sys.exit(main())
