"""Samples that Pillow's images cannot hold: 16 bits in color, and TIFF files with any number of bands.

Pillow decodes them all the same: the low bytes of 16-bit colors if it is told the other byte order, and many bands as
one band of a wider image.
"""

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from runtime.errors import ImageError
from runtime.one_line import count_of
from runtime.pictures.pixels import Samples

_OTHER_ORDER = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
_FLOATS = 3  # predictor
_PNM_NUMBER = 3  # numbers in the header of P5 and P6

# Compressions whose data does not depend on the number of bands, except for the predictor.
_COMPRESSIONS = (1, 5, 8, 32773, 32946, 50000)
_PREDICTED = (5, 8, 32946, 50000)  # of those, the ones that a predictor goes with
_BITS = {
    (8, 1): np.uint8,
    (16, 1): np.uint16,
    (16, 2): np.int16,
    (32, 1): np.uint32,
    (32, 2): np.int32,
    (32, 3): np.float32,
}
# How libtiff hands over samples, by the order in the file: it swaps bytes itself, and Pillow would swap them again.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF", "I;32S": "I;32NS", "F;32F": "F;32NF"}
_SHOWN_KINDS = {1: "unsigned", 2: "signed", 3: "float"}
_LONG, _SHORT = 4, 3
_WIDTH, _HEIGHT, _DEPTHS, _COMPRESSION, _PHOTOMETRIC, _BANDS, _PLANES, _PREDICTOR = (
    256,
    257,
    258,
    259,
    262,
    277,
    284,
    317,
)
_STRIP_PLACES, _STRIP_SIZES, _STRIP_ROWS = 273, 279, 278
_TILE_WIDTH, _TILE_HEIGHT, _TILE_PLACES, _TILE_SIZES, _KINDS, _ORIENTATION = 322, 323, 324, 325, 339, 274


def deep_color(image: Image.Image) -> bool:
    """Return whether the colors of an image that is not decoded yet have 16 bits in its file."""
    return image.mode in ("RGB", "RGBA", "RGBX") and any(_order(tile[3]) for tile in getattr(image, "tile", ()))


def read_deep_color(image: Image.Image, other: Any) -> Samples:
    """Decode 16-bit colors, uint16 [H, W, 1, 3 or 4], from two openings of one file."""
    gray: Samples
    if any(_rawmode(tile[3]) == "LA;16B" for tile in other.tile):  # four bytes a pixel: both bytes of gray, of alpha
        other.tile = [tile._replace(args=_with_rawmode(tile.args, "RGBA")) for tile in other.tile]
        gray = np.asarray(other)[:, :, :2].astype(np.uint16)
        return (gray[:, :, :1] << 8) | gray[:, :, 1:]
    other.tile = [tile._replace(args=_with_rawmode(tile.args, _swapped(tile.args))) for tile in other.tile]
    colors: Samples = (np.asarray(image).astype(np.uint16) << 8) | np.asarray(other)
    return colors


def _rawmode(arguments: Any) -> str:
    found = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return found if isinstance(found, str) else ""


def _order(arguments: Any) -> str:
    return _OTHER_ORDER.get(_rawmode(arguments)[-4:], "")


def _swapped(arguments: Any) -> str:
    return _rawmode(arguments)[:-4] + _order(arguments)


def _with_rawmode(arguments: Any, rawmode: str) -> Any:
    return (rawmode, *arguments[1:]) if isinstance(arguments, tuple) else rawmode


def note_native_order(image: Any) -> None:
    """Tell Pillow of an opened TIFF file that compressed samples will be in the order of this machine."""
    image.tile = [
        tile._replace(args=_with_rawmode(tile.args, _NATIVE[_rawmode(tile.args)]))
        if tile.codec_name == "libtiff" and _rawmode(tile.args) in _NATIVE
        else tile
        for tile in image.tile
    ]


