"""How an engine runs an artifact: threads, cached graphs, GPU memory and arithmetic."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.arguments import count, shown
from runtime.errors import DeviceError, InputError

MOST_THREADS = 4096  # more than any machine has cores; an engine starts them all at once
CUDA_OPTIONS = ("gpu_memory_limit", "tf32", "cuda_graph")
BF16 = "bf16"


@dataclass(frozen=True)
class EngineOptions:
    """Options of the engine behind a `Predictor`; an option that the engine or device cannot honor is refused.

    Attributes:
        threads: Threads that compute one operator; None for one per processor core that the process may use, which in a
            container is fewer than the machine has. TensorFlow has one number for the whole process, which None does
            not change. OpenVINO takes no more than there are cores, and refuses a number on a GPU.
        cache: Folder for data that the engine derives from the artifact, so that the next start is faster: optimized
            graphs (CPU and CUDA), TensorRT engines and graphs that OpenVINO compiled. It is created if needed, any
            number of processes may share it, and it can be deleted at any time. Its content is executed, so only people
            you trust may write to it. ONNX artifacts only.
        gpu_memory_limit: Bytes of GPU memory for weights and tensors of a graph, in addition to images and to what
            CUDA's libraries use; with `cuda_graph`, of each part of the graph. None: no limit.
        tf32: Whether factors of float32 products on a GPU may be rounded to 10 bits of mantissa, which is faster. Off
            by default, as in the parity check. TensorFlow has one switch for the whole process.
        cuda_graph: Whether the graph before the proposals and, where it can be, after them is recorded once for each
            input size, and each part replayed with one launch. Device "cuda" and ONNX artifacts only.
        precision: "bf16" computes convolutions and matrix products in bfloat16, and everything that decides or places
            in float32. Device "openvino" and float32 artifacts only, on processors with AVX-512 BF16 or AMX. None: the
            precision of the artifact.

    Raises:
        InputError: A value has the wrong type or range.
    """

    threads: int | None = None
    cache: str | Path | None = None
    gpu_memory_limit: int | None = None
    tf32: bool = False
    cuda_graph: bool = False
    precision: str | None = None

    def __post_init__(self) -> None:
        for name, most in (("threads", MOST_THREADS), ("gpu_memory_limit", sys.maxsize)):
            value, expected = getattr(self, name), f"an integer from 1 to {most}, or None"
            if value is not None:
                object.__setattr__(self, name, count(name, value, most=most, expected=expected))
        for name in ("tf32", "cuda_graph"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}: expected True or False")
        if self.precision is not None and (not isinstance(self.precision, str) or self.precision != BF16):
            raise InputError(f"precision is {shown(self.precision)}: expected {BF16!r}, or None for the artifact's")
        if self.cache is not None and (not isinstance(self.cache, str | Path) or not str(self.cache)):
            raise InputError(f"cache is {self.cache!r}: expected the path of a folder, or None")

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise DeviceError if any of these options is given; `why` completes the sentence."""
        given = ", ".join(name for name in names if getattr(self, name) not in (None, False))
        if given:
            raise DeviceError(f"EngineOptions has {given}, {why}")

    def refuse_gpu(self) -> None:
        """Raise DeviceError if there are options for a GPU: for a graph that runs on the CPU."""
        self.refuse(CUDA_OPTIONS, "but the graph runs on the CPU: leave it out, or use a GPU")
