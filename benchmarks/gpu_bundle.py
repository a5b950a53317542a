"""Everything that a machine with an NVIDIA GPU and no network needs for the GPU benchmark, in one folder.

    python -m benchmarks.gpu_bundle demo.onnx demo-cuda.onnx r50.onnx --python 3.12 --architecture 90 -o FOLDER
    python gpu.py --torchvision --predictor --seconds 400 -o results.json        # in the folder, on that machine

The folder gets `gpu.py`, the package `runtime`, the artifacts (those with deterministic weights as skeletons, and their
trunks), and ONNX Runtime for that Python version in `onnxruntime.tar.xz`. With `--architecture`, the CUDA code of other
GPU architectures is left out, which makes the archive a fifth as large: 90 for H100 and H200, 86 for A10, 75 for T4.
CUDA's libraries and cuDNN come from that machine: those of torch's wheels, or of the system.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import ENGINE_ARCHIVE
from export.doctor.cuda_code import CUDA_LIBRARY, pieces_of_code
from runtime.errors import ArtifactError, RuntimeLibraryError

ROOT = Path(__file__).parents[1]
# In the wheel, but nothing that opens and runs sessions needs it.
_LEFT_OUT = ("tools", "transformers", "quantization", "backend", "datasets")


def write_bundle(
    artifacts: Sequence[Path], output: Path, wheel: Path, architecture: int | None = None
) -> dict[str, int]:
    """Fill a folder, which must not exist or be empty.

    Args:
        artifacts: `.onnx` files.
        output: The folder.
        wheel: A wheel of onnxruntime-gpu for the other machine.
        architecture: Of its GPU, as in "90" for compute capability 9.0; None keeps the code of all.

    Returns:
        Bytes of each file and folder.

    Raises:
        ArtifactError: The wheel has no code for the architecture.
        OSError: A file cannot be read or written.
    """
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty: give a new folder")
    shutil.copy(ROOT / "benchmarks" / "gpu.py", output)
    shutil.copytree(ROOT / "runtime", output / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    for artifact in artifacts:
        copy_artifact(artifact, output)
    with zipfile.ZipFile(wheel) as content, tarfile.open(output / ENGINE_ARCHIVE, "w:xz") as archive:
        for name in content.namelist():
            parts = name.split("/")
            if parts[0] != "onnxruntime" or parts[1] in _LEFT_OUT or "tensorrt" in parts[-1] or name.endswith(".txt"):
                continue
            data = content.read(name)
            if parts[-1] == CUDA_LIBRARY and architecture is not None:
                data = with_one_architecture(data, architecture)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return {path.name: _size(path) for path in sorted(output.iterdir())}


def copy_artifact(artifact: Path, output: Path) -> None:
    """Copy an artifact, or write its skeleton and that of its trunk if its weights are deterministic."""
    from benchmarks.skeleton import write_skeleton  # noqa: PLC0415 - it loads TensorFlow

    try:
        write_skeleton(artifact, output / f"{artifact.stem}.npz")
    except ArtifactError:
        shutil.copy(artifact, output)
    else:
        write_skeleton(artifact, output / f"{artifact.stem}-trunk.npz", trunk=True)


def with_one_architecture(library: bytes, architecture: int) -> bytes:
    """Return a library with the code for other architectures zeroed, at the same places; CUDA loads it when needed.

    Raises:
        ArtifactError: There is no code for the architecture.
    """
    content, kept = bytearray(library), False
    for found, begin, end in pieces_of_code(library):
        if found == architecture:
            kept = True
        else:
            content[begin:end] = bytes(end - begin)
    if not kept:
        raise ArtifactError(f"the wheel has no CUDA code for architecture {architecture}: leave --architecture out")
    return bytes(content)


def download(python: str, folder: Path) -> Path:
    """Download the wheel of onnxruntime-gpu for a Python version on Linux."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--platform=manylinux_2_28_x86_64", f"--python-version={python}", f"--dest={folder}"]
    subprocess.run([*command, "onnxruntime-gpu"], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)


def main() -> int:
    """Parse, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path, help=".onnx artifacts")
    parser.add_argument("-o", "--output", required=True, type=Path, help="a new folder")
    parser.add_argument("--python", default=".".join(map(str, sys.version_info[:2])), help="of the other machine")
    parser.add_argument("--architecture", type=int, help="of its GPU, such as 90; all unless given")
    parser.add_argument("--wheel", type=Path, help="of onnxruntime-gpu; downloaded unless given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            wheel = given.wheel or download(given.python, Path(folder))
            sizes = write_bundle(given.artifacts, given.output, wheel, given.architecture)
        except (RuntimeLibraryError, OSError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    for name, size in sizes.items():
        print(f"{size / 1e6:8.1f} MB  {given.output / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
