"""The real Triton server, where `make triton` has installed it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ENVIRONMENT = os.environ.get("MASKRCNN_TRITON")
SECONDS_TO_START = 120


def pytest_collection_modifyitems(items):
    if not ENVIRONMENT:
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="needs the server of `make triton`"))


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def installed(pytestconfig):
    """Folder of the server in that environment, with the stand-in for the onnxruntime backend."""
    packages = next(Path(ENVIRONMENT).glob("lib/python3*/site-packages"))
    (packages / "checkout.pth").write_text(f"{pytestconfig.rootpath}\n")  # `runtime`, as if it were installed
    folder = packages / "pytriton" / "tritonserver"
    stub = Path("python_backend_stubs", f"{sys.version_info[0]}.{sys.version_info[1]}", "triton_python_backend_stub")
    shutil.copy(folder / stub, folder / "backends" / "python")
    for program in (folder / "bin" / "tritonserver", folder / "backends" / "python" / stub.name):
        program.chmod(0o755)
    (folder / "backends" / "onnxruntime").mkdir(exist_ok=True)
    source = pytestconfig.rootpath / "tests" / "support" / "onnxruntime_backend" / "model.py"
    shutil.copy(source, folder / "backends" / "onnxruntime" / "model.py")
    return folder


@pytest.fixture(scope="session")
def start(installed, tmp_path_factory):
    """Context of a server on a repository: its address and its log, once it answers or has ended."""

    @contextmanager
    def run(repository):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log"
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables["PATH"] = f"{ENVIRONMENT}/bin:{variables['PATH']}"
        command = [installed / "bin" / "tritonserver", f"--model-repository={repository}"]
        command += [f"--backend-directory={installed / 'backends'}"]
        command += ["--exit-timeout-secs=3"]  # it waits for connections that clients keep
        command += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
        with log.open("wb") as file:
            server = subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + SECONDS_TO_START
            while server.poll() is None and not _answers(port):  # it says so in its log a little too early
                assert time.monotonic() < end, log.read_text(errors="replace")
                time.sleep(0.1)
            yield f"127.0.0.1:{port}", log
        finally:
            server.terminate()
            server.wait(timeout=60)

    return run
