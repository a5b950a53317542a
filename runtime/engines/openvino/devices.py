"""The devices of OpenVINO, and how an artifact is compiled for one."""

from typing import Any

from runtime.engines.openvino.library import core
from runtime.engines.options import CUDA_OPTIONS, EngineOptions
from runtime.engines.processors import usable_cores
from runtime.errors import DeviceError

CPU = "CPU"


def require_device(device: str) -> None:
    """Raise DeviceError unless this machine has a device, such as "CPU", "GPU" or "GPU.1"."""
    if device == CPU:  # to list devices, OpenVINO loads the drivers of all
        return
    found = core().available_devices
    known = {*found, *(name.partition(".")[0] for name in found)}
    if "GPU" in found:
        known.add("GPU.0")  # the same; a single one is listed without its number
    if device not in known:
        raise DeviceError(
            f"device 'openvino:{device}' was requested, but OpenVINO finds only {', '.join(found) or 'none'} on this "
            "machine: install the driver of the device, or use one of these; see 'maskrcnn doctor'"
        )


def require_bfloat16() -> None:
    """Raise DeviceError unless the processor multiplies bfloat16 numbers."""
    found = core().get_property(CPU, "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in found:
        raise DeviceError(
            f"EngineOptions has precision, but this processor has neither AVX-512 BF16 nor AMX (OpenVINO finds "
            f"{', '.join(found)}): leave it out"
        )


def properties_of(device: str, options: EngineOptions) -> dict[str, Any]:
    """Return the properties that a graph is compiled with; raise DeviceError if the device cannot honor an option.

    OpenVINO would choose bfloat16 by itself, where the processor has it.
    """
    options.refuse(CUDA_OPTIONS, "which OpenVINO cannot honor: leave it out, or use device 'cuda'")
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if device != CPU:
        options.refuse(("threads",), f"but the graph runs on the {device}: leave it out, or use device 'openvino'")
        return properties
    return properties | {
        "INFERENCE_NUM_THREADS": options.threads or usable_cores(),
        "NUM_STREAMS": 1,  # runs at the same time wait for each other; each has all threads
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
    }
