"""A model repository of Triton: the network in C++, between two Python models that prepare and finish as Predictor."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from export.errors import LayoutError
from export.serving.networks import Shapes, ThresholdsKind, picture_batch, write_network
from export.serving.options import MARKER, MOST_WAITING, allowed_batch, allowed_name, allowed_number, write_marker
from export.serving.text_proto import Word, text_proto
from export.verify.pictures import LetterboxedPicture, verification_pictures
from maskrcnn.callbacks import Say, say_nothing
from runtime.artifact import (
    IMAGES,
    NMS_THRESHOLD,
    NUM_DETECTIONS,
    OUTPUT_NAMES,
    SCORE_THRESHOLD,
    WINDOWS,
    Metadata,
)
from runtime.artifact_files.read import read_metadata, recorded_digest, require_proven
from runtime.atomic import atomic_write, check_output
from runtime.engines.options import MOST_THREADS
from runtime.errors import ArtifactError
from runtime.triton import (
    AFTER,
    BEFORE,
    DETECTIONS,
    DIGEST_PARAMETER,
    IMAGE,
    IMAGE_SIZE,
    NET,
    NETWORK_FILE,
    RECORD,
    AfterModel,
    BeforeModel,
)

Processor = Literal["cpu", "gpu"]
THRESHOLDS = "_thresholds"
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}
_LONGEST_WAIT = 30_000_000  # microseconds of an image in the queue
_DELAY = {"cpu": 0, "gpu": 5000}  # microseconds to wait for more images: a CPU computes a batch no faster
_PYTHON_INSTANCES = 2


@dataclass(frozen=True)
class TritonOptions:
    """What a repository is written for.

    Attributes:
        name: Name of the model in URLs; None is the artifact's file name without its suffix, from the first letter or
            digit on, with '_' for what cannot be in a URL.
        max_batch: Most images that the network runs together; None is 8, or the batch of an artifact for which it is
            fixed.
        thresholds: Whether to add the network with thresholds that each request may set.
        processor: "cpu" or "gpu"; None follows the artifact's target.
        threads: Threads of one operator on a CPU, at most 4096; 0 leaves them to ONNX Runtime, which takes all cores.
            Not for a GPU.
    """

    name: str | None = None
    max_batch: int | None = None
    thresholds: bool = False
    processor: Processor | None = None
    threads: int = 0


_DEFAULTS = TritonOptions()


def write_triton_repository(
    path: str | Path,
    output: str | Path,
    *,
    options: TritonOptions = _DEFAULTS,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> tuple[str, ...]:
    """Write a model repository for Triton with its onnxruntime and python backends, or write nothing.

    Its models are `NAME`, an ensemble from one encoded image, uint8 [bytes], to the JSON of `Detections.to_json`, uint8
    [bytes]; `NAME_before`, `NAME_net` and `NAME_after`, which it consists of; and, if asked for, `NAME_net_thresholds`.
    The networks are run beside the artifact on the demo image and must return the same tensors, bit for bit.

    Args:
        path: An `.onnx` artifact.
        output: The folder to write. An existing folder is replaced only if this function wrote it.
        options: Name, batch, thresholds, processor.
        overwrite: Whether an existing repository may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The names of the models, the ensemble first.

    Raises:
        LayoutError: An option is out of range, or impossible with this artifact.
        ArtifactError: The artifact cannot be used, or is a SavedModel.
        ConversionError: A network computes other values than the artifact.
        OutputError: The output exists or cannot be written.
    """
    path, output = Path(path), Path(output)
    check_output(output, overwrite=overwrite, directory=True, marker=MARKER)
    metadata = read_metadata(path)
    if metadata.format != "onnx":
        raise ArtifactError(
            f"{path} is a SavedModel, and this layout is for Triton's onnxruntime backend: give an .onnx file of "
            "'maskrcnn export onnx', or use 'maskrcnn export tfserving'"
        )
    require_proven(path, metadata)
    layout = _Layout.of(path, metadata, options)
    with atomic_write(output, overwrite=overwrite, directory=True, marker=MARKER) as folder:
        models = layout.write(folder, path, progress)
        write_marker(folder, layout.digest, models)
    return models


@dataclass(frozen=True)
class _Layout:
    name: str
    digest: str
    metadata: Metadata
    batch: int
    processor: Processor
    threads: int
    with_thresholds: bool

    @classmethod
    def of(cls, path: Path, metadata: Metadata, options: TritonOptions) -> "_Layout":
        usual = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-")
        name = allowed_name(usual if options.name is None else options.name, "give --name")
        if options.processor not in (*get_args(Processor), None):
            raise LayoutError(f"processor is {options.processor!r}: expected 'cpu' or 'gpu'")
        if options.thresholds and metadata.thresholds == "constants":
            raise LayoutError(
                f"the thresholds of {path} are constants in its graph, so requests cannot set them: export the "
                "checkpoint with --thresholds inputs, or leave out --thresholds"
            )
        threads = allowed_number("threads", options.threads, 0, MOST_THREADS, "; 0 for all cores")
        by_target: Processor = "cpu" if metadata.target == "cpu" else "gpu"
        processor = options.processor or by_target
        if threads and processor == "gpu":
            raise LayoutError(
                f"threads is {threads}, and the network of {path} is written for a GPU, where it has no effect: leave "
                "out --threads, or give --processor cpu"
            )
        return cls(
            name,
            recorded_digest(path),
            metadata,
            allowed_batch(path, metadata, options.max_batch),
            processor,
            threads,
            options.thresholds,
        )

    def write(self, folder: Path, path: Path, progress: Say) -> tuple[str, ...]:
        """Write all models; return their names."""
        metadata = self.metadata
        (picture, *_) = verification_pictures(None, metadata.image_channels, metadata.resize, metadata.pixels)
        progress(f"comparing the network with {path.name}")
        tensors = self._write_network(folder / (self.name + NET), path, "constants", picture)
        if self.with_thresholds:
            self._write_network(folder / (self.name + NET + THRESHOLDS), path, "defaults", picture)
        network = folder / (self.name + NET) / "1" / NETWORK_FILE
        record = {
            "sha256": self.digest,
            "network_sha256": recorded_digest(network),
            "metadata": json.loads(read_metadata(network).to_json()),
        }
        for suffix, model in ((BEFORE, BeforeModel), (AFTER, AfterModel)):
            version = _version(folder / (self.name + suffix))
            (version / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            source = f"from runtime.triton import {model.__name__} as TritonPythonModel  # noqa: F401\n"
            (version / "model.py").write_text(source)
            self._configure(version.parent, _python(suffix, tensors))
        (_version(folder / self.name) / ".keep").touch()  # an ensemble has no files, but buckets no empty folders
        self._configure(folder / self.name, self._ensemble())
        suffixes = ["", BEFORE, NET, AFTER] + [NET + THRESHOLDS] * self.with_thresholds
        return tuple(self.name + suffix for suffix in suffixes)

    def _write_network(self, model: Path, path: Path, kind: ThresholdsKind, picture: LetterboxedPicture) -> Shapes:
        """Write a network; one with settable thresholds runs each request as it is, for all of its images."""
        shapes = write_network(path, _version(model) / NETWORK_FILE, self.metadata, kind, picture)
        _write_warm_up(model, picture)
        self._configure(model, self._network(shapes, picture, batching=kind == "constants"))
        return shapes

    def _configure(self, folder: Path, settings: Mapping[str, Any]) -> None:
        parameters = [
            {"key": key, "value": {"string_value": value}}
            for key, value in {DIGEST_PARAMETER: self.digest, **settings.get("parameters", {})}.items()
        ]
        message = {"name": folder.name, **settings, "version_policy": {"latest": {"num_versions": 1}}}
        text = text_proto({**message, "parameters": parameters})
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")

    def _network(self, shapes: Shapes, picture: LetterboxedPicture, *, batching: bool) -> dict[str, Any]:
        most = self.batch if batching else 0
        settings: dict[str, Any] = {"backend": "onnxruntime", "max_batch_size": most}
        settings["default_model_filename"] = NETWORK_FILE
        settings |= _tensors(shapes, 1 if batching else 0)
        settings["instance_group"] = [{"count": 1, "kind": Word(f"KIND_{self.processor.upper()}")}]
        settings["dynamic_batching"] = _queue(_DELAY[self.processor] if most > 1 else 0)
        if self.processor == "cpu":
            settings["parameters"] = {"intra_op_thread_count": str(self.threads)}
        batch = [] if batching else [1]
        inputs = {IMAGES: (shapes[IMAGES][0], picture.image.shape), WINDOWS: (shapes[WINDOWS][0], (4,))}
        settings["model_warmup"] = [
            {
                "name": f"one image of {picture.image.shape[0]} x {picture.image.shape[1]}",
                "batch_size": 1 if batching else 0,
                "inputs": [
                    {
                        "key": name,
                        "value": {
                            "data_type": Word(_TYPES[dtype]),
                            "dims": [*batch, *shape],
                            "input_data_file": name,
                        },
                    }
                    for name, (dtype, shape) in inputs.items()
                ],
            }
        ]
        return settings

    def _ensemble(self) -> dict[str, Any]:
        between = (IMAGES, WINDOWS)
        steps = (
            (BEFORE, [IMAGE], [*between, IMAGE_SIZE]),
            (NET, between, OUTPUT_NAMES),
            (AFTER, [*OUTPUT_NAMES, IMAGE_SIZE], [DETECTIONS]),
        )
        return {
            "platform": "ensemble",
            "max_batch_size": 0,
            "input": [_tensor(IMAGE, "uint8", [-1])],
            "output": [_tensor(DETECTIONS, "uint8", [-1])],
            "ensemble_scheduling": {
                "step": [
                    {
                        "model_name": self.name + suffix,
                        "model_version": -1,
                        "input_map": [{"key": name, "value": name} for name in inputs],
                        "output_map": [{"key": name, "value": name} for name in outputs],
                    }
                    for suffix, inputs, outputs in steps
                ]
            },
        }


def _python(suffix: str, shapes: Shapes) -> dict[str, Any]:
    """Return the configuration of a model between encoded images and the network's tensors of one image."""
    network = {name: (dtype, [1, *sides[1:]]) for name, (dtype, sides) in shapes.items()}
    network[NUM_DETECTIONS] = network[NUM_DETECTIONS][0], [1, 1]
    size = {IMAGE_SIZE: ("int32", [1, 2])}
    if suffix == BEFORE:
        inputs, outputs = {IMAGE: ("uint8", [-1])}, {name: network[name] for name in (IMAGES, WINDOWS)} | size
    else:
        inputs, outputs = {name: network[name] for name in OUTPUT_NAMES} | size, {DETECTIONS: ("uint8", [-1])}
    return {
        "backend": "python",
        "max_batch_size": 0,
        "input": [_tensor(name, *each) for name, each in inputs.items()],
        "output": [_tensor(name, *each) for name, each in outputs.items()],
        "instance_group": [{"count": _PYTHON_INSTANCES, "kind": Word("KIND_CPU")}],
        "dynamic_batching": _queue(0),
    }