def read_pnm(data: bytes) -> tuple[Samples, int] | None:
    """Decode a binary PGM or PPM whose maximum is not 255: [H, W, 1 or 3] and the maximum; None for other files.

    Raises:
        ImageError: Its data is cut off.
    """
    if data[:2] not in (b"P5", b"P6"):
        return None
    numbers: list[int] = []
    at = 2
    while len(numbers) < _PNM_NUMBER:
        while data[at : at + 1].isspace() or data[at : at + 1] == b"#":
            at = min(_line_end(data, at), len(data)) if data[at : at + 1] == b"#" else at + 1
        end = at
        while data[end : end + 1].isdigit():
            end += 1
        if not 0 < end - at < 10:
            return None
        numbers.append(int(data[at:end]))
        at = end
    width, height, most = numbers
    if not 0 < most < 2**16 or most == 255:
        return None
    kind = np.dtype(">u2" if most > 255 else "u1")
    count = width * height * (3 if data[1:2] == b"6" else 1)
    if len(data) - at - 1 < count * kind.itemsize:
        raise ImageError("its data is cut off")
    samples = np.frombuffer(data, kind, count, at + 1).reshape(height, width, -1)
    return samples.astype(kind.newbyteorder("=")), most


def _line_end(data: bytes, at: int) -> int:
    ends = [end for end in (data.find(b"\n", at), data.find(b"\r", at)) if end >= 0]
    return min(ends, default=len(data))


@dataclass(frozen=True)
class Bands:
    """The first image of a TIFF file, as its tags describe it."""

    tags: Any
    width: int
    height: int
    count: int
    bits: int
    kind: int  # 1 unsigned, 2 signed, 3 floating point

    @property
    def orientation(self) -> int:
        """As in EXIF."""
        return int(self.tags.get(_ORIENTATION, 1))

    @property
    def predictor(self) -> int:
        """How samples are stored: 1 as they are, 2 as differences, 3 as differences of the bytes of floats."""
        return int(self.tags.get(_PREDICTOR, 1)) if self.tags.get(_COMPRESSION, 1) in _PREDICTED else 1

    @property
    def described(self) -> str:
        """The bands in words, for messages."""
        kind = _SHOWN_KINDS.get(self.kind, "unknown")
        return f"a TIFF file with {count_of(self.count, 'band')} of {self.bits} bits ({kind})"


def tiff_bands(file: IO[bytes]) -> Bands | None:
    """Describe the first image of a TIFF file; None if it is none, or damaged."""
    file.seek(0)
    head = file.read(8)
    if head[2:4] in (b"+\0", b"\0+"):
        head += file.read(8)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        depths, kinds = (_several(tags.get(tag, 1)) for tag in (_DEPTHS, _KINDS))
        width, height, count = (int(tags[tag]) for tag in (_WIDTH, _HEIGHT, _BANDS))
        if len(set(depths)) != 1 or len(set(kinds)) != 1 or min(width, height, count) < 1:
            return None
        return Bands(tags, width, height, count, int(depths[0]), int(kinds[0]))
    except Exception:  # noqa: BLE001  (as many types as for any damaged file)
        return None


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def read_bands(data: bytes, found: Bands, wanted: Sequence[int] | None) -> Samples:
    """Decode bands of a TIFF file, counted from 1: [H, W, C], not turned.

    Raises:
        ImageError: It has samples or a compression that cannot be read in this way, or lacks a band.
        Exception: What Pillow raises for damaged files.
    """
    dtype, tags = _BITS.get((found.bits, found.kind)), found.tags
    compression, predictor = tags.get(_COMPRESSION, 1), found.predictor
    known = predictor in (1, 2) or (predictor == _FLOATS and dtype is np.float32)
    if dtype is None or compression not in _COMPRESSIONS or not known:
        raise ImageError(
            f"is {found.described}, compression {compression} and predictor {predictor}, which cannot be read band by "
            "band: save it without compression in 8, 16 or 32 bits"
        )
    separate = tags.get(_PLANES, 1) == 2
    chosen = list(wanted or range(1, found.count + 1))
    if max(chosen) > found.count:
        raise ImageError(f"has {found.count} bands; band {max(chosen)} was asked for: choose from 1 to {found.count}")
    if separate:
        planes = {band: _plane(data, found, dtype, 1, band - 1) for band in set(chosen)}
        samples = np.concatenate([planes[band] for band in chosen], axis=2)
    else:
        samples = _plane(data, found, dtype, found.count, 0)[:, :, [band - 1 for band in chosen]]
    return samples


