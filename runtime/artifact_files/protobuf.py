"""The part of the protocol buffer wire format that ONNX files need."""

import mmap
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import ArtifactCorruptError, ArtifactError

_VARINT, _LENGTH_DELIMITED = 0, 2  # wire types; the others have fixed sizes
_FIXED_SIZES = {1: 8, 5: 4}
_LARGEST_NUMBER = 2**29 - 1  # of a field; engines truncate larger ones, and would read another field than we do


def field(number: int, payload: bytes | memoryview) -> bytes:
    """Encode a field of bytes, text or a message."""
    return b"".join((_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(payload)), payload))


def varint_field(number: int, value: int) -> bytes:
    """Encode a field of a non-negative integer."""
    return _varint(number << 3 | _VARINT) + _varint(value)


def map_file(path: Path) -> memoryview:
    """Map a file into memory: only the pages that are accessed are read."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ArtifactError(f"cannot read the artifact at {path}: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactCorruptError(f"{path} is empty: copy or export it again") from error


def read_fields(message: bytes | memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield number, content and complete encoding of each field of a message, in order, without copying.

    Raises:
        ArtifactCorruptError: The message is truncated or invalid.
    """
    view = memoryview(message)
    begin = 0
    while begin < len(view):
        tag, position = _read_varint(view, begin)
        wire_type = tag & 7
        if wire_type == _VARINT:
            end = _read_varint(view, position)[1]
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(view, position)
            end = position + length
        else:
            end = position + _FIXED_SIZES.get(wire_type, len(view) + 1)
        if end > len(view) or not 0 < tag >> 3 <= _LARGEST_NUMBER:
            raise ArtifactCorruptError("a message of the ONNX file is damaged: copy or export it again")
        yield tag >> 3, view[position:end], view[begin:end]
        begin = end


def read_varints(content: bytes | bytearray | memoryview) -> list[int]:
    """Return the numbers of a field: one, or several in packed form."""
    view, position, found = memoryview(content), 0, []
    while position < len(view):
        value, position = _read_varint(view, position)
        found.append(value)
    return found


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """Return the number and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ArtifactCorruptError("a message of the ONNX file is damaged: copy or export it again")
