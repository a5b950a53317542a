"""Run tests/cuda on a stand-in for CUDA's libraries: `python -m tools.check_cuda`, or `make cuda`.

A new environment gets onnxruntime-gpu without NVIDIA's libraries, and no TensorFlow. The tests compile the stand-in, so
this needs Linux on x86-64 and a C compiler; without them it says so and ends. Artifacts are exported here.

Exit codes: 0 all tests pass; pytest's own if one fails; 1 if one was skipped.
"""

import platform
import shutil
import sys
import tempfile
from pathlib import Path

from tools.check_lowest import run_all
from tools.environments import ROOT, export_demo, new_environment, run
from tools.installed import requirements

_TARGET = ["--target", "cuda"]


def main() -> int:
    """Install, export, run the tests; returns the exit code."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("cc") is None:
        sys.stdout.write("tests/cuda needs Linux on x86-64 and a C compiler: nothing was run\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="cuda-") as name:
        folder = Path(name).resolve()
        artifacts, shapes = folder / "artifacts", folder / "shapes"
        artifacts.mkdir()
        run([sys.executable, "-m", "maskrcnn", "data", "shapes", str(shapes), "--count", "8"], ROOT)
        export_demo(artifacts / "demo.onnx")
        export_demo(artifacts / "demo-cuda.onnx", *_TARGET)
        export_demo(
            artifacts / "demo-fp16.onnx", *_TARGET, "--precision", "fp16", "--calibrate", str(shapes / "images")
        )
        python = new_environment(folder / "environment", "--group", "cuda-tests", *requirements("predict"))
        return run_all(python, "tests/cuda", folder, {"MASKRCNN_CUDA_ARTIFACTS": str(artifacts)}, "-m", "cuda_standin")


if __name__ == "__main__":
    sys.exit(main())
