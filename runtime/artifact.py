"""The artifact format: names and types of tensors, and the metadata in every artifact.

`export` writes with these names, and the backends read with them. `docs/artifact.md` explains the fields.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from runtime.errors import ArtifactCorruptError, ArtifactVersionError, InputError
from runtime.masks.edges import PasteMode
from runtime.pictures.letterbox import ResizePolicy
from runtime.pictures.pixels import PLAIN, PixelPolicy

SCHEMA_VERSIONS = (1, 2)  # an artifact is written in the oldest that describes it, see `Metadata.schema_version`

IMAGES, WINDOWS = "images", "windows"
SCORE_THRESHOLD, NMS_THRESHOLD = "score_threshold", "nms_threshold"
NUM_DETECTIONS, BOXES, SCORES, CLASS_IDS, MASKS = "num_detections", "boxes", "scores", "class_ids", "masks"
INPUT_NAMES = (IMAGES, WINDOWS, SCORE_THRESHOLD, NMS_THRESHOLD)
GRAPH_SHA256 = "graph_sha256"  # in a verdict: the digest of the graph that it is about
# In a SavedModel: the key of the function, and the prefix of the identities between stages.
SIGNATURE = "serving_default"
BORDER_PREFIX = "stage_"
NMS_FIRST, NMS_LAST = "nms_first", "nms_last"  # tensors of `Metadata.borders`, see `maskrcnn.nms.suppress_in_steps`
OUTPUT_NAMES = (NUM_DETECTIONS, BOXES, SCORES, CLASS_IDS, MASKS)

ArtifactFormat = Literal["onnx", "savedmodel"]
Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "cuda", "tensorrt"]
Thresholds = Literal["inputs", "constants"]


@dataclass(frozen=True, repr=False)
class Metadata:
    """The metadata of an artifact.

    Attributes:
        format: "onnx" or "savedmodel".
        name: Name of the model's configuration.
        class_names: Name of each class id; 0 is the background.
        image_channels: Last axis of `images`.
        resize: How an image becomes an entry of `images`.
        pixels: How the samples of an image become its channels, before it is resized.
        mask_paste: How mask probabilities become pixels.
        max_detections: Rows of every output.
        mask_size: Side of the masks.
        score_threshold: That of the model's configuration.
        nms_threshold: That of the model's configuration.
        opset: Version of the ONNX operators; None for a SavedModel.
        engine_minimum: Lowest version of each engine package.
        producer: Versions of the packages that wrote the artifact.
        checkpoint: `name` and `sha256` of the checkpoint.
        verdict: Result of the parity check, see `export.verify.verdict`.
        borders: ONNX only: for each stage boundary tensor, the `tensor` of the graph that holds it, and the
            `permutation` of its axes (None if it has the usual layout).
        config: The whole configuration of the model, as in its checkpoint; {} in older artifacts.
        precision: "fp32"; or "fp16" or "int8", for weights and activations of convolutions.
        target: The engine that the graph is optimized for; others run it too.
        input_shape: Batch, height and width of `images`; None for each that is dynamic.
        edits: What was changed after the export, one sentence for each time; see `export.edit`.
        thresholds: Whether the two thresholds are inputs, or constants in the graph.
    """

    format: ArtifactFormat
    name: str
    class_names: tuple[str, ...]
    image_channels: int
    resize: ResizePolicy
    mask_paste: PasteMode
    max_detections: int
    mask_size: int
    score_threshold: float
    nms_threshold: float
    opset: int | None = None
    engine_minimum: Mapping[str, str] = field(default_factory=dict)
    producer: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Mapping[str, str] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    pixels: PixelPolicy = PLAIN
    borders: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "fp32"
    target: Target = "cpu"
    input_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    edits: tuple[str, ...] = ()
    thresholds: Thresholds = "inputs"

    def __repr__(self) -> str:
        """Return the main facts; `to_json` has them all."""
        proven = "not proven" if self.verdict_flaw(None) else "proven"
        return (
            f"Metadata({self.name!r}, {self.format}, {self.precision}, {len(self.class_names) - 1} classes, {proven})"
        )

    @property
    def schema_version(self) -> int:
        """The oldest schema version that describes the artifact: 2 for newer resize modes and mask pastes, else 1."""
        newer = self.resize.mode in ("fit64", "short_side") or self.mask_paste in ("torchvision", "detectron2")
        return 2 if newer else 1

    @property
    def lowest_score(self) -> float:
        """The lowest score threshold that a run can have."""
        return self.score_threshold if self.thresholds == "constants" else 0.0

    @property
    def candidates(self) -> str:
        """Which classes a proposal becomes detections of: "best_class", or "every_class" above the threshold."""
        detection = self.config.get("detection")
        return str(detection.get("candidates", "best_class")) if isinstance(detection, Mapping) else "best_class"

    def to_json(self) -> str:
        """Return compact JSON with the schema version, the tensors, and the verdict's digest."""
        values = {f: getattr(self, f) for f in self.__dataclass_fields__}
        values |= {
            "schema_version": self.schema_version,
            "resize": self.resize.to_dict(),
            "pixels": self.pixels.to_dict(),
            "class_names": list(self.class_names),
            "inputs": self.inputs(),
            "outputs": self.outputs(),
            "verdict_sha256": verdict_digest(self.verdict),
        }
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read and check the result of `to_json`.

        Args:
            text: The JSON.
            where: Path of the artifact, for messages.

        Raises:
            ArtifactVersionError: It has another schema version.
            ArtifactCorruptError: It is not JSON, or a field is missing or unusable.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise ArtifactCorruptError(f"{where}: its metadata cannot be read; export it again") from error
        if version not in SCHEMA_VERSIONS:
            known = " and ".join(map(str, SCHEMA_VERSIONS))
            raise ArtifactVersionError(
                f"{where} has schema version {version!r:.40}, this package reads {known}: "
                "install the matching maskrcnn-export, or export the model again"
            )
        try:
            metadata = cls(
                **{name: values[name] for name in cls.__dataclass_fields__ if name not in _CONVERTED},
                config=values.get("config", {}),  # older artifacts have none of these seven
                pixels=PixelPolicy.from_dict(values.get("pixels", {})),
                precision=values.get("precision", "fp32"),
                target=values.get("target", "cpu"),
                input_shape=_tuple(values.get("input_shape", [None, None, None])),
                edits=_tuple(values.get("edits", [])),
                thresholds=values.get("thresholds", "inputs"),
                class_names=_tuple(values["class_names"]),
                resize=ResizePolicy.from_dict(values["resize"]),
            )
            digest = verdict_digest(metadata.verdict)
        except (KeyError, TypeError, InputError, RecursionError) as error:
            raise ArtifactCorruptError(
                f"{where}: its metadata lacks a field or has an unusable one: {error}; export it again"
            ) from error
        if values.get("verdict_sha256") != digest:
            raise ArtifactCorruptError(f"{where}: its verdict differs from the recorded digest; export it again")
        metadata._check(where)
        return metadata

    def verdict_flaw(self, graph_digest: str | None) -> str:
        """Return why the verdict does not prove that the graph equals its model; empty if it does.

        Args:
            graph_digest: SHA-256 of the artifact's graph; None leaves out the comparison with the verdict's.
        """
        if self.verdict.get("passed") is not True:
            return "its verdict says that the parity check failed" if self.verdict else "it has no verdict"
        precision = self.verdict.get("precision")
        if self.precision != "fp32" and not (isinstance(precision, Mapping) and precision.get("passed") is True):
            return f"its verdict does not say that its accuracy in {self.precision} was accepted"
        recorded = self.verdict.get(GRAPH_SHA256)
        if graph_digest is None or recorded == graph_digest:
            return ""
        if recorded is None:
            return "its verdict does not say to which graph it belongs (an older version wrote it)"
        return f"its verdict belongs to another graph (SHA-256 {str(recorded)[:12]}, this one has {graph_digest[:12]})"

    def _check(self, where: str) -> None:
        sound = {
            "format": self.format in get_args(ArtifactFormat),
            "name": _is_text(self.name),
            "class_names": 0 < len(self.class_names) <= _MOST_CLASSES and _are_texts(self.class_names),
            "precision": self.precision in get_args(Precision),
            "target": self.target in get_args(Target),
            "thresholds": self.thresholds in get_args(Thresholds),
            "input_shape": _is_shape(self.input_shape),
            "pixels": self.pixels.bands is None or len(self.pixels.bands) == self.image_channels,
            "mask_paste": self.mask_paste in get_args(PasteMode),
            "opset": self.opset is None or _is_positive(self.opset, _MOST_OPSETS),
            "edits": len(self.edits) <= _MOST_CLASSES and _are_texts(self.edits),
            "borders": isinstance(self.borders, Mapping) and all(map(_is_border, self.borders.values())),
        }
        for name, most in _MOST.items():
            sound[name] = _is_positive(getattr(self, name), most)
        for name in ("score_threshold", "nms_threshold"):
            value = getattr(self, name)
            sound[name] = isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
        for name in ("engine_minimum", "producer", "checkpoint"):
            value = getattr(self, name)
            sound[name] = isinstance(value, Mapping) and _are_texts(value.values())
        for name in ("engine_minimum", "producer", "checkpoint", "verdict", "borders", "config"):
            value = getattr(self, name)
            sound[name] = sound.get(name, True) and isinstance(value, Mapping) and _is_plain(value)
        spoiled = ", ".join(name for name, is_sound in sound.items() if not is_sound)
        if spoiled:
            raise ArtifactCorruptError(f"{where}: its metadata has {spoiled} out of range; export it again")

    def inputs(self) -> dict[str, Any]:
        """Describe the input tensors: dtype, shape (None is dynamic), meaning."""
        batch = self.input_shape[0]
        given = {
            IMAGES: _tensor(
                self.resize.image_dtype, [*self.input_shape, self.image_channels], "letterboxed images, RGB"
            ),
            WINDOWS: _tensor("float32", [batch, 4], "y1, x1, y2, x2 of the image inside the padding, pixels"),
        }
        if self.thresholds == "inputs":
            given[SCORE_THRESHOLD] = _tensor(
                "float32", [], f"lowest score kept; Predictor's default {self.score_threshold}"
            )
            given[NMS_THRESHOLD] = _tensor(
                "float32", [], f"largest IoU in a class; Predictor's default {self.nms_threshold}"
            )
        return given

    def outputs(self) -> dict[str, Any]:
        """Describe the output tensors: dtype, shape (None is dynamic), meaning."""
        batch, rows, side = self.input_shape[0], self.max_detections, self.mask_size
        return {
            NUM_DETECTIONS: _tensor("int32", [batch], "rows in use"),
            BOXES: _tensor("float32", [batch, rows, 4], "x1, y1, x2, y2 in input pixels"),
            SCORES: _tensor("float32", [batch, rows], "best first"),
            CLASS_IDS: _tensor("int32", [batch, rows], "index into class_names"),
            MASKS: _tensor("float32", [batch, rows, side, side], "probabilities of the predicted class"),
        }


