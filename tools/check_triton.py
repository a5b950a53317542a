"""Run tests/triton in the real Triton server: `python -m tools.check_triton`, or `make triton`.

The wheel of nvidia-pytriton holds a `tritonserver` with its Python backend. It is unpacked into a new environment, with
the packages of an installation with `[onnx]` and without TensorFlow, for the processes of the server. The client runs
here. There is no wheel of Triton's onnxruntime backend: tests/support/onnxruntime_backend stands in for it, with the
same checks. This needs Linux on x86-64, elsewhere it says so and ends, and the shared library of this Python.

Exit codes: 0 all tests pass; pytest's own if one fails; 1 if one was skipped, or the wheel cannot be had.
"""

import platform
import sys
import tempfile
from pathlib import Path

from tools.check_lowest import run_all
from tools.environments import ROOT, new_environment, run
from tools.installed import requirements

SERVER = "nvidia-pytriton==0.7.0"  # 0.7.0 has stubs for Python 3.8 to 3.13


def main() -> int:
    """Install, run the tests; returns the exit code."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        sys.stdout.write("tests/triton needs Linux on x86-64: nothing was run\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="triton-") as name:
        folder = Path(name).resolve()
        try:
            python = new_environment(folder / "environment", *requirements("onnx"))
            # Without its dependencies: they hold back NumPy, for a client that is not used.
            command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", SERVER]
            run(command, ROOT)
        except SystemExit as error:
            sys.stderr.write(
                f"{error}\nerror: {SERVER}, whose tritonserver runs these tests, cannot be installed: "
                "connect this machine to a package index, or set PIP_FIND_LINKS to a folder with its wheels\n"
            )
            return 1
        return run_all(sys.executable, "tests/triton", folder, {"MASKRCNN_TRITON": str(python.parents[1])})


if __name__ == "__main__":
    sys.exit(main())
