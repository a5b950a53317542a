"""The providers of ONNX Runtime that run a graph, and their options."""

import importlib
import io
import logging
import os
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from runtime.engines.options import EngineOptions
from runtime.engines.ort.library import CPU, CUDA, TENSORRT, ort
from runtime.engines.versions import TENSORRT_MAJOR, version_numbers
from runtime.errors import DeviceError

Providers = list[tuple[str, dict[str, Any]]]

# The shapes of their results depend on values: TensorRT stops at each of them, or cannot build an engine after it.
_LEFT_TO_CUDA = "NonMaxSuppression,NonZero,RoiAlign"
_logger = logging.getLogger(__name__)


def choose_providers(kind: str, index: int, options: EngineOptions) -> Providers:
    """Return the providers of a device, the first one preferred; raise DeviceError if this build does not have them."""
    cpu: Providers = [(CPU, {})]
    if kind == "cpu":
        return cpu
    available = ort.get_available_providers()
    if CUDA not in available or (kind == "tensorrt" and TENSORRT not in available):
        if kind == "auto":
            _logger.info("device 'auto': running on the CPU, because this onnxruntime has no CUDA")
            return cpu
        name = "TensorRT" if kind == "tensorrt" else "CUDA"
        raise DeviceError(
            f"device {kind!r} was requested, but onnxruntime {ort.__version__} is a build without {name}: "
            "pip uninstall onnxruntime, then pip install 'maskrcnn-export[onnx-gpu]'"
        )
    _load_libraries()
    cuda = {
        "device_id": index,
        # The default search times all algorithms again for each new image size.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": int(options.tf32),
        # The default strategy doubles the arena: it hits a limit at half of it, and holds up to twice what is needed.
        "arena_extend_strategy": "kSameAsRequested",
    }
    if options.gpu_memory_limit is not None:
        cuda["gpu_mem_limit"] = options.gpu_memory_limit
    return [(CUDA, cuda), *cpu]


@cache
def _load_libraries() -> None:
    """Load the CUDA libraries that pip installed beside ONNX Runtime; what is missing shows when CUDA is used."""
    if not hasattr(ort, "preload_dlls"):
        return
    said = io.StringIO()
    with redirect_stdout(said):  # it prints each library that it does not find
        ort.preload_dlls(directory="")
    for line in said.getvalue().splitlines():
        _logger.info("onnxruntime: %s", line)


def with_tensorrt(providers: Providers, precision: str, options: EngineOptions, engines: Path | None) -> Providers:
    """Put TensorRT before the providers of CUDA, with its built engines in a folder or, if None, built at each start.

    Raises:
        DeviceError: TensorRT cannot honor an option, or has another version than ONNX Runtime needs.
    """
    options.refuse(
        ("gpu_memory_limit", "cuda_graph"), "which TensorRT cannot honor: leave it out, or use device 'cuda'"
    )
    if not options.tf32 and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        raise DeviceError(
            "TensorRT multiplies float32 in TF32 and ONNX Runtime cannot turn it off: allow it with "
            "EngineOptions(tf32=True), or set the environment variable NVIDIA_TF32_OVERRIDE=0"
        )
    _load_tensorrt()
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


def _load_tensorrt() -> None:
    """Load TensorRT from its wheels, whose folder no loader searches; what the system has, the loader finds itself."""
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ModuleNotFoundError:
        return
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(f"the installed tensorrt cannot be loaded: {error}: install it again") from error
    version = str(tensorrt.__version__)
    if version_numbers(version)[0] != TENSORRT_MAJOR:
        raise DeviceError(
            f"device 'tensorrt' needs TensorRT {TENSORRT_MAJOR} with onnxruntime {ort.__version__}, but tensorrt "
            f"{version} is installed: pip uninstall it, then pip install 'maskrcnn-export[tensorrt]'"
        )