def _queue(delay: int) -> dict[str, Any]:
    """Return how long requests wait for others, in microseconds, and when they are refused.

    Triton takes it from models that do not batch as well; without it, their queues have no end.
    """
    return {
        "max_queue_delay_microseconds": delay,
        "default_queue_policy": {
            "timeout_action": Word("REJECT"),
            "default_timeout_microseconds": _LONGEST_WAIT,
            "max_queue_size": MOST_WAITING,
        },
    }


def _tensors(shapes: Shapes, skipped: int) -> dict[str, list[dict[str, Any]]]:
    """Describe a network's tensors, without the batch axis if that is Triton's; every tensor needs an axis."""
    found: dict[str, list[dict[str, Any]]] = {"input": [], "output": []}
    for name, (dtype, sides) in shapes.items():
        described = _tensor(name, dtype, sides[skipped:] or [1])
        if name in (SCORE_THRESHOLD, NMS_THRESHOLD):
            described["optional"] = True
        elif not sides[skipped:]:
            described["reshape"] = {"shape": []}
        found["output" if name in OUTPUT_NAMES else "input"].append(described)
    return found


def _tensor(name: str, dtype: str, dims: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": Word(_TYPES[dtype]), "dims": dims}


def _version(model: Path) -> Path:
    version = model / "1"
    version.mkdir(parents=True)
    return version


def _write_warm_up(model: Path, picture: LetterboxedPicture) -> None:
    """Write the tensors of one image, as `model_warmup` reads them."""
    folder = model / "warmup"
    folder.mkdir()
    images, windows = picture_batch(picture, 1)
    (folder / IMAGES).write_bytes(images.tobytes())
    (folder / WINDOWS).write_bytes(windows.tobytes())
