"""Metadata and digest of an `.onnx` file, written and read without the onnx package.

Protocol buffers concatenate: appending an encoded `ModelProto` that holds only `metadata_props` adds entries to the
model before it. So an artifact is `model || metadata || digest`, where the digest is the SHA-256 of all bytes before it
and the last entry of the file. Every ONNX tool reads the result; nothing has to parse it to check it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.errors import ArtifactCorruptError, ForeignArtifactError
from runtime.wire import field

METADATA_KEY = "maskrcnn"
_DIGEST_KEY = "maskrcnn_sha256"
_HEX_LENGTH = 64
# Field numbers in onnx.ModelProto, and of an output in its GraphProto.
_METADATA_PROPS = 14
_GRAPH, _GRAPH_OUTPUT = 7, 12
_LENGTH_DELIMITED = 2  # wire type; the others have fixed or self-delimiting sizes
_FIXED_SIZES = {1: 8, 5: 4}
_CHUNK = 1 << 20


def metadata_entry(key: str, value: str) -> bytes:
    """An encoded `ModelProto` with one entry in `metadata_props`."""
    pair = b"".join(field(number, text.encode()) for number, text in ((1, key), (2, value)))
    return field(_METADATA_PROPS, pair)


def further_outputs(tensors: Iterable[str]) -> bytes:
    """An encoded `ModelProto` that makes tensors of the model before it outputs, too; their types are inferred."""
    values = b"".join(field(_GRAPH_OUTPUT, field(1, name.encode())) for name in tensors)
    return field(_GRAPH, values)


def seal(model: bytes, metadata: str) -> bytes:
    """Append metadata and digest to a serialised model."""
    sealed = model + metadata_entry(METADATA_KEY, metadata)
    return sealed + metadata_entry(_DIGEST_KEY, hashlib.sha256(sealed).hexdigest())


def read_sealed(path: Path, verify_digest: bool = True) -> str:
    """Check a sealed file and return its metadata.

    Raises:
        ArtifactCorruptError: Truncated, not ONNX at all, or its bytes differ from the digest.
        ForeignArtifactError: A whole ONNX file that was not sealed by us.
    """
    with path.open("rb") as file:
        entries = dict(_metadata_props(file, path))
        size = file.seek(0, 2)
        tail_length = len(metadata_entry(_DIGEST_KEY, "0" * _HEX_LENGTH))
        if METADATA_KEY not in entries or _DIGEST_KEY not in entries:
            raise ForeignArtifactError(
                f"{path} is an ONNX file that maskrcnn-export did not write: "
                "export the checkpoint with 'maskrcnn-export onnx'"
            )
        if verify_digest:
            file.seek(0)
            digest = _sha256(file, size - tail_length)
            # The digest does not cover its own entry; every byte of that is known.
            if file.read() != metadata_entry(_DIGEST_KEY, digest):
                raise ArtifactCorruptError(
                    f"{path} was changed after it was exported (its SHA-256 differs): copy or export it again"
                )
    return entries[METADATA_KEY]


def recorded_file_digest(path: Path) -> str:
    """The digest that a sealed file records, whether or not its bytes have it."""
    with path.open("rb") as file:
        return dict(_metadata_props(file, path))[_DIGEST_KEY]


def content_digest(path: Path, verified: bool) -> str:
    """SHA-256 of a sealed file's bytes before its digest: the recorded one if those are known to have it."""
    tail_length = len(metadata_entry(_DIGEST_KEY, "0" * _HEX_LENGTH))
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - _HEX_LENGTH if verified else 0)
        return file.read().decode("ascii") if verified else _sha256(file, size - tail_length)


def _metadata_props(file: BinaryIO, path: Path) -> Iterator[tuple[str, str]]:
    """Walk the top-level fields; the graph, which is nearly the whole file, is skipped unread."""
    size = file.seek(0, 2)
    file.seek(0)
    if size == 0:
        raise ArtifactCorruptError(f"{path} is empty: copy or export it again")
    while file.tell() < size:
        tag = _read_varint(file, path)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _read_varint(file, path)
            continue
        if wire_type == _LENGTH_DELIMITED:
            length = _read_varint(file, path)
        elif wire_type in _FIXED_SIZES:
            length = _FIXED_SIZES[wire_type]
        else:
            raise ArtifactCorruptError(f"{path} is not an ONNX file")
        if file.tell() + length > size or number == 0:
            raise ArtifactCorruptError(f"{path} is truncated, or not an ONNX file: copy or export it again")
        if number == _METADATA_PROPS:
            yield _pair(file.read(length), path)
        else:
            file.seek(length, 1)


def _read_varint(file: BinaryIO, path: Path) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ArtifactCorruptError(f"{path} is truncated, or not an ONNX file: copy or export it again")


def _pair(payload: bytes, path: Path) -> tuple[str, str]:
    """Key and value of an encoded `StringStringEntryProto`."""
    texts: list[str] = []
    position = 0
    try:
        while position < len(payload):
            position += 1  # the tag; key comes first, value second
            length = shift = 0
            while payload[position] > 0x7F:
                length |= (payload[position] & 0x7F) << shift
                position, shift = position + 1, shift + 7
            length |= payload[position] << shift
            position += 1
            texts.append(payload[position : position + length].decode())
            position += length
        key, value = texts
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactCorruptError(f"{path}: its metadata is damaged: copy or export it again") from error
    return key, value


def _sha256(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0:
        chunk = file.read(min(_CHUNK, length))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()
