"""A walk through an HDF5 file that reads no data: nothing in it may lead out of it, or unpack to more than it can hold.

HDF5 follows links, external files and virtual sources wherever they point, and looks for a plug-in for a filter that it
does not know. All of that is in the structure of the file, which is read here alone.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import h5py

from maskrcnn.errors import CheckpointFormatError

# Filters that HDF5 itself brings and that only pack bytes: deflate, shuffle, checksum.
_FILTERS = (1, 2, 3)
# Weights hardly shrink when they are packed; zeros by a factor of a thousand.
_LARGEST_RATIO = 4
# A global heap, which holds texts of variable length: how it begins, its size; what precedes an object, its size last.
_HEAP, _HEAP_HEADER, _OBJECT = b"GCOL\x01", struct.Struct("<8xQ"), struct.Struct("<HHIQ")
_MOST_OBJECTS = 1_000_000  # in all heaps


def check_structure(file: h5py.File, path: Path) -> None:
    """Refuse a weight file that leads out of itself, or that declares more than it can hold.

    Args:
        file: Opened; no array is read.
        path: Of the file, for its size and for messages.

    Raises:
        CheckpointFormatError: A link, external storage, a virtual array, a named type, a foreign filter, a group with
            two names, arrays of more bytes than four times the file's size, or a heap that HDF5 would read for ever;
            the message names it.
    """
    _check_heaps(file, path)
    limit = path.stat().st_size
    declared = 0  # bytes of arrays
    waiting: list[h5py.Group] = [file]
    seen = {_address(file)}
    while waiting:
        group = waiting.pop()
        _check_attributes(group, path, limit)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointFormatError(f"{path} has a link at {where!r} in place of what it names: refused")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _check_array(item, path, where)
                declared += item.nbytes  # again for each name of it: each is read
            elif not isinstance(item, h5py.Group):
                raise CheckpointFormatError(f"{path} has neither a group nor an array at {where!r}: refused")
            elif _address(item) in seen:  # a circle, or as many ways through the file as there are grains of sand
                raise CheckpointFormatError(f"{path} has a group with two names, one of them {where!r}: refused")
            else:
                waiting.append(item)
                seen.add(_address(item))
            if declared > _LARGEST_RATIO * limit:
                raise CheckpointFormatError(
                    f"{path} declares more than {declared} bytes of arrays, but has {limit} itself: refused"
                )


def _check_heaps(file: h5py.File, path: Path) -> None:
    """Refuse a heap with an object that takes no space: HDF5 (1.14) goes on from it to itself."""
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise CheckpointFormatError(f"{path} has addresses or lengths of other than 8 bytes: refused")
    objects = 0
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        heap = content.find(_HEAP)
        while 0 <= heap <= len(content) - _HEAP_HEADER.size:
            end = min(heap + _HEAP_HEADER.unpack_from(content, heap)[0], len(content))
            place = heap + _HEAP_HEADER.size
            while place + _OBJECT.size <= end:
                index, _, _, size = _OBJECT.unpack_from(content, place)
                # Index 0 is what is free, and its size counts from here; HDF5 computes in 64 bits.
                step = (_OBJECT.size + (size + 7) // 8 * 8 if index else size) % 2**64
                objects += 1
                if step == 0 or objects > _MOST_OBJECTS:
                    raise CheckpointFormatError(f"{path} has a heap without end at byte {heap}: refused")
                place += step
            heap = content.find(_HEAP, heap + 1)


def _check_array(array: h5py.Dataset, path: Path, where: str) -> None:
    plan = array.id.get_create_plist()
    if plan.get_external_count() or array.is_virtual:
        raise CheckpointFormatError(f"{path} keeps the values of {where!r} outside itself: refused")
    for index in range(plan.get_nfilters()):
        if (found := plan.get_filter(index)[0]) not in _FILTERS:
            raise CheckpointFormatError(
                f"{path} packs {where!r} with filter {found} of HDF5: expected gzip or none, repack it with h5repack"
            )
    _check_attributes(array, path, path.stat().st_size)


def _check_attributes(item: Any, path: Path, limit: int) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        size = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
        if size > limit:
            raise CheckpointFormatError(f"{path} declares the attribute {name!r} with {size} bytes: refused")


def _address(group: h5py.Group) -> int:
    """Where an object is in the file; it may have several names."""
    return int(h5py.h5o.get_info(group.id).addr)
