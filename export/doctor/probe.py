"""Ask an engine what it can do here, in its own process: a broken library may crash it or hang."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS = 120

_ONNXRUNTIME = """
import json
from pathlib import Path
import onnxruntime as o
available = o.get_available_providers()
from runtime import EngineOptions
from runtime.engines.ort.providers import choose_providers
from runtime.engines.ort.session import SessionOpener
from runtime.errors import RuntimeLibraryError
started, reasons = [], {}
for name in ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"):
    if name not in available:
        continue
    providers = choose_providers("cpu" if name.startswith("CPU") else "cuda", 0, EngineOptions())
    if name.startswith("Tensorrt"):
        providers.insert(0, (name, {"device_id": 0}))
    try:
        SessionOpener(Path("probe"), 1).require_device(providers)
        started.append(name)
    except RuntimeLibraryError as error:
        reasons[name] = str(error).removesuffix(": see 'maskrcnn doctor'")
print(json.dumps({"version": o.__version__, "available": available, "started": started, "reasons": reasons}))
"""
_TENSORFLOW = """
import json
import tensorflow as t
gpus = len(t.config.list_physical_devices("GPU"))
print(json.dumps({"version": t.__version__, "gpus": gpus, "cuda": t.test.is_built_with_cuda()}))
"""
_OPENVINO = """
import json
import numpy as np
from runtime import EngineOptions
from runtime.engines.openvino.devices import properties_of
from runtime.engines.openvino.library import VERSION, core
from runtime.engines.probe_model import probe_model
one = np.ones((1, 1, 1, 1), np.float32)
names, started, reasons = {}, [], {}
for device in core().available_devices:
    names[device] = str(core().get_property(device, "FULL_DEVICE_NAME"))
    try:
        kind = device.partition(".")[0]
        core().compile_model(core().read_model(probe_model()), device, properties_of(kind, EngineOptions()))(
            {"x": one, "w": one}
        )
        started.append(device)
    except RuntimeError as error:
        reasons[device] = " ".join(str(error).split())[-300:]
print(json.dumps({"version": VERSION, "names": names, "started": started, "reasons": reasons}))
"""
_ARTIFACT = """
import json, sys
from runtime import Predictor
print(json.dumps({"device": Predictor(sys.argv[1], sys.argv[2], require_verdict=False).device}))
"""


@dataclass(frozen=True)
class Answer:
    """What an engine answered.

    Attributes:
        facts: Values by name; empty after a failure.
        failure: What went wrong, in one line; "" if nothing did.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


def ask_onnxruntime() -> Answer:
    """Return `version`, the `available` providers, those that `started` and computed, and the `reasons` of others."""
    return _ask(_ONNXRUNTIME)


def ask_tensorflow() -> Answer:
    """Return `version`, the number of `gpus` it sees, and whether it was built with `cuda`."""
    return _ask(_TENSORFLOW)


def ask_openvino() -> Answer:
    """Return `version`, the `names` of the devices it sees, those that `started`, and the `reasons` of others."""
    return _ask(_OPENVINO)


def ask_predictor(path: str, device: str) -> Answer:
    """Return the `device` that an artifact is opened on, when this one is asked for."""
    return _ask(_ARTIFACT, path, device)


def _ask(code: str, *arguments: str) -> Answer:
    # `-P` and this path: the process imports what this one would import.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109  (a string)
    command = [sys.executable, "-P", "-c", code, *arguments]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
            env=os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "1"},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Answer(failure=f"no answer within {SECONDS} s")
    if done.returncode < 0:
        return Answer(failure=f"ended by signal {-done.returncode}: {_last_line(done.stderr)}")
    if done.returncode > 0:
        return Answer(failure=f"exit code {done.returncode}: {_last_line(done.stderr)}")
    try:
        facts = json.loads(_last_line(done.stdout))  # libraries may print lines of their own before it
    except ValueError:
        return Answer(failure=f"unreadable answer: {_last_line(done.stdout)[:80]!r}")
    return Answer(facts if isinstance(facts, dict) else {})


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
