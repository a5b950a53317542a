"""ONNX Runtime's CUDA provider on libraries that stand in for CUDA's: see `tests/support/cuda_standin.py`."""

import os
from pathlib import Path

import cuda_standin
import pytest


@pytest.fixture(scope="session")
def libraries(pytestconfig):
    """The folder of the stand-in's libraries, which this process has loaded."""
    folder = cuda_standin.build(pytestconfig.cache.mkdir("cuda_standin"))
    cuda_standin.load(folder)
    return folder


@pytest.fixture(scope="session")
def artifacts():
    """The folder of the artifacts; `python -m tools.check_cuda` exports them, because there is no TensorFlow here."""
    folder = os.environ.get("MASKRCNN_CUDA_ARTIFACTS")
    if not folder:
        pytest.skip("cuda_standin: MASKRCNN_CUDA_ARTIFACTS names no folder with artifacts: use 'make cuda'")
    return Path(folder)


@pytest.fixture
def log(libraries, tmp_path, monkeypatch):
    """The log of a machine with two GPUs, which this process has from now on."""
    found = cuda_standin.Log(tmp_path / "log")
    monkeypatch.setenv("CUDA_STANDIN_LOG", str(found.path))
    monkeypatch.setenv("CUDA_STANDIN_DEVICES", "2")
    return found
