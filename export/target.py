"""What a graph is made for: an engine, on which it is fast, and callers that set thresholds or do not."""

from dataclasses import dataclass
from typing import get_args

from export.errors import ConversionError
from runtime import artifact
from runtime.pictures.letterbox import ResizePolicy

OPSETS = (17, 18)  # half-pixel RoiAlign needs 16; CUDA kernels are missing from 19 and from 22 on
LARGEST_BATCH = 64
MINIMUM_ORT = "1.25"  # RoiAlign with half-pixel coordinates has a CUDA kernel from this version on

Shape = tuple[int | None, int | None, int | None]  # batch, height, width; None is dynamic
DYNAMIC: Shape = (None, None, None)


@dataclass(frozen=True)
class Target:
    """The engine that a graph is made for, and whether its thresholds can be set.

    On a CPU, computation is expensive: the mask head runs only on actual detections. On a GPU, shapes that change with
    the image are expensive, because algorithms are chosen per shape and the host waits for the device to know them: the
    mask head runs on all rows, and NMS of detections in a fixed number of steps. If every image is
    resized to one size, that size is fixed, so that anchors and all arithmetic on shapes become constants. TensorRT
    builds an engine for one shape, so the batch size is fixed too.

    Attributes:
        engine: "cpu", "cuda" or "tensorrt".
        batch: Number of images per run, 1 to 64; more than 1 only for "tensorrt".
        opset: ONNX opset of the graph, 17 or 18.
        thresholds: "inputs" that every run sets, or "constants" of the model's configuration in the graph.

    Raises:
        ConversionError: The engine, batch, opset or kind of thresholds is not supported.
    """

    engine: artifact.Target = "cpu"
    batch: int = 1
    opset: int = OPSETS[0]
    thresholds: artifact.Thresholds = "inputs"

    def __post_init__(self) -> None:
        engines = get_args(artifact.Target)
        if self.engine not in engines:
            raise ConversionError(f"target {self.engine!r} is not supported: choose one of {', '.join(engines)}")
        kinds = get_args(artifact.Thresholds)
        if self.thresholds not in kinds:
            raise ConversionError(f"thresholds is {self.thresholds!r}: choose one of {', '.join(kinds)}")
        if self.opset not in OPSETS:
            raise ConversionError(
                f"opset {self.opset} is not supported: choose one of {', '.join(str(opset) for opset in OPSETS)}"
            )
        if not 1 <= self.batch <= LARGEST_BATCH or (self.batch != 1 and self.engine != "tensorrt"):
            raise ConversionError(
                f"a batch of {self.batch} for {self.engine!r}: only 'tensorrt' has a fixed batch size, from 1 to "
                f"{LARGEST_BATCH}; the other targets take any number of images"
            )

    @property
    def every_row(self) -> bool:
        """Whether the mask head runs on all rows, and NMS in steps; see `MaskRCNN.stages`."""
        return self.engine != "cpu"

    def input_shape(self, resize: ResizePolicy) -> Shape:
        """Return batch, height and width of the input `images`; None is dynamic.

        Args:
            resize: Resize policy of the model.

        Raises:
            ConversionError: The target needs one image size, but the policy allows many.
        """
        side = resize.max_dim if resize.mode == "square" else None
        if self.engine == "tensorrt" and side is None:
            raise ConversionError(
                f"target 'tensorrt' needs images of one size, but the resize mode of this model is {resize.mode!r}: "
                "set it to 'square' in the configuration (--config), or choose the target 'cuda'"
            )
        return {"cpu": DYNAMIC, "cuda": (None, side, side), "tensorrt": (self.batch, side, side)}[self.engine]


CPU = Target()