# What is beyond these is no artifact: it would take all memory, or end in an error far from here.
_MOST = {"image_channels": 64, "max_detections": 100_000, "mask_size": 1024}
_MOST_CLASSES, _MOST_OPSETS, _LARGEST_BATCH, _LONGEST_SIDE = 100_000, 1000, 1024, 10_000
_LONGEST_TEXT = 1000  # letters
_DEEPEST = 32  # lists in lists
_CONVERTED = ("class_names", "resize", "pixels", "config", "precision", "target", "input_shape", "edits", "thresholds")


def _tuple(value: object) -> tuple[Any, ...]:
    """Return a JSON list; for anything else an empty one, which is refused (a string would become its letters)."""
    return tuple(value) if isinstance(value, list) else ()


def _is_text(value: object) -> bool:
    """Return whether it is text that can be written to a file and shown."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _are_texts(values: Iterable[object]) -> bool:
    return all(map(_is_text, values))


def _is_positive(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _is_shape(shape: tuple[Any, ...]) -> bool:
    if len(shape) != 3:
        return False
    limits = (_LARGEST_BATCH, _LONGEST_SIDE, _LONGEST_SIDE)
    return all(n is None or _is_positive(n, most) for n, most in zip(shape, limits, strict=True))


def _is_border(value: object) -> bool:
    """Return whether it names a tensor, and how its axes are permuted."""
    if not isinstance(value, Mapping) or not isinstance(value.get("tensor"), str):
        return False
    order = value.get("permutation")
    return order is None or (isinstance(order, list) and sorted(map(repr, order)) == list(map(repr, range(len(order)))))


def _is_plain(value: object, depth: int = 0) -> bool:
    """Return whether JSON can be handled without care: not deep, texts that can be shown, integers of 64 bits."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_plain(each, depth + 1) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(each, depth + 1) for each in value)
    return _is_text(value) if isinstance(value, str) else not isinstance(value, int) or -(2**63) <= value < 2**63


def _tensor(dtype: str, shape: list[int | None], meaning: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "meaning": meaning}


def verdict_digest(verdict: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a verdict's canonical JSON."""
    return hashlib.sha256(json.dumps(verdict, sort_keys=True).encode()).hexdigest()
