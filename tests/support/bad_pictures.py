"""Bad and odd pictures, made on the fly: each must be refused in one line, or be read as the picture that it is.

A case is a name, a source, and what must come of it: "refused", "read", or "either" where decoders may differ.
"""

import os
import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_NOISE = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
_DEEP = (np.arange(HEIGHT * WIDTH) * 20).reshape(HEIGHT, WIDTH).astype(np.uint16)


def encode(image, kind="PNG", **options):
    """The bytes of a file."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def good_picture(kind="PNG"):
    """A sound file of noise, [48, 64]."""
    return encode(Image.fromarray(_NOISE), kind)


def png(width, height, depth=8, color=2, data=b"", extra=()):
    """A PNG of a declared size, whatever its data."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def tiff_of_samples(samples, *, order="<", separate=False, rows=None, tile=None, packed=False, predictor=1, more=()):
    """A TIFF of samples [H, W, C] of any type, with tags as GDAL and tifffile write them; Pillow does not.

    `packed` is True for deflate, or the name that Pillow has for another compression.
    """
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
                    bits = part.view(f"u{part.itemsize}")
                    part = np.diff(bits, axis=1, prepend=bits.dtype.type(0)).view(part.dtype)
                data = part.astype(kind).tobytes() if predictor != 3 else _float_differences(part)
                parts.append(_packed(data, packed, part.shape[0]))
    places = [8 + sum(map(len, parts[:index])) for index in range(len(parts))]
    names = (273, 279) if tile is None else (324, 325)
    bits, sample_kind = samples.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    tags = {
        256: [width],
        257: [height],
        258: [bits] * count,
        259: [{False: 1, True: 8, "tiff_lzw": 5, "packbits": 32773}[packed]],
        262: [1],
        277: [count],
    }
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


def _float_differences(part):
    """The bytes of floats, most significant ones first in each row, as differences: predictor 3."""
    rows, columns, count = part.shape
    planes = part.astype(">f4").view(np.uint8).reshape(rows, columns * count, 4).swapaxes(1, 2)
    return np.diff(planes.reshape(rows, -1, count), axis=1, prepend=np.uint8(0)).tobytes()


def _packed(data, packed, rows):
    if packed is True:
        return zlib.compress(data)
    if not packed:
        return data
    file = encode(
        Image.fromarray(np.frombuffer(data, np.uint8).reshape(rows, -1)), "TIFF", compression=packed, strip_size=2**30
    )
    with Image.open(BytesIO(file)) as image:
        (place,), (size,) = image.tag_v2[273], image.tag_v2[279]
    return file[place : place + size]


