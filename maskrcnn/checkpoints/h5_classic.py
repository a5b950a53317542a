"""HDF5 files as Keras writes them, read without the HDF5 library, which a crafted file can make crash.

What h5py writes unless told otherwise: superblock 0, groups with a symbol table (a B-tree and a heap of names), object
headers of version 1, arrays in one piece and without compression, attributes in the object header. Terms are those of
the HDF5 File Format Specification 3.0. Anything else it describes is `UnfamiliarError`; what it forbids is refused.

Every read is checked against the size of the file, no structure is read twice, and the number of structures is bounded
by the size of the file.
"""

import math
import os
import struct
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.h5_content import H5Array, H5Content, RefusedError, UnfamiliarError, check_declared

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_SUPERBLOCK = struct.Struct("<8s5xBB9xQ8xQQ")  # signature, sizes of addresses and lengths, base, end of file, driver
_ENTRY = struct.Struct("<QQI4x16x")  # of a symbol table: name, object header, kind
_ROOT = 56  # where the superblock has the entry of the root
_TREE, _TREE_SIZE = struct.Struct("<4sBBH16x"), 24  # signature, type, level, entries
_NODE = struct.Struct("<4sBxH")  # signature, version, entries
_NAMES = struct.Struct("<4sB3xQ8xQ")  # local heap: signature, version, size and address of the names
_HEADER = struct.Struct("<BxHII4x")  # version, messages, references, size
_MESSAGE = struct.Struct("<HHB3x")  # type, size, flags
_HEAP = struct.Struct("<4sB3xQ")  # global heap: signature, version, size
_OBJECT = struct.Struct("<HHIQ")  # of a global heap: index, references, size
_PAIR = struct.Struct("<QQ")
_TEXT = struct.Struct("<IQI")  # text in a global heap: length, heap, index
_UNDEFINED = 2**64 - 1
_SOFT_LINK = 2

# Types of messages.
_SPACE, _TYPE, _LAYOUT, _ATTRIBUTE, _MORE, _TABLE = 0x01, 0x03, 0x08, 0x0C, 0x10, 0x11
_SKIPPED = (0x00, 0x04, 0x05, 0x0E, 0x12)  # unused space, fill values, times
_DEEPEST = 100  # groups in groups, and levels of an index
_LONGEST = 4096  # bytes of a name
_LARGEST = 2**31 - 1  # number in a shape, and bytes of a text, that NumPy takes

# Exponents' place and size, mantissas' size and bias of IEEE numbers, by size in bytes.
_FLOATS = {2: (10, 5, 10, 15), 4: (23, 8, 23, 127), 8: (52, 11, 52, 1023)}
_FLOAT = struct.Struct("<HHBBBBI")
_HEAP_TEXT = np.dtype(f"V{_TEXT.size}")  # stands for the reference to a text; other texts are "S"


class _Message(NamedTuple):
    kind: int
    body: bytes
    place: int


@dataclass(frozen=True)
class _Object:
    """An object header: a group has a `table` (tree, names), an array a shape, a type and a place."""

    attributes: dict[str, str | list[str] | None]
    table: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    place: int = 0


def read_classic(stream: BinaryIO) -> H5Content:
    """List what is in a file; arrays are read later, while `stream` is open.

    Raises:
        RefusedError: The file is truncated or damaged, or refers to something outside itself.
        UnfamiliarError: The file has parts that Keras does not write.
    """
    return _Classic(stream).content()


def _damaged(what: str) -> NoReturn:
    raise RefusedError(f"is truncated or damaged: {what}")


