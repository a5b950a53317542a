"""TIFF files of any samples, which Pillow does not write."""

import struct
import zlib

import numpy as np


def tiff(samples, *, order="<", separate=False, rows=None, tile=None, packed=False, predictor=1, more=()):
    """A TIFF of samples [H, W, C] of any type, with tags as GDAL and tifffile write them."""
    height, width, count = samples.shape
    kind = samples.dtype.newbyteorder(order)
    planes = [samples[:, :, band : band + 1] for band in range(count)] if separate else [samples]
    step = (rows or height, width) if tile is None else tile
    parts = []
    for plane in planes:
        for top in range(0, height, step[0]):
            for left in range(0, width, step[1]):
                part = plane[top : top + step[0], left : left + step[1]]
                if tile is not None:
                    part = np.pad(part, [(0, step[0] - part.shape[0]), (0, step[1] - part.shape[1]), (0, 0)])
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=part.dtype.type(0))
                data = part.astype(kind).tobytes()
                parts.append(zlib.compress(data) if packed else data)
    places = [8 + sum(map(len, parts[:index])) for index in range(len(parts))]
    names = (273, 279) if tile is None else (324, 325)
    bits, sample_kind = samples.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    tags = {256: [width], 257: [height], 258: [bits] * count, 259: [8 if packed else 1], 262: [1], 277: [count]}
    tags |= {284: [2 if separate else 1], 317: [predictor], 339: [sample_kind] * count, names[0]: places}
    tags |= {names[1]: [len(part) for part in parts]} | dict(more)
    tags |= {278: [step[0]]} if tile is None else {322: [step[1]], 323: [step[0]]}
    at = 8 + sum(map(len, parts))
    after, entries, values = at + 2 + 12 * len(tags) + 4, b"", b""
    for tag, numbers in sorted(tags.items()):
        short = tag in (258, 259, 262, 277, 284, 317, 339, 274)
        body = struct.pack(f"{order}{len(numbers)}{'H' if short else 'I'}", *numbers)
        if len(body) > 4:
            body, values = struct.pack(f"{order}I", after + len(values)), values + body + bytes(len(body) % 2)
        entries += struct.pack(f"{order}HHI", tag, 3 if short else 4, len(numbers)) + body.ljust(4, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at)
    return header + b"".join(parts) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values
