"""The folder for a machine with a GPU: complete, with the code of one architecture, and used there."""

import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_bundle
from runtime.errors import ArtifactError

PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"


def container(*codes):
    """Code for several architectures, as CUDA's compiler puts it into a library."""
    entries = b""
    for architecture, code in codes:
        entries += struct.pack("<HHIQ12xI32x", 2, 0x101, 64, len(code), architecture) + code
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


LIBRARY = (
    b"\x7fELF" + container((75, b"a" * 8), (90, b"b" * 16)) + b"between" + container((90, b"c" * 8), (120, b"d" * 8))
)


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "onnxruntime_gpu-1.0-cp312-cp312-linux.whl"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("onnxruntime/__init__.py", "raise ImportError('this is the carried one')")
        content.writestr(PROVIDER, LIBRARY)
        for name in ("tools/x.py", "capi/libonnxruntime_providers_tensorrt.so", "ThirdPartyNotices.txt"):
            content.writestr(f"onnxruntime/{name}", "left out")
        content.writestr("onnxruntime_gpu-1.0.dist-info/METADATA", "left out")
    return path


def test_code_of_other_architectures_becomes_zeros_where_it_was():
    found = gpu_bundle.with_one_architecture(LIBRARY, 90)
    assert len(found) == len(LIBRARY)
    changed = {LIBRARY[i] for i in range(len(found)) if found[i] != LIBRARY[i]}
    assert changed == set(b"ad")
    assert found.count(b"b" * 16) == found.count(b"c" * 8) == 1
    with pytest.raises(ArtifactError, match="no CUDA code for architecture 70"):
        gpu_bundle.with_one_architecture(LIBRARY, 70)


def test_the_folder_is_complete_and_its_engine_is_used(wheel, onnx_artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(
        gpu_bundle, "copy_artifact", lambda artifact, output: (output / artifact.name).write_bytes(b"x")
    )
    output = tmp_path / "bundle"
    sizes = gpu_bundle.write_bundle([onnx_artifact], output, wheel, 90)
    assert set(sizes) == {"gpu.py", "runtime", "demo.onnx", gpu.ENGINE_ARCHIVE}
    with tarfile.open(output / gpu.ENGINE_ARCHIVE) as archive:
        assert sorted(archive.getnames()) == ["onnxruntime/__init__.py", PROVIDER]
        assert archive.extractfile(PROVIDER).read() == gpu_bundle.with_one_architecture(LIBRARY, 90)
    done = subprocess.run([sys.executable, "-P", "gpu.py"], cwd=output, capture_output=True, text=True, check=False)
    assert done.returncode == gpu.NO_DEVICE
    assert "onnxruntime cannot be imported (this is the carried one)" in done.stderr
    code = "import json, sys; from runtime import Predictor; print(json.dumps(sys.modules['runtime'].__file__))"
    done = subprocess.run([sys.executable, "-c", code], cwd=output, capture_output=True, text=True, check=True)
    assert Path(json.loads(done.stdout)).parent == output / "runtime"
    with pytest.raises(FileExistsError, match="not empty"):
        gpu_bundle.write_bundle([], output, wheel)


def test_an_artifact_whose_weights_have_no_recipe_is_copied(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise ArtifactError("no recipe")

    monkeypatch.setattr("benchmarks.skeleton.write_skeleton", refuse)
    (tmp_path / "in.onnx").write_bytes(b"trained")
    (tmp_path / "out").mkdir()
    gpu_bundle.copy_artifact(tmp_path / "in.onnx", tmp_path / "out")
    assert (tmp_path / "out" / "in.onnx").read_bytes() == b"trained"


def test_wheels_are_for_the_other_machine(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    (tmp_path / "x.whl").write_bytes(io.BytesIO().getvalue())
    assert gpu_bundle.download("3.12", tmp_path) == tmp_path / "x.whl"
    assert "--python-version=3.12" in commands[0]