def tiff(tags, following=0):
    """A little-endian TIFF of one directory; tags are {number: value}, all of 32 bits."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + bytes(64)


def _tiff_of(width, height, following=0):
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: max(height, 1), 279: 64}
    return tiff(tags, following)


def _jpeg_of(width, height):
    data = bytearray(good_picture("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _patched(kind, at, layout, *values):
    data = bytearray(good_picture(kind))
    struct.pack_into(layout, data, at, *values)
    return bytes(data)


def _webp_of(side):
    bits = (side - 1) | (side - 1) << 14
    body = b"VP8L" + struct.pack("<IBI", 5, 0x2F, bits) + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _gif_of(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(3) + b"," + struct.pack("<HHHH", 0, 0, width, height)


def _sizes():
    """Declared sizes that no picture has: each file is smaller than 20 KB."""
    huge = {
        "png": png(2**31 - 1, 2**31 - 1),
        "png-minus": png(-1, -1),
        "png-wide": png(2**31 - 1, 1),
        "png-20k": png(20_000, 20_000),
        "jpeg": _jpeg_of(65_535, 65_535),
        "tiff": _tiff_of(2**31 - 1, 2**31 - 1),
        "tiff-strips": _tiff_of(300_000, 300_000),
        "bmp": _patched("BMP", 18, "<ii", 2**31 - 1, 2**31 - 1),
        "bmp-upside-down": _patched("BMP", 18, "<ii", 2**20, -(2**20)),
        "gif": _gif_of(65_535, 65_535) + bytes(9),
        "webp": _webp_of(16_384),
        "ppm": b"P6 4000000000 4000000000 255\n" + bytes(99),
        "ppm-digits": b"P6 " + b"9" * 5000 + b" 1 255\n",
    }
    zero = {
        "png": png(0, 5),
        "jpeg": _jpeg_of(64, 0),
        "tiff": _tiff_of(0, 5),
        "bmp": _patched("BMP", 18, "<ii", 0, 0),
        "gif": _gif_of(0, 0) + bytes(9),
        "ppm": b"P6 0 5 255\n",
    }
    yield from ((f"huge-{name}", data, "refused") for name, data in huge.items())
    yield from ((f"zero-{name}", data, "refused") for name, data in zero.items())


def _damaged():
    rng = np.random.default_rng(6)
    for kind in FORMATS:
        whole = good_picture(kind)
        for share, comes in ((0.1, "refused"), (0.5, "refused"), (0.99, "either")):
            yield f"{kind.lower()}-cut-{share}", whole[: int(len(whole) * share)], comes
        yield f"{kind.lower()}-random", whole[:24] + rng.bytes(3000), "either"
        yield f"{kind.lower()}-other-magic", b"XXXX" + whole[4:], "refused"
        flipped = np.frombuffer(whole, np.uint8).copy()
        flipped[rng.integers(16, len(flipped), 40)] ^= 0xFF
        yield f"{kind.lower()}-flipped", flipped.tobytes(), "either"
    yield "tiff-loop", _tiff_of(8, 8, following=8), "either"
    yield "tiff-many-tags", b"II*\0" + struct.pack("<IH", 8, 65_535), "refused"
    yield "tiff-far-directory", b"II*\0" + struct.pack("<I", 2**32 - 2), "refused"
    yield "png-text-bomb", png(8, 8, extra=[(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**8)))]), "refused"
    yield "png-bad-checksum", good_picture()[:40] + b"\0\0\0\0" + good_picture()[44:], "refused"
    yield "png-long-data", png(4, 4, data=bytes(10**7)), "either"


def _foreign():
    yield "empty", b"", "refused"
    yield "one-byte", b"\x89", "refused"
    for name, data in {
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "zip": b"PK\3\4" + bytes(60),
        "elf": b"\x7fELF" + bytes(60),
        "pickle": b"\x80\x04K\x01.",
        "mp4": b"\0\0\0\x18ftypmp42" + bytes(60),
        "zeros": bytes(4096),
    }.items():
        yield name, data, "refused"


def _odd():
    """Sound pictures of unusual kinds."""
    rgb = Image.fromarray(_NOISE)
    two = {"save_all": True, "append_images": [rgb.rotate(180)]}
    for name, data in {
        "gray-16": encode(Image.fromarray(_DEEP)),
        "gray-16-tiff": encode(Image.fromarray(_DEEP), "TIFF"),
        "gray-16-big-endian": encode(Image.frombytes("I;16B", (WIDTH, HEIGHT), _DEEP.astype(">u2").tobytes()), "TIFF"),
        "rgb-16": png(WIDTH, HEIGHT, 16, 2, (b"\0" + bytes(6 * WIDTH)) * HEIGHT),
        "bilevel": encode(rgb.convert("1")),
        "bilevel-pbm": encode(rgb.convert("1"), "PPM"),
        "cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "palette-alpha": encode(rgb.quantize(16), transparency=bytes(range(16))),
        "gray-alpha": encode(rgb.convert("LA")),
        "rgba": encode(rgb.convert("RGBA")),
        "gif-animated": encode(rgb, "GIF", **two),
        "png-animated": encode(rgb, **two),
        "webp-animated": encode(rgb, "WEBP", **two),
        "tiff-pages": encode(rgb, "TIFF", **two),
        "mpo": encode(rgb, "MPO", **two),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True),
        "broken-icc": encode(rgb, icc_profile=b"\0\0\0\1 no profile"),
        "broken-icc-jpeg": encode(rgb, "JPEG", icc_profile=b"x" * 70_000),
    }.items():
        yield name, data, "read"
    for name, data in {
        "float": encode(Image.fromarray(_DEEP.astype(np.float32)), "TIFF"),
        "float-nan": encode(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"),
        "int-32": encode(Image.fromarray(_DEEP.astype(np.int32)), "TIFF"),
        "lab": encode(rgb.convert("LAB"), "TIFF"),
    }.items():
        yield name, data, "refused"
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation-{orientation}", encode(rgb, "JPEG", exif=exif), "read"
    yield "broken-exif", encode(rgb, "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 40), "either"
    yield "broken-exif-png", encode(rgb, exif=b"MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40), "either"


def encoded_pictures():
    """Name, bytes, and what must come of it."""
    for cases in (_foreign(), _sizes(), _damaged(), _odd()):
        yield from cases


def write_pictures(folder):
    """Write the encoded ones, and what only a file system has; path and what must come of it, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = {}
    for name, data, comes in encoded_pictures():
        path = folder / f"{name}.png"
        path.write_bytes(data)
        cases[name] = (path, comes)
    whole = good_picture()
    for name, file in {
        "name-with-newline": "a\nerror: b.png",
        "name-with-escape": "\x1b[2J\x1b]0;owned\x07.png",
        "name-turned-around": "gnp.\u202etxe.png",
        "name-not-utf-8": os.fsdecode(b"\xff\xfe\xe9.png"),
        "name-of-an-option": "--force.png",
    }.items():
        (folder / file).write_bytes(whole)
        (folder / f"broken {file}").write_bytes(whole[:50])
        cases[name] = (folder / file, "read")
        cases[f"broken-{name}"] = (folder / f"broken {file}", "refused")
    for name, target in {
        "dangling-link": "nowhere.png",
        "endless-link": "endless-link.png",
        "device": "/dev/zero",
        "device-null": "/dev/null",
        "process-memory": "/proc/self/mem",
    }.items():
        (folder / f"{name}.png").symlink_to(target)
        cases[name] = (folder / f"{name}.png", "refused")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "locked.png").write_bytes(whole)
    (folder / "locked.png").chmod(0)
    cases["folder"], cases["pipe"] = (folder / "folder.png", "refused"), (folder / "pipe.png", "refused")
    cases["locked"] = (folder / "locked.png", "either")  # the superuser reads it
    for name, file in {"missing": "missing.png", "nul-in-name": "a\0b.png", "long-name": "x" * 5000}.items():
        cases[name] = (f"{folder}/{file}", "refused")
    cases["below-a-file"] = (folder / "locked.png" / "a.png", "refused")
    return cases


