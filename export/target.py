"""What a graph is made for: the engine that shall run it fast. Every engine gives the same results."""

from dataclasses import dataclass
from typing import get_args

from export.errors import ConversionError
from runtime import artifact
from runtime.pictures.letterbox import ResizePolicy

OPSETS = (17, 18)  # RoiAlign with half-pixel needs 16; from 19 and 22 on CUDA kernels are missing
LARGEST_BATCH = 64
MINIMUM_ORT = "1.25"  # RoiAlign with half-pixel coordinates has a CUDA kernel from this version on

Shape = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Target:
    """An engine, and what it likes.

    On a CPU, work costs: the mask head runs on the detections there are. On a GPU, a shape that changes with the
    picture costs more, because algorithms are chosen per shape: the mask head runs on all rows, and where every picture
    is brought to one size, that size is fixed, so that anchors and all arithmetic on shapes become constants.
    TensorRT builds an engine for one shape: the number of pictures is fixed, too.

    Attributes:
        engine: "cpu", "cuda" or "tensorrt".
        batch: Pictures at once, for "tensorrt".
        opset: Of the graph.

    Raises:
        ConversionError: An engine, batch or opset that is not offered.
    """

    engine: artifact.Target = "cpu"
    batch: int = 1
    opset: int = OPSETS[0]

    def __post_init__(self) -> None:
        engines = get_args(artifact.Target)
        if self.engine not in engines:
            raise ConversionError(f"target {self.engine!r} is not offered: choose one of {', '.join(engines)}")
        if self.opset not in OPSETS:
            raise ConversionError(
                f"opset {self.opset} is not offered: choose one of {', '.join(str(opset) for opset in OPSETS)}"
            )
        if not 1 <= self.batch <= LARGEST_BATCH or (self.batch != 1 and self.engine != "tensorrt"):
            raise ConversionError(
                f"a batch of {self.batch} for {self.engine!r}: only 'tensorrt' fixes it, at 1 to {LARGEST_BATCH}; "
                "the others take any number of pictures"
            )

    @property
    def every_row(self) -> bool:
        """Whether the mask head runs on all rows, see `MaskRCNN.stages`."""
        return self.engine != "cpu"

    def input_shape(self, resize: ResizePolicy) -> Shape:
        """Batch, height and width of `images`; None is dynamic.

        Args:
            resize: Of the model.

        Raises:
            ConversionError: The target needs one size, and the model's pictures have many.
        """
        side = resize.max_dim if resize.mode == "square" else None
        if self.engine == "tensorrt" and side is None:
            raise ConversionError(
                f"target 'tensorrt' needs pictures of one size, the resize mode of this model is {resize.mode!r}: "
                "set it to 'square' in the configuration (--config), or choose the target 'cuda'"
            )
        return {"cpu": (None, None, None), "cuda": (None, side, side), "tensorrt": (self.batch, side, side)}[
            self.engine
        ]


CPU = Target()
