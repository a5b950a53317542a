"""Opening a weights file that is not trusted, whoever wrote it; what is something else is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from maskrcnn.checkpoints.h5_apart import read_apart
from maskrcnn.checkpoints.h5_classic import SIGNATURE, read_classic
from maskrcnn.checkpoints.h5_content import H5Content, RefusedError, UnfamiliarError
from maskrcnn.errors import CheckpointFormatError, CheckpointNotFoundError

_EXPECTED = "expected a matterport .h5 or a checkpoint saved by maskrcnn"
_LEGACY = "in the program that made it, load it and save the model with model.save('NAME.h5'), which names each layer"
_PYTORCH = "weights of PyTorch, whose networks have other layers"
_ARTIFACT = "a graph without a configuration to train or export: give the checkpoint that it was made from"
# What the first bytes of a file say, and what a suffix says if they do not.
_STARTS = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"<": "a web page: download the file again",
    b"{": "JSON, not weights: give it with --config if it is a configuration",
}
_SUFFIXES = {
    ".keras": f"a Keras 3 archive: {_LEGACY}",
    ".onnx": f"an ONNX file, {_ARTIFACT}",
    ".tflite": f"a TensorFlow Lite file, {_ARTIFACT}",
    ".pb": f"a TensorFlow graph, {_ARTIFACT}",
}
PYTORCH_SUFFIXES = (".pth", ".pt", ".pkl", ".bin", ".safetensors")
SUFFIXES = (".h5", *PYTORCH_SUFFIXES, *_SUFFIXES, ".ckpt", ".index")  # of weights files, ours and others'
_TENSORFLOW = (
    f"part of a TensorFlow checkpoint: {_LEGACY}; models of Model Garden and of the TensorFlow Object Detection API "
    "are other networks, which are not supported"
)
_TABLE_END = bytes.fromhex("57fb808b247547db")  # of the index of a TensorFlow checkpoint


@contextmanager
def open_h5(path: Path) -> Iterator[H5Content]:
    """Read the structure of an HDF5 file; its arrays can be read inside the `with` block.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFormatError: The file is empty, truncated, damaged, unsafe or not HDF5.
    """
    check_kind(path, "a .h5 file")
    try:
        with path.open("rb") as stream:
            _check_start(path, stream)
            try:
                content = read_classic(stream)
            except UnfamiliarError:
                content = read_apart(stream)
            yield content
    except RefusedError as error:
        raise CheckpointFormatError(f"{path} {error}") from error
    except OSError as error:
        if isinstance(error, CheckpointNotFoundError):
            raise
        raise CheckpointFormatError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def keras3_hint(content: H5Content) -> str | None:
    """Return what to do about a file without named weights, if Keras 3 wrote it."""
    if not any(path.split("/")[-1] == "vars" for path in content.groups):
        return None
    return f"is a Keras 3 .weights.h5, which numbers layers instead of naming them: {_LEGACY}"


def check_kind(path: Path, expected: str) -> None:
    """Refuse what is no file.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFormatError: It is a folder, a pipe or a device.
    """
    if not path.exists():
        if Path(f"{path}.index").exists():
            raise CheckpointFormatError(f"{path} is {_TENSORFLOW}")
        raise CheckpointNotFoundError(f"there is no checkpoint at {path}")
    if path.is_dir():
        raise CheckpointFormatError(f"{path} is {_folder(path, expected)}")
    if not path.is_file():  # reading a pipe could block forever
        raise CheckpointFormatError(f"{path} is a pipe or a device: expected {expected}")


def _folder(path: Path, expected: str) -> str:
    if (path / "saved_model.pb").exists():
        return f"a SavedModel folder, {_ARTIFACT}"
    inside = next((name for name in ("best.weights.h5", "last.weights.h5") if (path / name).is_file()), None)
    return f"a folder: {f'give {path / inside}' if inside else f'expected {expected}'}"


def _check_start(path: Path, stream: BinaryIO) -> None:
    """Refuse what is no HDF5, and say what it is."""
    head = stream.read(64)
    if not head:
        raise CheckpointFormatError(f"{path} is empty: copy or download it again")
    if not head.startswith(SIGNATURE):
        raise CheckpointFormatError(f"{path} is not an HDF5 file{_what(path, head, stream)}")


def _what(path: Path, head: bytes, stream: BinaryIO) -> str:
    hint = _PYTORCH if is_pytorch(path, head) else other_kind(path, head, stream)
    if hint is None:
        return f": {_EXPECTED}"
    return f" but {hint}" if ": " in hint else f" but {hint}: {_EXPECTED}"


def is_pytorch(path: Path, head: bytes) -> bool:
    """Return whether a file has the name or the first bytes of weights of PyTorch."""
    is_pickle = head.startswith(b"\x80") or (head.startswith(b"PK") and b"/data.pkl" in head)
    return is_pickle or path.suffix.lower() in PYTORCH_SUFFIXES


def other_kind(path: Path, head: bytes, stream: BinaryIO) -> str | None:
    """Return what a file is that is neither HDF5 nor of PyTorch, and what to do; None if that is not known."""
    if head.startswith(b"PK") and head[30:].startswith((b"metadata.json", b"config.json")):
        return _SUFFIXES[".keras"]
    if head[4:8] == b"TFL3":
        return _SUFFIXES[".tflite"]
    stream.seek(-min(8, stream.seek(0, 2)), 2)
    if stream.read() == _TABLE_END or ".data-0" in path.name or path.suffix in (".ckpt", ".index"):
        return _TENSORFLOW
    hints = (hint for start, hint in _STARTS.items() if head.lstrip().startswith(start))
    return _SUFFIXES.get(path.suffix) or next(hints, None)