class _Classic:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = stream.seek(0, os.SEEK_END)
        self._left = self._size // 8 + 64  # no structure is smaller than 8 bytes
        self._text_left = self._size
        self._seen: set[int] = set()  # addresses of groups and of the parts of symbol tables
        self._objects: dict[int, _Object] = {}
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._found = H5Content()
        self._declared = 0

    def content(self) -> H5Content:
        if self._size >= 9 and self._take(8, 1) != b"\0":
            raise UnfamiliarError
        signature, addresses, lengths, base, end, driver = self._unpack(_SUPERBLOCK, 0)
        if signature != SIGNATURE or (addresses, lengths, base, driver) != (8, 8, 0, _UNDEFINED):
            raise UnfamiliarError
        if end > self._size:
            _damaged(f"it is {self._size} bytes long and should have {end}")
        _, root, _ = self._unpack(_ENTRY, _ROOT)
        waiting = [("", root)]
        while waiting:
            path, address = waiting.pop()
            waiting += self._add(path, address)
        return self._found

    def _add(self, path: str, address: int) -> list[tuple[str, int]]:
        """Add an object to what was found; return the members of a group."""
        found = self._object(address)
        if found.table is None:
            self._add_array(path, found)
            return []
        self._first_time(address, f"has a group with two names, one of them {'/' + path!r}")
        if path.count("/") > _DEEPEST:
            _damaged(f"its groups are more than {_DEEPEST} deep")
        self._found.groups[path] = found.attributes
        prefix = f"{path}/" if path else ""
        return [(prefix + name, place) for name, place in reversed(self._members(*found.table, prefix))]

    def _add_array(self, path: str, found: _Object) -> None:
        if found.shape is None or found.dtype is None:
            raise RefusedError(f"has neither a group nor an array at {'/' + path!r}")
        size = math.prod(found.shape) * found.dtype.itemsize
        if found.place + size > self._size:
            raise RefusedError(f"declares more than {size} bytes of arrays, but is only {self._size} bytes long")
        self._declared += size
        check_declared(self._declared, self._size)
        if found.dtype == _HEAP_TEXT:
            if found.shape:
                raise UnfamiliarError
            self._found.texts[path] = self._text(self._take(found.place, _TEXT.size))
        else:
            self._found.arrays[path] = H5Array(found.shape, found.dtype, partial(self._read, found))

    def _read(self, found: _Object) -> NDArray[Any]:
        shape = found.shape or ()
        array = np.empty(math.prod(shape), found.dtype)
        self._stream.seek(found.place)
        if self._stream.readinto(array.view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
            _damaged("it became shorter while it was read")
        return array.reshape(shape)

    # Bytes

    def _take(self, place: int, count: int) -> bytes:
        if place + count > self._size:
            _damaged(f"something should be at byte {place}")
        self._stream.seek(place)
        content = self._stream.read(count)
        if len(content) != count:
            _damaged("it became shorter while it was read")
        return content

    def _unpack(self, form: struct.Struct, place: int) -> tuple[Any, ...]:
        return form.unpack(self._take(place, form.size))

    def _count(self, number: int = 1) -> None:
        self._left -= number
        if self._left < 0:
            _damaged("its parts lie over each other")

    def _first_time(self, address: int, otherwise: str = "is truncated or damaged: a part is used twice") -> None:
        if address in self._seen:
            raise RefusedError(otherwise)
        self._seen.add(address)

    # Groups

    def _members(self, tree: int, names: int, prefix: str) -> list[tuple[str, int]]:
        """Return names and addresses of the members of a group, in order."""
        signature, version, size, start = self._unpack(_NAMES, names)
        if signature != b"HEAP" or version != 0:
            _damaged(f"there are no names at byte {names}")
        self._first_time(names)
        heap = self._take(start, size)
        self._count(size // 8)
        members = []
        for node in self._nodes(tree):
            signature, version, entries = self._unpack(_NODE, node)
            if signature != b"SNOD" or version != 1:
                _damaged(f"there is no part of a group at byte {node}")
            self._count(entries)
            content = self._take(node + _NODE.size, entries * _ENTRY.size)
            for offset, address, kind in _ENTRY.iter_unpack(content):
                name = heap[offset : offset + _LONGEST].partition(b"\0")[0].decode(errors="replace")
                if kind == _SOFT_LINK:
                    raise RefusedError(f"has a link at {'/' + prefix + name!r}, which is not allowed")
                if not name or "/" in name:
                    _damaged(f"it has an object without a name in {'/' + prefix!r}")
                members.append((name, address))
        return members

    def _nodes(self, tree: int) -> list[int]:
        """Return the addresses of the leaves below a B-tree, in order."""
        self._first_time(tree)
        signature, kind, level, entries = self._unpack(_TREE, tree)
        if signature != b"TREE" or kind != 0 or level > _DEEPEST:
            _damaged(f"there is no index of a group at byte {tree}")
        self._count(entries)
        content = self._take(tree + _TREE_SIZE, entries * _PAIR.size)
        children = [child for _, child in _PAIR.iter_unpack(content)]
        if level:
            return [leaf for child in children for leaf in self._nodes_below(child, level)]
        for child in children:
            self._first_time(child)
        return children

    def _nodes_below(self, child: int, level: int) -> list[int]:
        if self._take(child, 6)[5] >= level:  # levels go down, which bounds the recursion
            _damaged(f"there is no index of a group at byte {child}")
        return self._nodes(child)

    # Object headers

    def _object(self, address: int) -> _Object:
        if address not in self._objects:
            self._objects[address] = self._new_object(address)
        return self._objects[address]

    def _new_object(self, address: int) -> _Object:
        attributes: dict[str, str | list[str] | None] = {}
        once: dict[int, _Message] = {}
        for message in self._messages(address):
            if message.kind == _ATTRIBUTE:
                name, value = self._attribute(message.body)
                attributes[name] = value
            elif message.kind in once:
                _damaged(f"the object at byte {address} is described twice")
            else:
                once[message.kind] = message
        if _TABLE in once:
            return _Object(attributes, _PAIR.unpack_from(_long(once[_TABLE].body, _PAIR.size)))
        if not once.keys() >= {_SPACE, _TYPE, _LAYOUT}:
            return _Object(attributes)
        dtype, shape = _dtype(once[_TYPE].body), _shape(once[_SPACE].body)
        if dtype is None or shape is None or dtype.kind == "S":
            raise UnfamiliarError
        layout = once[_LAYOUT]
        place = _place(layout.body, layout.place, math.prod(shape) * dtype.itemsize)
        return _Object(attributes, None, shape, dtype, place)

    def _messages(self, address: int) -> list[_Message]:
        if self._take(address, 4) == b"OHDR":
            raise UnfamiliarError
        version, expected, _, size = self._unpack(_HEADER, address)
        if version != 1:
            _damaged(f"there is no object at byte {address}")
        found: list[_Message] = []
        blocks, counted = [(address + _HEADER.size, size)], 0
        while blocks:
            start, size = blocks.pop(0)
            block = self._take(start, size)
            self._count(size // 8)
            place = 0
            while place + _MESSAGE.size <= size and counted < expected:
                kind, length, flags = _MESSAGE.unpack_from(block, place)
                body = block[place + _MESSAGE.size : place + _MESSAGE.size + length]
                if len(body) != length:
                    _damaged(f"the object at byte {address} ends too early")
                counted += 1
                if flags & 2 and kind not in _SKIPPED:  # it is elsewhere, shared with other objects
                    raise UnfamiliarError
                if kind == _MORE:
                    blocks.append(_PAIR.unpack_from(_long(body, _PAIR.size)))
                elif kind in (_SPACE, _TYPE, _LAYOUT, _ATTRIBUTE, _TABLE):
                    found.append(_Message(kind, body, start + place + _MESSAGE.size))
                elif kind not in _SKIPPED:
                    raise UnfamiliarError
                place += _MESSAGE.size + length
        return found

    # Attributes and texts

    def _attribute(self, body: bytes) -> tuple[str, str | list[str] | None]:
        version, named, typed, spaced = struct.unpack_from("<BxHHH", _long(body, 8))
        if version not in (1, 3) or (version == 3 and body[1]):
            raise UnfamiliarError
        start, step = (8, 8) if version == 1 else (9, 1)
        parts = []
        for size in (named, typed, spaced):
            parts.append(_long(body[start : start + size], size))
            start += -(-size // step) * step
        name = parts[0].partition(b"\0")[0].decode(errors="replace")
        dtype, shape = _dtype(parts[1]), _shape(parts[2])
        if shape is None or dtype is None:
            return name, None
        count = math.prod(shape)
        if count * dtype.itemsize > len(body) - start:
            _damaged(f"the attribute {name!r} should have {count * dtype.itemsize} bytes")
        values = [body[start + i * dtype.itemsize : start + (i + 1) * dtype.itemsize] for i in range(count)]
        if count and dtype.kind not in "SV":
            return name, None
        texts = [self._text(value) if dtype == _HEAP_TEXT else _decoded(value.rstrip(b"\0")) for value in values]
        return name, texts if shape else texts[0]

    def _text(self, reference: bytes) -> str:
        """Return a text of a global heap."""
        length, heap, index = _TEXT.unpack(reference)
        if length == 0:
            return ""
        if heap not in self._heaps:
            self._heaps[heap] = self._heap(heap)
        self._text_left -= length  # many may refer to the same one
        if self._text_left < 0:
            _damaged("its texts are longer than it is")
        content = self._heaps[heap].get(index, b"")
        if len(content) < length:
            _damaged(f"there is no text at byte {heap}")
        return _decoded(content[:length])

    def _heap(self, address: int) -> dict[int, bytes]:
        signature, version, size = self._unpack(_HEAP, address)
        if signature != b"GCOL" or version != 1:
            _damaged(f"there is no text at byte {address}")
        block, found, place = self._take(address, size), {}, _HEAP.size
        self._count(size // 8)
        while place + _OBJECT.size <= size:
            index, _, _, length = _OBJECT.unpack_from(block, place)
            if index == 0:  # unused space, up to the end
                if length == 0:
                    raise RefusedError(f"has an endless heap at byte {address}")
                break
            if length > size:
                raise RefusedError(f"has an endless heap at byte {address}")
            found[index] = block[place + _OBJECT.size : place + _OBJECT.size + length]
            place += _OBJECT.size + -(-length // 8) * 8
        return found


def _long(body: bytes, size: int) -> bytes:
    if len(body) < size:
        _damaged("a description is too short")
    return body


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        _damaged("a text is not UTF-8")


def _shape(body: bytes) -> tuple[int, ...] | None:
    """Return the shape that a dataspace message describes; None if there is no value at all."""
    version, rank, flags, kind = struct.unpack_from("<BBBB", _long(body, 4))
    if version not in (1, 2) or rank > 32 or flags > 1:
        raise UnfamiliarError
    if version == 2 and kind == 2:
        return None
    start = 8 if version == 1 else 4
    shape = struct.unpack_from(f"<{rank}Q", _long(body, start + 8 * rank), start)
    if 0 in shape and max(shape) > _LARGEST:
        _damaged(f"it declares an empty array of shape {shape}")
    return shape


def _dtype(body: bytes) -> np.dtype[Any] | None:
    """Return the type that a datatype message describes: number, text ("S"), `_HEAP_TEXT`, or else None."""
    head, bits, more, _, size = struct.unpack_from("<BBBBI", _long(body, 8))
    version, kind = head >> 4, head & 15
    if version not in (1, 2, 3):
        raise UnfamiliarError
    order = "<>"[bits & 1]
    if kind == 0 and size in (1, 2, 4, 8):
        if struct.unpack_from("<HH", _long(body, 12), 8) != (0, 8 * size):
            raise UnfamiliarError
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    if kind == 1 and size in _FLOATS:
        place, exponent, mantissa, bias = _FLOATS[size]
        usual = (0, 8 * size, place, exponent, 0, mantissa, bias)
        # The mantissa has a hidden one, and the sign is the last bit.
        if bits & 0x7E != 0x20 or more != 8 * size - 1 or _FLOAT.unpack_from(_long(body, 20), 8) != usual:
            raise UnfamiliarError
        return np.dtype(f"{order}f{size}")
    if kind == 3 and size > _LARGEST:
        _damaged(f"a text should have {size} bytes")
    if kind == 3 and size:
        return np.dtype(f"S{size}")
    if kind == 9 and bits & 15 == 1 and size == _TEXT.size:
        return _HEAP_TEXT
    return None


def _place(layout: bytes, place: int, size: int) -> int:
    """Return the address of the values that a layout message, itself at `place`, describes."""
    version, kind, stored = struct.unpack_from("<BBH", _long(layout, 4))
    if version != 3 or kind not in (0, 1):
        raise UnfamiliarError
    if kind == 0:  # they are in the message
        address = place + 4
    else:
        address, stored = _PAIR.unpack_from(_long(layout, 18), 2)
    if size == 0:
        return 0
    if address == _UNDEFINED:  # none were written
        raise UnfamiliarError
    if stored < size:
        _damaged(f"an array has {stored} bytes instead of {size}")
    return address
