"""What will run where on this machine, and why not: packages, engines, devices, and mixes that break."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

State = Literal["ok", "absent", "problem"]

# Each engine is started in a process of its own: a broken CUDA library may end it.
_PROBES = {
    "onnxruntime": (
        "import onnxruntime as o; hasattr(o, 'preload_dlls') and o.preload_dlls(directory='');"
        "from onnx import TensorProto as t, helper as h;"
        "v = lambda n: h.make_tensor_value_info(n, t.FLOAT, [1]);"
        "g = h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'probe', [v('x')], [v('y')]);"
        "m = h.make_model(g, opset_imports=[h.make_opsetid('', 17)], ir_version=8).SerializeToString();"
        "a = [p for p in o.get_available_providers() if p[:4] in ('CUDA', 'CPUE')];"
        "r = o.InferenceSession(m, providers=a).get_providers();"
        "assert set(a) <= set(r), f'built with {a}, but only {r} can be started: are the CUDA libraries installed?';"
        "t = [p for p in o.get_available_providers() if p[:6] == 'Tensor'];"  # its libraries are optional
        "t = [p for p in t if p in o.InferenceSession(m, providers=t).get_providers()];"
        "print('providers', ', '.join(t + r))"
    ),
    "tensorflow": (
        "import tensorflow as t; g = t.config.list_physical_devices('GPU');"
        "print(len(g), 'CUDA devices, built', 'with CUDA' if t.test.is_built_with_cuda() else 'without CUDA')"
    ),
}
_PROBE_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "ok", "absent" (fine unless needed) or "problem".
        subject: What was looked at.
        detail: Version, or what is wrong and what to do.
    """

    state: State
    subject: str
    detail: str


def examine() -> list[Finding]:
    """Look at packages, known bad mixes, and engines."""
    packages = (
        "numpy",
        "pillow",
        "onnxruntime",
        "onnxruntime-gpu",
        "tensorrt",
        "tensorflow",
        "keras",
        "tf2onnx",
        "onnx",
    )
    found = [Finding("ok", f"python {sys.version.split()[0]}", sys.executable)]
    for package in packages:
        installed = _version(package)
        found.append(Finding("ok" if installed else "absent", package, installed or "not installed"))
    found += _mixes()
    return found + [_probe(engine) for engine in _PROBES if _engine_installed(engine)]


def _mixes() -> list[Finding]:
    """Packages that overwrite each other's files; no installer warns of them."""
    found = []
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        detail = "share one folder, the last installed wins: pip uninstall both, then install one"
        found.append(Finding("problem", "onnxruntime and onnxruntime-gpu", detail))
    if _version("nvidia-cudnn-cu12") and _version("nvidia-cudnn-cu13"):
        detail = "install the same files for CUDA 12 and 13: keep TensorFlow and ONNX Runtime on one CUDA version"
        found.append(Finding("problem", "nvidia-cudnn-cu12 and -cu13", detail))
    gpu = _version("onnxruntime-gpu")
    if gpu and _major_minor(gpu) >= (1, 27) and _version("nvidia-cudnn-cu12"):
        detail = f"{gpu} needs CUDA 13, the environment has CUDA 12: pip install 'maskrcnn-export[onnx-gpu-cu12]'"
        found.append(Finding("problem", "onnxruntime-gpu", detail))
    return found


def _probe(engine: str) -> Finding:
    command = [sys.executable, "-c", _PROBES[engine]]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return Finding("problem", f"{engine} starts", f"no answer within {_PROBE_SECONDS} s")
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("problem", f"{engine} starts", f"exit code {result.returncode}: {last}")
    return Finding("ok", f"{engine} starts", result.stdout.strip().splitlines()[-1])


def _engine_installed(engine: str) -> bool:
    return bool(_version(engine) or (engine == "onnxruntime" and _version("onnxruntime-gpu")))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _major_minor(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