def _plane(data: bytes, found: Bands, dtype: Any, bands: int, plane: int) -> Samples:
    """Decode one plane with its bands side by side in each pixel: [H, W, bands]."""
    tags = found.tags
    tiled = _TILE_PLACES in tags
    names = (_TILE_PLACES, _TILE_SIZES) if tiled else (_STRIP_PLACES, _STRIP_SIZES)
    places, sizes = (_several(tags[name]) for name in names)
    across, down = (int(tags[_TILE_WIDTH]), int(tags[_TILE_HEIGHT])) if tiled else (found.width, 0)
    rows = down if tiled else min(int(tags.get(_STRIP_ROWS, found.height)), found.height)
    columns = -(-found.width // max(across, 1))
    width = columns * across  # with the padding of tiles, which predictors run through
    parts = -(-found.height // max(rows, 1)) * columns
    part = slice(plane * parts, (plane + 1) * parts)
    relabeled = {
        _WIDTH: [width * bands],
        _HEIGHT: [found.height],
        _DEPTHS: [found.bits],
        _COMPRESSION: [int(tags.get(_COMPRESSION, 1))],
        _PHOTOMETRIC: [1],
        _BANDS: [1],
        _KINDS: [2 if (found.bits, found.kind) == (32, 1) else found.kind],  # the same bits, and Pillow has a mode
        names[0]: [int(place) for place in places[part]],
        names[1]: [int(size) for size in sizes[part]],
    }
    relabeled |= {_TILE_WIDTH: [across * bands], _TILE_HEIGHT: [down]} if tiled else {_STRIP_ROWS: [rows]}
    with TiffImagePlugin.TiffImageFile(BytesIO(_with_directory(data, relabeled))) as image:
        note_native_order(image)
        samples = np.array(image).reshape(found.height, width, bands)
    samples = samples.astype(dtype, copy=False)
    for left in range(0, width, across):
        block = samples[:, left : left + across]
        if found.predictor == 2:  # each sample is stored as the difference to the one on its left
            bits = block.view(f"u{block.itemsize}")  # of floats, too
            np.cumsum(bits, axis=1, dtype=bits.dtype, out=bits)
        elif found.predictor == _FLOATS:
            block[:] = _joined_floats(block, swapped=data[:2] == b"MM")
    return samples[:, : found.width]


def _joined_floats(stored: Samples, *, swapped: bool) -> Samples:
    """Undo the predictor of floats, float32 [H, W, C]: in a row, first bytes come first, each as a difference."""
    height, width, bands = stored.shape
    order = ">f4" if swapped else "<f4"  # libtiff has taken the bytes for floats in the order of the file
    differences = np.ascontiguousarray(stored).astype(order).view(np.uint8).reshape(height, -1, bands)
    planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(height, 4, width * bands)
    floats = np.ascontiguousarray(planes.swapaxes(1, 2)).view(">f4")
    return floats.astype(np.float32).reshape(height, width, bands)


def _with_directory(data: bytes, tags: dict[int, list[int]]) -> bytes:
    """Return a TIFF file with the same data and other tags, in the byte order of its samples."""
    order = "<" if data[:2] == b"II" else ">"
    at = len(data) + len(data) % 2
    after = at + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            entries += struct.pack(f"{order}HHII", tag, _LONG, len(numbers), after + len(values))
            values += packed
        elif tag in (_DEPTHS, _COMPRESSION, _PHOTOMETRIC, _BANDS, _KINDS):
            entries += struct.pack(f"{order}HHIHH", tag, _SHORT, 1, numbers[0], 0)
        else:
            entries += struct.pack(f"{order}HHI", tag, _LONG, 1) + packed
    header = data[:2] + struct.pack(f"{order}HI", 42, at)
    return header + data[8:] + bytes(at - len(data)) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values
