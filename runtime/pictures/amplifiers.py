"""Bounds on the work that a small file makes for a decoder, taken from the file's structure before a decoder sees it.

The limit of pixels does not bound it: readers go through padding, comments and tiny blocks byte by byte, progressive
JPEGs go over all pixels in every scan, and animations keep several images in memory.
"""

import os
import re
import struct
from collections.abc import Callable
from typing import IO

from PIL import JpegImagePlugin

from runtime.errors import ImageError

# Each segment, chunk or block of a file takes a reader some time, whatever its size: this many are allowed, and more if
# they have this many bytes on average.
_PARTS, _BYTES_PER_PART = 1000, 128
_MOST_IDLE = 2**16  # bytes of padding, white space and comments
# Each scan of a JPEG goes over all pixels. Encoders write about ten; ten at 100 megapixels take two seconds.
_MOST_SCANS, _USUAL_SCANS, _SCANNED_PIXELS = 200, 12, 1_200_000_000
# Some decoders need a multiple of the memory that the pixels take; their images count several times.
_WEIGHTS = {"WEBP": 2, "AVIF": 2}
_ANIMATED_WEIGHTS = {"WEBP": 4, "AVIF": 4}

_JPEG_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_JPEG_MARKER_IN_SCANS = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")  # no restarts, no escaped bytes
_SOS, _EOI = 0xDA, 0xD9
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # frame headers, which have the size
_PNM_HEADER = re.compile(rb"P[1-6f](?:\s|#[^\r\n]*[\r\n])")
_PNM_GAP = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*")
_PNM_TOKEN = re.compile(rb"[^\s#]+")


def weight(kind: str, *, animated: bool) -> int:
    """Return how often the pixels of an image of a format count, because decoding takes more memory."""
    return (_ANIMATED_WEIGHTS if animated else _WEIGHTS).get(kind, 1)


def check_structure(file: IO[bytes], kind: str, name: str) -> None:
    """Raise ImageError for a file that would take a decoder of its format absurdly long.

    Args:
        file: An image file, read from its beginning.
        kind: Its format.
        name: Of the file, for the message.
    """
    check = _CHECKS.get(kind)
    if check is None:
        return
    file.seek(0)
    problem = check(file)
    if problem:
        raise ImageError(f"{name} {problem}; encode the image again")


def _too_many(parts: int, at: int) -> bool:
    return parts > _PARTS + at // _BYTES_PER_PART


def _jpeg(file: IO[bytes]) -> str | None:
    data = file.read()
    at, idle, parts, pixels = 2, 0, 0, 0
    while True:
        found = _JPEG_MARKER.search(data, at, at + _MOST_IDLE - idle + 2)
        if found is None:
            stays = len(data) - at + idle > _MOST_IDLE
            return f"has more than {_MOST_IDLE} bytes of padding in front of its pixels" if stays else None
        idle, at, marker = idle + found.start() - at, found.end(), found[1][0]
        parts += 1
        if _too_many(parts, at):
            return f"has {parts} tiny segments in front of its pixels"
        if marker == _SOS:
            return _jpeg_scans(data, at, pixels)
        if JpegImagePlugin.MARKER.get(0xFF00 | marker, (None, None, None))[2] is not None:
            if marker in _SIZES and len(data) >= at + 7:
                height, width = struct.unpack_from(">HH", data, at + 3)
                pixels = height * width
            at += _length(data, at)


def _jpeg_scans(data: bytes, at: int, pixels: int) -> str | None:
    most = min(_MOST_SCANS, max(_USUAL_SCANS, _SCANNED_PIXELS // max(pixels, 1)))
    scans, parts = 1, 0
    at += _length(data, at)
    while found := _JPEG_MARKER_IN_SCANS.search(data, at):
        at, marker = found.end(), found[1][0]
        if marker == _EOI:
            break
        scans, parts = scans + (marker == _SOS), parts + 1
        if scans > most:
            return f"has more than {most} scans of {pixels} pixels"
        if _too_many(parts, at):
            return f"has {parts} tiny segments"
        at += _length(data, at)
    return None


def _length(data: bytes, at: int) -> int:
    return max(2, int.from_bytes(data[at : at + 2], "big"))


def _png(file: IO[bytes]) -> str | None:
    data = file.read()
    at, parts, pixels_began = 8, 0, False
    while at + 8 <= len(data):
        (size,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        if kind == b"IEND" or (kind == b"fcTL" and pixels_began):  # of an animation, only the first frame is read
            break
        at, parts, pixels_began = at + 12 + size, parts + 1, pixels_began or kind == b"IDAT"
        if _too_many(parts, at):
            return f"has {parts} tiny chunks"
    return None


def _gif(file: IO[bytes]) -> str | None:
    data = file.read()
    if len(data) < 13:
        return None
    at, parts, images, idle = 13 + _gif_colors(data[10]), 0, 0, 0
    while at < len(data) and images < 2 and data[at] != 0x3B:
        if data[at] == 0x2C:
            images += 1
            at += 11 + (_gif_colors(data[at + 9]) if at + 9 < len(data) else 0)
        elif data[at] == 0x21:
            at += 2
        else:
            at, idle = at + 1, idle + 1
            if idle > _MOST_IDLE:
                return f"has more than {_MOST_IDLE} bytes of padding"
            continue
        while at < len(data) and data[at]:
            at, parts = at + 1 + data[at], parts + 1
            if _too_many(parts, at):
                return f"has {parts} tiny blocks"
        at += 1
    return None


def _gif_colors(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _pnm(file: IO[bytes]) -> str | None:
    """Check the header: two or three numbers with white space and comments between them."""
    header = file.read(_MOST_IDLE + 64)
    found = _PNM_HEADER.match(header)
    if found is None:
        return None
    at = found.end()
    for _ in range(2 if header[1:2] in b"14" else 3):
        gap = _PNM_GAP.match(header, at)
        token = _PNM_TOKEN.match(header, gap.end() if gap else at)
        if token is None:
            return f"has a header of more than {_MOST_IDLE} bytes" if len(header) > _MOST_IDLE else None
        at = token.end()
    return None


def _bmp(file: IO[bytes]) -> str | None:
    """Check run lengths, which are decoded one by one."""
    data = file.read(34)
    if len(data) < 34 or int.from_bytes(data[30:34], "little") not in (1, 2):
        return None
    width, height = struct.unpack_from("<ii", data, 18)
    least = 2 * abs(width * height) + 4 * abs(height) + _MOST_IDLE
    return "has more run lengths than pixels" if file.seek(0, os.SEEK_END) > least else None


def _tiff(file: IO[bytes]) -> str | None:
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    number = f"{order}{'Q' if big else 'I'}"
    try:
        file.seek(struct.unpack_from(number, head, 8 if big else 4)[0])
        (entries,) = struct.unpack(number if big else f"{order}H", file.read(8 if big else 2))
    except (struct.error, OSError, OverflowError):
        return None
    return f"has {entries} tags" if entries > _PARTS else None


_CHECKS: dict[str, Callable[[IO[bytes]], str | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "PPM": _pnm,
    "BMP": _bmp,
    "TIFF": _tiff,
}


def webp_size(prefix: bytes) -> tuple[tuple[int, int], bool] | None:
    """Return the (width, height) of a WebP file and whether it is animated, from its first 30 bytes; None if damaged.

    The decoder allocates memory for both when it is made, before it tells the size.
    """
    kind, body = prefix[12:16], prefix[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return (width, height), bool(body[0] & 2)
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), False
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return (width & 0x3FFF, height & 0x3FFF), False
    return None
