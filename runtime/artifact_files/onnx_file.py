"""Metadata and digest of an `.onnx` file, written and read without the onnx package.

Protocol buffers can be concatenated: an encoded `ModelProto` with only `metadata_props`, appended to a model, adds
entries to it. So an artifact is `model || metadata || digest`, where the digest is the SHA-256 of all bytes before it
and the last entry of the file. Every ONNX tool can read the result, and no parser is needed to check it.
"""

import hashlib
import shlex
from pathlib import Path
from typing import BinaryIO

from runtime.artifact_files.protobuf import field, map_file, read_fields
from runtime.errors import ArtifactCorruptError, ForeignArtifactError
from runtime.pictures.header import PICTURE_SUFFIXES

METADATA_KEY = "maskrcnn"
_DIGEST_KEY = "maskrcnn_sha256"
ON_PURPOSE = "; if it was changed on purpose, seal it again with 'maskrcnn edit ARTIFACT'"  # for messages
_HEX_LENGTH = 64
# Field numbers in onnx.ModelProto and in the StringStringEntryProto of its metadata.
_METADATA_PROPS = 14
_KEY, _VALUE = 1, 2
_CHUNK = 1 << 20
LARGEST_METADATA = 2**26  # bytes
_LARGEST_FILE = 2**31 - 1  # bytes, the limit of protocol buffers
_CHECKPOINTS = (".h5", ".pth", ".pt", ".pkl", ".safetensors")
_HDF5 = b"\x89HDF\r\n\x1a\n"


def metadata_entry(key: str, value: str) -> bytes:
    """Return an encoded `ModelProto` with one entry in `metadata_props`."""
    pair = b"".join(field(number, text.encode()) for number, text in ((_KEY, key), (_VALUE, value)))
    return field(_METADATA_PROPS, pair)


def seal(model: bytes, metadata: str) -> bytes:
    """Append metadata and digest to a serialized model."""
    sealed = model + metadata_entry(METADATA_KEY, metadata)
    return sealed + metadata_entry(_DIGEST_KEY, hashlib.sha256(sealed).hexdigest())


def read_sealed(path: Path, verify_digest: bool = True) -> str:
    """Check a sealed file and return its metadata.

    Raises:
        ArtifactCorruptError: It is truncated, not ONNX, or its bytes differ from the digest.
        ForeignArtifactError: It is an ONNX file without our metadata.
    """
    entries = _metadata_props(path)
    if METADATA_KEY not in entries or _DIGEST_KEY not in entries:
        refuse_other_kind(path)
        raise ForeignArtifactError(
            f"{path} is an ONNX file that maskrcnn-export did not write: "
            "export the checkpoint with 'maskrcnn export onnx'"
        )
    if verify_digest:
        with path.open("rb") as file:
            digest = _content_sha256(file)
            # The digest does not cover its own entry, but all bytes of that are known.
            if file.read() != metadata_entry(_DIGEST_KEY, digest):
                raise ArtifactCorruptError(
                    f"{path} was changed after it was exported (its SHA-256 differs): copy or export it again"
                    + ON_PURPOSE
                )
    return entries[METADATA_KEY]


def needs_export(model: str | Path) -> ForeignArtifactError:
    """Return the error for a checkpoint where an artifact is needed."""
    return ForeignArtifactError(
        f"{model} is a checkpoint, not an artifact: export it first: maskrcnn export onnx {shlex.quote(str(model))}"
    )


def refuse_other_kind(path: Path) -> None:
    """Say what a file that cannot be read as an artifact is, if it is a checkpoint or an image."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if suffix in _CHECKPOINTS or start == _HDF5:
        raise needs_export(path)
    if suffix in PICTURE_SUFFIXES:
        raise ForeignArtifactError(f"{path} is an image, not a model: give an .onnx file or a SavedModel folder")


def recorded_file_digest(path: Path) -> str:
    """Return the digest recorded in a sealed file, without checking it."""
    return _metadata_props(path)[_DIGEST_KEY]


def content_digest(path: Path, verified: bool) -> str:
    """Return the SHA-256 of a sealed file's bytes before its digest; `verified`: the recorded one is known to be it."""
    if verified:
        return recorded_file_digest(path)
    with path.open("rb") as file:
        return _content_sha256(file)


def read_model(path: Path) -> bytes:
    """Return a sealed file's model, without our metadata and digest."""
    ours = (METADATA_KEY, _DIGEST_KEY)
    fields = read_fields(map_file(path))
    return b"".join(
        whole for number, content, whole in fields if number != _METADATA_PROPS or _pair(content)[0] not in ours
    )


def file_graph_digest(path: Path) -> str:
    """Return the SHA-256 of everything in a model but its metadata: of what computes."""
    digest = hashlib.sha256()
    for number, _, encoding in read_fields(map_file(path)):
        if number != _METADATA_PROPS:
            digest.update(encoding)
    return digest.hexdigest()


def _metadata_props(path: Path) -> dict[str, str]:
    """Return values by key; the graph, nearly the whole file, is skipped without reading it."""
    content = map_file(path)
    if len(content) > _LARGEST_FILE:
        refuse_other_kind(path)
        raise ArtifactCorruptError(f"{path} has {len(content)} bytes, and an ONNX file at most {_LARGEST_FILE}")
    try:
        entries = [entry for number, entry, _ in read_fields(content) if number == _METADATA_PROPS]
    except ArtifactCorruptError as error:
        refuse_other_kind(path)
        raise ArtifactCorruptError(f"{path} is truncated, or not an ONNX file: copy or export it again") from error
    try:
        return dict(_pair(entry) for entry in entries)
    except (ArtifactCorruptError, UnicodeDecodeError) as error:
        raise ArtifactCorruptError(f"{path}: its metadata is damaged: copy or export it again") from error


def _pair(entry: memoryview) -> tuple[str, str]:
    if len(entry) > LARGEST_METADATA:
        raise ArtifactCorruptError("it is too long")
    texts = {number: str(content, "utf-8") for number, content, _ in read_fields(entry)}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _content_sha256(file: BinaryIO) -> str:
    """Return the SHA-256 of all bytes before the digest's entry, and leave the file there."""
    length = file.seek(0, 2) - len(metadata_entry(_DIGEST_KEY, "0" * _HEX_LENGTH))
    file.seek(0)
    digest = hashlib.sha256()
    while length > 0:
        chunk = file.read(min(_CHUNK, length))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()
