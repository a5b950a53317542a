"""Which providers of ONNX Runtime run a graph, and their options."""

import logging
import os
from pathlib import Path
from typing import Any

from runtime.engines.options import EngineOptions
from runtime.engines.ort.library import CPU, CUDA, TENSORRT, ort
from runtime.errors import DeviceError

Providers = list[tuple[str, dict[str, Any]]]

# The shapes of their results depend on values: TensorRT stops at each of them, or has no engine for what follows.
_LEFT_TO_CUDA = "NonMaxSuppression,NonZero,RoiAlign"
_logger = logging.getLogger(__name__)


def choose_providers(kind: str, index: int, options: EngineOptions) -> Providers:
    """Providers of a device, the first one preferred.

    Args:
        kind: "auto", "cpu", "cuda" or "tensorrt".
        index: Of the CUDA device.
        options: Limits and arithmetic on a GPU.

    Raises:
        DeviceError: This build of ONNX Runtime has no such provider.
    """
    cpu: Providers = [(CPU, {})]
    if kind == "cpu":
        return cpu
    available = ort.get_available_providers()
    if CUDA not in available or (kind == "tensorrt" and TENSORRT not in available):
        if kind == "auto":
            _logger.info("device 'auto': running on the CPU, this onnxruntime has no CUDA")
            return cpu
        name = "TensorRT" if kind == "tensorrt" else "CUDA"
        raise DeviceError(
            f"device {kind!r} was asked for, but onnxruntime {ort.__version__} is a build without {name}: "
            "pip uninstall onnxruntime, then pip install 'maskrcnn-export[onnx-gpu]'"
        )
    if hasattr(ort, "preload_dlls"):  # finds the CUDA libraries that pip installed beside it
        ort.preload_dlls(directory="")
    # The default search times every algorithm again for each new picture size.
    cuda = {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": int(options.tf32)}
    if options.gpu_memory_limit is not None:
        # Asked for as needed: the default strategy doubles, and so reaches a limit at half of it.
        cuda |= {"gpu_mem_limit": options.gpu_memory_limit, "arena_extend_strategy": "kSameAsRequested"}
    return [(CUDA, cuda), *cpu]


def with_tensorrt(providers: Providers, precision: str, options: EngineOptions, engines: Path | None) -> Providers:
    """The providers of CUDA with TensorRT before them.

    Args:
        providers: Of `choose_providers`.
        precision: Of the artifact.
        options: As given to the predictor.
        engines: Folder of the built engines; None: they are built at each start.

    Raises:
        DeviceError: An option that TensorRT does not have.
    """
    if options.gpu_memory_limit is not None or options.cuda_graph:
        name = "cuda_graph" if options.cuda_graph else "gpu_memory_limit"
        raise DeviceError(f"EngineOptions has {name}, which TensorRT cannot honour: leave it out, or use device 'cuda'")
    if not options.tf32 and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        raise DeviceError(
            "TensorRT multiplies float32 in TF32 and ONNX Runtime cannot turn it off: allow it with "
            "EngineOptions(tf32=True), or set the environment variable NVIDIA_TF32_OVERRIDE=0"
        )
    settings = {
        "device_id": providers[0][1]["device_id"],
        "trt_fp16_enable": int(precision.startswith("fp16")),
        "trt_int8_enable": int(precision.startswith("int8")),
        "trt_op_types_to_exclude": _LEFT_TO_CUDA,
    }
    if engines is not None:
        settings |= {
            "trt_engine_cache_enable": 1,
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": 1,
            "trt_timing_cache_path": str(engines),
        }
    return [(TENSORRT, settings), *providers]