def other_sources():
    """Arrays, PIL images and more: source and what must come of it, by name."""
    closed = Image.fromarray(_NOISE)
    closed.close()
    arrays = {
        "array-0d": np.uint8(3) * np.ones((), np.uint8),
        "array-1d": np.zeros(9, np.uint8),
        "array-4d": np.zeros((1, 9, 9, 3), np.uint8),
        "array-no-rows": np.zeros((0, 9, 3), np.uint8),
        "array-no-channels": np.zeros((9, 9, 0), np.uint8),
        "array-2-channels": np.zeros((9, 9, 2), np.uint8),
        "array-channels-first": np.zeros((3, 9, 9), np.uint8),
        "array-float": np.zeros((9, 9, 3)),
        "array-nan": np.full((9, 9, 3), np.nan, np.float32),
        "array-infinite": np.full((9, 9, 3), np.inf, np.float16),
        "array-negative": np.full((9, 9, 3), -1, np.int8),
        "array-16-bit": np.full((9, 9, 3), 60_000, np.uint16),
        "array-64-bit": np.full((9, 9, 3), 2**40, np.int64),
        "array-bool": np.zeros((9, 9, 3), np.bool_),
        "array-complex": np.zeros((9, 9, 3), np.complex64),
        "array-objects": np.full((9, 9, 3), None, object),
        "array-texts": np.full((9, 9, 3), "x"),
        "array-records": np.zeros((9, 9), [("r", "u1"), ("g", "u1")]),
        "array-huge": np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)),
        "none": None,
        "number": 5,
        "list": [[1, 2], [3, 4]],
        "pil-closed": closed,
        "pil-cut": Image.open(BytesIO(good_picture("JPEG")[:1500])),
        "pil-no-sides": Image.new("RGB", (0, 5)),
        "pil-float": Image.new("F", (4, 4)),
    }
    cases = {name: (source, "refused") for name, source in arrays.items()}
    cases["array-strided"] = (_NOISE[::-2, ::3], "read")
    cases["array-read-only"] = (np.broadcast_to(_NOISE[:1], (9, WIDTH, 3)), "read")
    cases["pil-wide"] = (Image.new("L", (100_000, 1)), "read")
    return cases
